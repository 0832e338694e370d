"""The code in what a language model replied."""

import re
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.auto.search.replies import MAX_THOUGHTS, Code, Problem, code_of

HELPER = "def near(x):\n    return x <= 1\n"
REWARD = "def reward(obs, prev_obs, action, info):\n    return 1.0 if near(info['key_distance']) else 0.0\n"
CONSTANTS = 'COMPONENTS = {\n    "goal": "sparse",\n}\nFAR = 99\n'
WHOLE = f"{CONSTANTS}\n\n{HELPER}\n\n{REWARD}"


def source_of(reply):
    found = code_of(reply)
    assert isinstance(found, Code), found
    return found.source


@pytest.mark.parametrize(
    "reply",
    [
        WHOLE,
        f"```python\n{WHOLE}```",
        f"```\n{WHOLE}```\n",
        f"Here it is:\n\n```py\n{WHOLE}```\nIt pays for keys.",
        f"~~~~python\n{WHOLE}~~~~",
        f"I first thought of\n```python\n{REWARD}```\nbut this is better:\n```python\n{WHOLE}```",
        f"```python\n{REWARD}\nAnd again:\n```python\n{WHOLE}```",  # the first never closed
        f"```python\n{WHOLE}",  # never closed
        f"Sure! This is the program:\n{WHOLE}\nIt pays for keys.",
        f"1. The program:\n   ```python\n{textwrap.indent(WHOLE, '   ')}   ```\n",
        f"```python\n{WHOLE}```\nCall it so:\n```python\nvalue = reward(obs, prev_obs, action, info)\n```",
        f"```text\nan idea\n```\n```python\n{WHOLE}```\n```json\n{{}}\n```",
        f"<think>\nmaybe\n```python\n{REWARD}```\n</think>\n```python\n{WHOLE}```",
        f"\ufeff{WHOLE}",
        f"```python\nimport math\n\n{WHOLE}```",
        f"```python\nfrom __future__ import annotations\n\nimport math\n{WHOLE}```",
    ],
)
def test_the_program_comes_out_whole(reply):
    assert source_of(reply) == WHOLE


def test_line_ends_and_trailing_blanks_do_not_make_another_program():
    assert source_of(f"```python\n{WHOLE}```".replace("\n", "\r\n")) == WHOLE
    assert source_of(f"```python\n{WHOLE}```".replace("\n", "  \n")) == WHOLE
    assert source_of(f"\n\n{WHOLE}\n\n\n") == WHOLE


def test_helpers_in_a_fence_of_their_own_are_put_before():
    reply = f"The helper:\n```python\n{HELPER}```\nThe program:\n```python\n{REWARD}```"
    assert source_of(reply) == f"{HELPER}\n\n{REWARD}"
    constants = f"```python\nNEAR = 1\n```\n```python\n{HELPER.replace('1', 'NEAR')}```\n```python\n{REWARD}```"
    assert source_of(constants).startswith("NEAR = 1\n\n\ndef near(x):\n    return x <= NEAR\n")


def test_fences_that_the_program_does_not_need_are_left_out():
    unused = "```python\ndef other():\n    return 1\n```\n"
    assert source_of(f"{unused}```python\n{WHOLE}```") == WHOLE


def test_helpers_behind_the_function_are_kept():
    behind = f"{REWARD}\n\n{HELPER}"
    assert source_of(f"```python\n{behind}```") == behind
    assert source_of(f"So:\n{behind}\nThat is all.") == behind


def test_what_was_said_around_it_is_kept():
    found = code_of(f"Keys matter.\n```python\n{WHOLE}```\nThat is all.")
    assert isinstance(found, Code) and found.thoughts == "Keys matter.\nThat is all."
    found = code_of(f"<think>Doors!</think>\n```python\n{WHOLE}```")
    assert isinstance(found, Code) and "Doors!" in found.thoughts
    found = code_of("x" * 2 * MAX_THOUGHTS + f"\n```python\n{WHOLE}```")
    assert isinstance(found, Code) and len(found.thoughts) == MAX_THOUGHTS


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        ("", "empty"),
        (" \r\n\t", "empty"),
        ("<think>I wonder whether\n" + REWARD, "before any code"),
        ("Explore more!", "does not define"),
        ("```python\nx = 1\n```", "none of its fenced blocks"),
        ("class A:\n    def reward(self):\n        return 1", "does not define"),
        ("call reward(obs, prev_obs, action, info)", "does not define"),
    ],
)
def test_nothing_usable_is_a_problem_in_one_sentence(reply, part):
    found = code_of(reply)
    assert isinstance(found, Problem) and part in found.reason and "\n" not in found.reason


# ---- properties

words = st.text(st.characters(codec="ascii", categories=["Ll", "Lu", "Nd", "Zs"]), min_size=1, max_size=20)
prose = st.lists(words.map(lambda text: "Well, " + text), max_size=4).map("\n".join)
names = st.from_regex(r"[a-z]{3,8}", fullmatch=True)


@st.composite
def programs(draw):
    helpers = draw(st.lists(names.filter(lambda name: name != "reward"), max_size=3, unique=True))
    parts = [f"def {name}(x):\n    return x + {draw(st.integers(0, 9))}\n" for name in helpers]
    body = " + ".join([f"{name}(1)" for name in helpers] or ["0"])
    return "\n\n".join([*parts, f"def reward(obs, prev_obs, action, info):\n    return {body}\n"])


@settings(max_examples=50, deadline=None)
@given(
    programs(), prose, prose, st.sampled_from(["```python", "```", "~~~", "````py"]), st.sampled_from(["\n", "\r\n"])
)
def test_any_program_survives_any_wrapping(source, before, after, fence, end):
    closing = fence.rstrip("pyton")
    reply = "\n".join([before, fence, source + closing, after]).replace("\n", end)
    assert source_of(reply) == source


@settings(max_examples=50, deadline=None)
@given(programs(), prose, prose)
def test_any_program_is_found_without_a_fence(source, before, after):
    assert source_of(f"{before}\n\n{source}\n{after}") == source


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([*"`~ \n\r\t():#=x", "```", "def reward(", "<think>", "</think>"]), max_size=60).map(
        "".join
    )
)
def test_any_reply_is_code_or_a_problem(reply):
    found = code_of(reply)
    if isinstance(found, Code):
        assert re.search(r"^def[ \t]+reward[ \t]*\(", found.source, re.MULTILINE)
        assert found.source.endswith("\n") and not found.source.startswith("\n") and "\r" not in found.source
        again = code_of(found.source)
        assert isinstance(again, Code)
    else:
        assert found.reason
