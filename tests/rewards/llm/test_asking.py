from __future__ import annotations

from itertools import pairwise
from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.llm.asking import choice_probabilities
from rewards.llm.server import Position

VERDICTS = ("helpful", "neutral", "unhelpful")


def at(token: str, **masses: float) -> Position:
    return Position(token, {t: log(p) for t, p in masses.items()})


def test_one_token_a_choice():
    found = choice_probabilities(VERDICTS, [at("helpful", helpful=0.5, neutral=0.3, unhelpful=0.2)])
    assert found == pytest.approx({"helpful": 0.5, "neutral": 0.3, "unhelpful": 0.2})


def test_mass_on_beginnings_goes_to_the_only_choice_they_can_become():
    found = choice_probabilities(VERDICTS, [at("h", h=0.2, help=0.1, helpful=0.1, un=0.3, u=0.1, ne=0.2)])
    assert found == pytest.approx({"helpful": 0.4, "neutral": 0.2, "unhelpful": 0.4})


def test_blanks_and_their_markers_do_not_matter():
    tokens = {" helpful": 0.1, "▁helpful": 0.1, "Ġhelp": 0.1, "Ċneutral": 0.3, "\n\nun": 0.4}
    found = choice_probabilities(VERDICTS, [Position(" helpful", {t: log(p) for t, p in tokens.items()})])
    assert found == pytest.approx({"helpful": 0.3, "neutral": 0.3, "unhelpful": 0.4})


def test_what_is_no_choice_is_left_out():
    found = choice_probabilities(VERDICTS, [at("I", I=0.4, Helpful=0.2, helpfully=0.2, helpful=0.15, ne=0.05)])
    assert found == pytest.approx({"helpful": 0.75, "neutral": 0.25, "unhelpful": 0.0})
    assert choice_probabilities(VERDICTS, [at("I", I=0.9, The=0.1)]) is None
    assert choice_probabilities(VERDICTS, []) is None


def test_a_word_with_its_full_stop_is_the_choice():
    tokens = {"helpful.": log(0.6), "neutral\n": log(0.4)}
    assert choice_probabilities(VERDICTS, [Position("helpful.", tokens)]) == pytest.approx(
        {"helpful": 0.6, "neutral": 0.4, "unhelpful": 0.0}
    )


def test_an_undecided_token_that_was_written_is_followed():
    # "se" may become either; after it, "cond" has three quarters.
    positions = [at("se", se=0.8, first=0.2), at("cond", cond=0.75, venth=0.25)]
    found = choice_probabilities(("first", "second", "seventh"), positions)
    assert found == pytest.approx({"first": 0.2, "second": 0.6, "seventh": 0.2})


def test_an_undecided_rival_is_split_equally():
    positions = [at("first", first=0.6, se=0.4)]
    found = choice_probabilities(("first", "second", "seventh"), positions)
    assert found == pytest.approx({"first": 0.6, "second": 0.2, "seventh": 0.2})


def test_what_is_undecided_at_the_end_is_split_equally():
    found = choice_probabilities(("first", "second", "seventh"), [at("se", se=0.5, first=0.5)])
    assert found == pytest.approx({"first": 0.5, "second": 0.25, "seventh": 0.25})
    blank = [at(" ", **{" ": 0.6, "first": 0.4}), at("x", x=1.0)]
    assert choice_probabilities(("first", "second"), blank) == pytest.approx({"first": 0.7, "second": 0.3})


def test_a_choice_that_begins_another_is_told_from_it_by_what_follows():
    positions = [at("help", help=0.9, no=0.1), Position("<|end|>", {"<|end|>": log(0.7), "ful": log(0.3)})]
    found = choice_probabilities(("help", "helpful", "no"), positions)
    assert found == pytest.approx({"help": 0.63, "helpful": 0.27, "no": 0.1})


def test_masked_tokens_weigh_nothing():
    masked = {"neutral": -0.5498, "ne": -1.1262, "h": -3.4543, "un": -3.4919, "<|bos|>": -9999.0, "first": -9999.0}
    found = choice_probabilities(VERDICTS, [Position("neutral", masked)])
    total = exp(-0.5498) + exp(-1.1262) + exp(-3.4543) + exp(-3.4919)
    assert found == pytest.approx(
        {
            "helpful": exp(-3.4543) / total,
            "neutral": (exp(-0.5498) + exp(-1.1262)) / total,
            "unhelpful": exp(-3.4919) / total,
        }
    )


CHOICES = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4, unique=True)


@st.composite
def replies(draw: st.DrawFn) -> tuple[list[str], list[Position]]:
    """Choices that share beginnings, and a reply with rivals drawn around one of them."""
    choices = draw(CHOICES)
    tokens = draw(st.lists(st.text("ab ", min_size=1, max_size=2), min_size=1, max_size=4))
    positions = []
    for token in tokens:
        rivals = draw(st.dictionaries(st.text("abc ", max_size=3), st.floats(-12.0, 0.0), max_size=5))
        positions.append(Position(token, rivals | {token: draw(st.floats(-6.0, 0.0))}))
    return choices, positions


@given(replies())
def test_probabilities_sum_to_one(reply):
    choices, positions = reply
    found = choice_probabilities(choices, positions)
    if found is None:
        assert not any(c.startswith(token.lstrip()) for token in positions[0].logprobs for c in choices)
    else:
        assert list(found) == choices
        assert sum(found.values()) == pytest.approx(1.0)
        assert all(p >= 0.0 for p in found.values())


@given(replies(), st.floats(-50.0, 50.0))
def test_a_constant_added_to_log_probabilities_changes_nothing(reply, shift):
    choices, positions = reply
    shifted = [Position(p.token, {t: x + shift for t, x in p.logprobs.items()}) for p in positions]
    before, after = choice_probabilities(choices, positions), choice_probabilities(choices, shifted)
    assert (before is None) == (after is None)
    if before is not None:
        assert after == pytest.approx(before)


@given(replies(), st.randoms(use_true_random=False))
def test_the_order_of_choices_and_tokens_does_not_matter(reply, random):
    choices, positions = reply
    mixed = random.sample(choices, len(choices))
    turned = [Position(p.token, dict(reversed(p.logprobs.items()))) for p in positions]
    before, after = choice_probabilities(choices, positions), choice_probabilities(mixed, turned)
    assert before == (after if after is None else pytest.approx(after))


@given(CHOICES, st.data())
def test_a_certain_spelling_of_a_choice_is_that_choice(choices, data):
    """However it is cut into tokens, and whichever other choices begin like it."""
    said = data.draw(st.sampled_from(choices))
    cuts = data.draw(st.sets(st.integers(1, max(1, len(said) - 1)), max_size=3))
    edges = [0, *sorted(cut for cut in cuts if cut < len(said)), len(said)]
    tokens = [said[a:b] for a, b in pairwise(edges)] + ["<|end|>"]
    found = choice_probabilities(choices, [Position(token, {token: 0.0}) for token in tokens])
    assert found == pytest.approx({choice: float(choice == said) for choice in choices})
