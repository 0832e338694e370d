from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.captions import caption_id
from rewards.labels.annotators import LexiconClient, any_verdict, build_client
from rewards.labels.config import LabelsConfig
from rewards.labels.questions import GOALS, Answer, ParseFailure, PromptSpec, Question
from rewards.llm.config import LLMConfig

NEWT, OUCH = "You kill the newt!", "Ouch!"


def test_instructions_come_first_and_do_not_depend_on_the_caption():
    spec = PromptSpec()
    one, two = spec.render(Question.single(NEWT)), spec.render(Question.single(OUCH))
    assert one.startswith(spec.instructions) and two.startswith(spec.instructions)
    assert one.endswith("Message:\nYou kill the newt!\n\nVerdict:")
    assert GOALS["score"] in spec.instructions and not spec.is_pair


def test_pairs_are_shown_in_order():
    spec = PromptSpec("pair-1", "gold")
    asked = spec.ask(Question.pair(NEWT, OUCH))
    assert asked == "First message:\nYou kill the newt!\n\nSecond message:\nOuch!"
    assert spec.render(Question.pair(OUCH, NEWT)).startswith(spec.instructions)
    assert spec.is_pair and spec.choices == ("first", "second", "equal") and GOALS["gold"] in spec.instructions


def test_stretches_of_play_are_shown_in_order():
    spec = LabelsConfig(goal="gold").play_spec()
    assert spec == PromptSpec("segments-1", "gold") and spec.is_pair and spec.subject == "stretch"
    asked = spec.ask(Question.pair("2 actions", "3 actions"))
    assert asked == "First stretch:\n2 actions\n\nSecond stretch:\n3 actions"
    assert spec.choices == ("first", "second", "equal") and GOALS["gold"] in spec.instructions
    assert (spec.parse("first"), spec.parse(" equal\n"), spec.parse("unknown")) == (1.0, 0.5, None)
    assert isinstance(spec.parse("the first"), ParseFailure)


def test_goals_change_the_prompt_and_may_be_sentences():
    assert len({PromptSpec(goal=goal).instructions for goal in GOALS}) == len(GOALS)
    assert "wants to collect many potions." in PromptSpec(goal="collect many potions.").instructions


@pytest.mark.parametrize(
    ("reply", "value"),
    [("helpful", 1.0), (" neutral\n", 0.0), ("unhelpful", 0.0), ("unknown", None)],
)
def test_choices_are_read(reply, value):
    assert PromptSpec().parse(reply) == value


@pytest.mark.parametrize(("reply", "value"), [("first", 1.0), ("second\n", 0.0), (" equal", 0.5), ("unknown", None)])
def test_choices_of_pairs_are_read(reply, value):
    assert PromptSpec("pair-1").parse(reply) == value


@pytest.mark.parametrize(
    ("version", "reply"), [("pair-1", "helpful"), ("pair-1", "First"), ("pair-1", "1"), ("single-1", "first")]
)
def test_choices_of_one_kind_are_none_of_the_other(version, reply):
    assert isinstance(PromptSpec(version).parse(reply), ParseFailure)


def test_expectations_by_hand():
    assert PromptSpec().expectation({"helpful": 0.7, "neutral": 0.2, "unhelpful": 0.1}) == pytest.approx(0.7)
    assert PromptSpec("pair-1").expectation({"first": 0.5, "second": 0.1, "equal": 0.4}) == pytest.approx(0.7)


@pytest.mark.parametrize("reply", ["", "Helpful", "helpful.", "not helpful", "helpful neutral", "0", "un"])
def test_anything_else_is_a_failure_and_never_a_value(reply):
    assert isinstance(PromptSpec().parse(reply), ParseFailure)


@given(st.text())
def test_only_the_choices_have_values(reply):
    value = PromptSpec().parse(reply)
    known = {"helpful", "neutral", "unhelpful", "unknown"}
    assert isinstance(value, ParseFailure) == (reply.strip() not in known)


