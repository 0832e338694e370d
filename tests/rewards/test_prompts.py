from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.labels.config import LabelsConfig
from rewards.labels.prompts import GOALS, ParseFailure, PromptSpec


def test_instructions_come_first_and_do_not_depend_on_the_caption():
    spec = PromptSpec()
    one, two = spec.render("You kill the newt!"), spec.render("Ouch!")
    assert one.startswith(spec.instructions) and two.startswith(spec.instructions)
    assert one.endswith("Message:\nYou kill the newt!\n\nVerdict:")
    assert GOALS["score"] in spec.instructions


def test_goals_change_the_prompt_and_may_be_sentences():
    assert len({PromptSpec(goal=goal).instructions for goal in GOALS}) == len(GOALS)
    assert "wants to collect many potions." in PromptSpec(goal="collect many potions.").instructions


@pytest.mark.parametrize(
    ("reply", "value"),
    [("helpful", 1.0), (" neutral\n", 0.0), ("unhelpful", 0.0), ("unknown", None)],
)
def test_choices_are_read(reply, value):
    assert PromptSpec().parse(reply) == value


@pytest.mark.parametrize("reply", ["", "Helpful", "helpful.", "not helpful", "helpful neutral", "0", "un"])
def test_anything_else_is_a_failure_and_never_a_value(reply):
    assert isinstance(PromptSpec().parse(reply), ParseFailure)


@given(st.text())
def test_only_the_choices_have_values(reply):
    value = PromptSpec().parse(reply)
    known = {"helpful", "neutral", "unhelpful", "unknown"}
    assert isinstance(value, ParseFailure) == (reply.strip() not in known)


def test_unknown_versions_and_goals_are_refused():
    with pytest.raises(ValueError, match="unknown prompt version 'v9': choose from single-1"):
        PromptSpec(version="v9")
    with pytest.raises(ValueError, match="did you mean 'score'"):
        PromptSpec(goal="scor")
    with pytest.raises(ValueError, match="single line"):
        PromptSpec(goal="two\nlines here")


def test_config_refuses_at_construction_and_is_discriminated():
    with pytest.raises(ValueError, match="did you mean 'stairs'"):
        LabelsConfig(goal="stair")
    with pytest.raises(ValueError, match="unknown prompt version"):
        LabelsConfig(prompt_version="v9")
    config = LabelsConfig.model_validate({"client": {"kind": "scripted", "reply": "helpful"}, "goal": "gold"})
    assert config.client.kind == "scripted" and config.client.build().name == "scripted"
    assert LabelsConfig.model_validate(config.model_dump()) == config
    assert LabelsConfig().client.build().name == "lexicon"
    assert config.spec == PromptSpec("single-1", "gold")
