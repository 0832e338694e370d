"""Text is admitted as a program, or refused with place, reason and remedy, whatever it is."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.schema import COLUMNS
from rewards.auto.language import admission, child
from rewards.auto.language.admission import admit, admit_file
from rewards.auto.program import REJECTIONS, ProgramRejectedError, describe_rejections
from tests.rewards.auto.corpus import CASES, HEAD

NUMBER = HEAD + "    return 1.0\n"


def of_body(body, before=""):
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    return admit(before + HEAD + lines)


def rejection(source):
    with pytest.raises(ProgramRejectedError) as caught:
        admit(source)
    return caught.value.rejection


def test_bytes_and_text_are_the_same_program():
    assert admit(NUMBER.encode()) == admit(NUMBER)
    assert admit(NUMBER).source == NUMBER
    assert admit(NUMBER).columns == ()


def test_a_file_is_admitted(tmp_path):
    path = tmp_path / "reward.py"
    path.write_text(NUMBER)
    assert admit_file(path).source == NUMBER
    path.write_bytes(b"#" * 10**6)
    with pytest.raises(ProgramRejectedError, match="E01"):
        admit_file(path)
    with pytest.raises(FileNotFoundError):
        admit_file(tmp_path / "none.py")


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (b"# \xff\n" + NUMBER.encode(), "E02"),
        (b"# \xed\xa0\x80\n" + NUMBER.encode(), "E02"),
        ("# \ud800\n" + NUMBER, "E02"),
        (b"", "E10"),
        (b"\xff\xfe" + NUMBER.encode("utf-16-le"), "E02"),
        (b"#" * 20_000, "E01"),
        ("# " + "\u00e9" * 10_000 + "\n" + NUMBER, "E01"),
    ],
)
def test_bytes_that_are_refused(source, code):
    assert rejection(source).code == code


def test_sizes_at_the_bound_are_admitted():
    filler = ("#" * 99 + "\n") * 163
    fits = filler + "#" * (admission.MAX_BYTES - len(filler) - len(NUMBER) - 1) + "\n" + NUMBER
    assert len(fits) == admission.MAX_BYTES
    assert admit(fits)
    assert rejection(fits + "\n").code == "E01"
    assert of_body("return " + "(" * 40 + "1" + ")" * 40)
    assert of_body("return " + "-" * 20 + "1")


def test_brackets_and_signs_in_texts_and_comments_do_not_count():
    assert of_body(f"x = {'(' * 100!r}  # {'[' * 100}\n# {'-' * 80}\nreturn len(x)")


def test_a_rejection_shows_its_place():
    found = rejection(HEAD + "    x = 1.0\n    return x + len('{0.x}'.format(obs))\n")
    assert (found.code, found.line, found.column) == ("E22", 3, 20)
    assert found.source_line == "    return x + len('{0.x}'.format(obs))"
    assert str(found) == (
        "E22 line 3 col 20: the method 'format' is not available (use an f-string such as f'{x:.2f}')"
    )


def test_characters_are_refused_where_they_stand():
    found = rejection(NUMBER + "# a\u200bb\n")
    assert (found.code, found.line, found.column) == ("E03", 3, 4)
    assert "U+200B" in found.reason


def test_a_carriage_return_says_how_to_mend_it():
    assert "end lines with \\n" in rejection(NUMBER + "# a\r\n").reason
    assert rejection(NUMBER.replace("\n", "\r")).code == "E03"
    assert rejection("# a\r" + NUMBER.replace("\n", "\r\n")).code == "E03"


@pytest.mark.parametrize("kind", [str.encode, str])
def test_what_editors_put_into_files_is_taken_out(kind):
    plain = admit(NUMBER)
    for source in (NUMBER.replace("\n", "\r\n"), "\ufeff" + NUMBER, "\ufeff" + NUMBER.replace("\n", "\r\n")):
        assert admit(kind(source)) == plain
        assert admit(kind(source)).sha == plain.sha
    assert rejection(kind("\ufeff\ufeff" + NUMBER)).code == "E03"


@pytest.mark.parametrize(
    ("source", "code", "line"),
    [
        (HEAD + "    return obs @ obs\n", "E20", 2),
        (HEAD + "    x = 1\n    x @= 2\n    return x\n", "E20", 3),
        (HEAD + "    return (obs" + "\n.a" * 200 + ")\n", "E04", 2),
        (HEAD + "    return (1" + "\n and 1" * 300 + ")\n", "E04", 2),
        (NUMBER + "\n" * 700, "E01", 601),
        (b"# a\n# \xff\n" + NUMBER.encode(), "E02", 2),
        ("# a\n# \ud800\n" + NUMBER, "E02", 2),
        ("#!/usr/bin/python\n# coding: latin-1\n" + NUMBER, "E02", 2),
        ("import os\n" + NUMBER, "E15", 1),
    ],
)
def test_a_rejection_has_a_line(source, code, line):
    found = rejection(source)
    assert (found.code, found.line) == (code, line)


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        ("obs['max_hps']", "nearest: obs['max_hp'], prev_obs['max_hp'], info['max_depth']"),
        ("prev_obs['max_hps']", "nearest: prev_obs['max_hp'], obs['max_hp'], info['max_depth']"),
        ("info['hp']", "it is obs['hp'] and prev_obs['hp']"),
        ("obs['max_depth']", "it is info['max_depth']"),
        ("obs['action']", "it is action, the parameter"),
        ("obs.hp", "write obs['hp']"),
        ("np.mean([1])", "use math, min, max, sum"),
        ("getattr(obs, 'hp')", "read fields as obs['hp']"),
        ("list(map(str.lower, ['A']))", "write a comprehension, [x.lower() for x in xs], or lambda x: x.lower()"),
        ("(1.0).is_integer()", "write x == int(x)"),
        ("Dict()", "types of typing stand in annotations only"),
    ],
)
def test_hints_say_what_to_write(expression, hint):
    assert rejection(f"{HEAD}    return {expression}\n").hint == hint


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("from math import log\ndef f(log):\n    return log\n", "write math.sqrt(x): math is there without an import"),
        ("def f():\n    from math import log\n", "write math.sqrt(x): math is there without an import"),
        ("import numpy as np\n", "take it out: programs use nothing but the language and math"),
        ("import math, sys\n", "take it out: programs use nothing but the language and math"),
    ],
)
def test_imports_say_what_to_write(source, hint):
    assert rejection(source + NUMBER).hint == hint


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return obs['zzz']", "obs has no field 'zzz'"),
        ("return info.get('zzz', 0)", "info has no field 'zzz': get would always give its default"),
        ("return 'zzz' in info", "info has no field 'zzz': this would never be in it"),
        ("o = obs\nreturn o['max_hpp']", "obs has no field 'max_hpp'"),
        ("math = 1\nreturn math", "math is bound anew"),
        ("o = obs\no['hp'] = 1\nreturn 0", "o is written to"),
        ("e = 1\ntry:\n    pass\nexcept KeyError as e:\n    pass\nreturn e", "what 'except ... as e' binds is read"),
    ],
)
def test_reasons_say_what_is_true(body, reason):
    found = rejection(HEAD + "".join(f"    {line}\n" for line in body.split("\n")))
    assert found.reason == reason


def test_a_wrong_field_of_an_alias_has_the_nearest_name():
    assert rejection(HEAD + "    o = obs\n    return o['max_hpp']\n").hint.startswith("nearest: obs['max_hp']")


def test_components_are_read_off():
    program = admit('COMPONENTS: dict[str, str] = {"goal": "sparse", "explore": "dense"}\n' + NUMBER)
    assert program.components == {"goal": "sparse", "explore": "dense"}
    assert program.kind_of("goal") == "sparse"
    assert not of_body("return 1").components


def test_code_inside_the_program_is_not_run(tmp_path):
    mark = tmp_path / "mark"
    for source in (f"open({str(mark)!r}, 'w')\n", f"@open({str(mark)!r}, 'w')\n", f"X = [open({str(mark)!r}, 'w')]\n"):
        assert rejection(source + NUMBER)
    assert not mark.exists()


def started(monkeypatch, script):
    """A judge of its own, whose process runs other code: ``line`` is a request, ``say`` answers it."""
    begin = "import json, os, sys, time\ndef say(**told): print(json.dumps(told), flush=True)\n"
    monkeypatch.setattr(admission, "_RUN_JUDGE", f"{begin}for line in sys.stdin:\n    {script}")
    judge = admission.Judge()
    monkeypatch.setattr(admission, "JUDGE", judge)
    return judge


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("say(status=-6, answer='')", "the parser ended with status -6"),
        ("os.abort()", "the parser gave no answer"),
        ("say(status=0, answer='{')", "the parser gave no answer"),
        ("print('{', flush=True)", "the parser gave no answer"),
        ("time.sleep(60)", "parsing took more than 1 s"),
    ],
)
def test_a_parser_that_dies_or_hangs_is_a_rejection(monkeypatch, script, reason):
    judge = started(monkeypatch, script)
    monkeypatch.setattr(admission, "CHECK_S", 1.0)
    found = rejection(f"# {reason}\n{NUMBER}")
    judge.close()
    assert (found.code, found.reason) == ("E06", reason)


def test_a_process_that_died_is_replaced():
    judge = admission.Judge()
    request = {"source": NUMBER, "fields": {}, "max_components": 1}
    assert judge.answer(request) == {"columns": [], "open_groups": [], "components": {}}
    os.kill(judge.process, 9)
    time.sleep(0.1)
    assert judge.answer(request)["columns"] == []
    judge.close()
    judge.close()
    assert judge.process is None


def test_what_was_admitted_before_is_not_judged_again(monkeypatch):
    source = "# only once\n" + NUMBER
    first = admit(source)
    judge = started(monkeypatch, "say(status=1, answer='')")
    assert admit(source) is first and admit(source.encode()) is first
    assert rejection("# another\n" + NUMBER).code == "E06"
    judge.close()


@pytest.mark.parametrize(("end", "status"), [("os.abort()", -6), ("sys.exit(3)", 1), ("[0] * 10**9", 1)])
def test_what_ends_a_fork_leaves_the_process(monkeypatch, end, status):
    code = compile(end, "end", "eval")
    monkeypatch.setattr(child, "answered", lambda request: eval(code, {"os": os, "sys": sys}) and {})
    line = json.dumps({"source": NUMBER, "fields": {}, "max_components": 1}).encode()
    told = child.apart(line)
    assert told == {"status": status, "answer": ""}
    monkeypatch.undo()
    assert json.loads(child.apart(line)["answer"]) == {"columns": [], "open_groups": [], "components": {}}


PROBE = """
import sys; sys.path.append(sys.argv[1]); import json, os; from language import child
def answered(request):
    import resource
    names = {name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names
    return {"modules": sorted(names), "environment": sorted(os.environ),
            "limits": [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU)]}