@given(st.text(st.characters(blacklist_categories=["Cs"])), st.text(st.characters(blacklist_categories=["Cs"])))
def test_questions_are_named_by_their_texts(one, other):
    if not one or not other or one == other:
        with pytest.raises(ValueError, match="two different captions"):
            Question.pair(one, other)
        return
    there, back = Question.pair(one, other), Question.pair(other, one)
    assert there.ids == back.ids[::-1] == (caption_id(one), caption_id(other))
    assert there.is_pair and not Question.single(one).is_pair
    assert Question.single(one).ids == (caption_id(one), 0)


def test_the_soft_value_is_the_probability_where_there_is_one():
    question = Question.single(NEWT)
    assert Answer(question, 1.0, 0.8).soft_value == 0.8
    assert Answer(question, 1.0).soft_value == 1.0
    assert Answer(question, None).soft_value is None


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
    assert config.client.kind == "scripted" and build_client(config.client, LLMConfig()).name == "scripted"
    assert LabelsConfig.model_validate(config.model_dump()) == config
    assert build_client(LabelsConfig().client, LLMConfig()).name == "lexicon"


def test_the_prompt_is_of_the_kind_that_the_reward_needs():
    assert LabelsConfig(goal="gold").spec(asks_pairs=False) == PromptSpec("single-1", "gold")
    assert LabelsConfig(goal="gold").spec(asks_pairs=True) == PromptSpec("pair-1", "gold")
    with pytest.raises(ValueError, match=r"single-1 asks about single captions, the reward needs pairs"):
        LabelsConfig(prompt_version="single-1").spec(asks_pairs=True)
    with pytest.raises(ValueError, match=r"segments-1 asks about play, the reward needs pairs"):
        LabelsConfig(prompt_version="segments-1").spec(asks_pairs=True)
    assert LabelsConfig(prompt_version="single-1").play_spec() == PromptSpec("segments-1")


def test_who_can_judge_play():
    named = LLMConfig(base_url="http://localhost:1/v1")
    kinds = {
        kind: LabelsConfig.model_validate({"client": {"kind": kind}}).client for kind in ("auto", "lexicon", "llm")
    }
    assert not kinds["lexicon"].judges_play(named) and kinds["llm"].judges_play(LLMConfig())
    assert kinds["auto"].judges_play(named) and not kinds["auto"].judges_play(LLMConfig())


def test_a_goal_may_be_read_from_a_file(tmp_path):
    (tmp_path / "goal").write_text("collect as many\npotions as possible\n")
    assert LabelsConfig(goal=f"@{tmp_path / 'goal'}").goal == "collect as many potions as possible"
    with pytest.raises(ValueError, match="the goal's file cannot be read"):
        LabelsConfig(goal=f"@{tmp_path / 'absent'}")


PAIRS = [
    (NEWT, "It's solid stone.", "first"),
    ("It's solid stone.", NEWT, "second"),
    ("You hear a door open.", NEWT, "second"),
    (NEWT, "You kill the jackal!", "equal"),
    (NEWT, "Zyxw qwv.", "unknown"),
    ("Zyxw qwv.", NEWT, "unknown"),
]


def test_the_lexicon_compares_pairs_by_its_verdicts():
    spec, client = PromptSpec("pair-1"), LexiconClient()
    replies = asyncio.run(client.label(spec, [Question.pair(first, second) for first, second, _ in PAIRS]))
    assert [reply.text for reply in replies] == [verdict for *_, verdict in PAIRS]


def test_any_verdict_is_a_choice_and_always_the_same():
    for number in range(30):
        single = Question.single(f"caption {number}")
        pair = Question.pair(f"caption {number}", "other")
        assert any_verdict(single) in PromptSpec().choices and any_verdict(single) == any_verdict(single)
        assert any_verdict(pair) in PromptSpec("pair-1").choices