child.answered = answered
child.main()
"""


def test_a_fork_has_no_environment_bounded_memory_and_nothing_but_the_standard_library(monkeypatch):
    monkeypatch.setenv("API_KEY", "secret")
    monkeypatch.setattr(admission, "_RUN_JUDGE", PROBE)
    judge = admission.Judge()
    found = judge.answer({})
    judge.close()
    assert found["modules"] == ["__main__", "language"] and "API_KEY" not in found["environment"]
    assert found["limits"] == [512 << 20, 5]


def test_the_process_ends_with_ours():
    code = (
        "from rewards.auto.language import admission as a;"
        "a.admit('def reward(obs, prev_obs, action, info):\\n return 1');"
        "print(a.JUDGE.process, flush=True); import os; os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).parents[4]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=root, check=False)
    process = Path("/proc", ran.stdout.decode().strip())
    deadline = time.monotonic() + 5.0
    while process.exists() and "Z" not in process.joinpath("stat").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not process.exists() or "Z" in process.joinpath("stat").read_text()


def test_every_code_is_described():
    text = describe_rejections()
    assert all(f"| {code} | {kind.title} |" in text for code, kind in REJECTIONS.items())
    assert len(text.splitlines()) == len(REJECTIONS) + 2


PIECES = st.sampled_from(
    ["obs", "prev_obs", "info", "action", "['hp']", "(", ")", "[", "]", "{", "}", ":", ",", "=", ":=", "lambda", " ",
     "\n", "\n    ", "for x in", "if", "else", "match", "case", "def f(o)", "return", "*", "**", "f'{", "}'", "'", '"',
     '"""', "\\", "#", "not ", "-", "1", "1e9", "x", "__class__", ".", "é", "\u200b", "\0", "try", "except", "import",
     "async ", "await ", "yield", "@", "->", "...", "%", "del ", "global x", "with ", "as ", "\t", "class A", "!r", ";"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join), st.binary(max_size=100)))
def test_arbitrary_text_is_admitted_or_refused(text):
    for source in (text, HEAD + "    return " + text if isinstance(text, str) else text):
        try:
            admit(source)
        except ProgramRejectedError as error:
            assert error.rejection.code in REJECTIONS


@st.composite
def spoilt(draw):
    """A program of the corpus, with a stretch of it replaced by one of another."""
    source, other = draw(st.sampled_from(CASES)).source, draw(st.sampled_from(CASES)).source
    start, end = sorted(draw(st.integers(0, len(source))) for _ in range(2))
    begin = draw(st.integers(0, len(other)))
    return source[:start] + other[begin : begin + draw(st.integers(0, 60))] + source[min(end, start + 30) :]


@settings(max_examples=200, deadline=None)
@given(spoilt())
def test_admitted_programs_read_columns_of_the_schema(source):
    try:
        program = admit(source)
    except ProgramRejectedError as error:
        assert error.rejection.code in REJECTIONS
    else:
        assert set(program.columns) <= set(COLUMNS)
        assert program.open_groups <= {"obs", "prev_obs", "info"}
        assert "__" not in "".join(program.components)
