"""Segments in words."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from envs.captions import caption_id
from rewards.heron.factors import FactorTable, parse_ranking
from rewards.heron.pair_labelling import describe
from rewards.heron.segments import Segments
from rewards.labels.questions import Question

NEWT, OUCH, PAGES = "You kill the newt!", "Ouch!", "You see here N gold piece.\nThere is the doorway here."
TEXTS = {caption_id(text): text for text in (NEWT, OUCH, PAGES)}
TABLE = FactorTable(parse_ranking(["success", "east = sum(obs.x - prev_obs.x)", "-turns"]))


def segments(captions, factors, ended=False, inputs=0.0):
    """One segment of as many steps as there are captions."""
    return Segments(
        inputs=np.full((len(captions), 1), inputs, np.float32),
        lengths=np.array([len(captions)]),
        factors=np.array([factors], np.float64),
        episode_id=np.zeros(1, np.int64),
        first_step=np.zeros(1, np.int64),
        ended=np.array([ended]),
        task=np.zeros(1, np.int64),
        caption_id=np.array([caption_id(text) for text in captions], np.int64),
    )


def told(*args, **kwargs):
    (text,) = describe(segments(*args, **kwargs), TABLE, TEXTS)
    return text


def test_a_text_by_hand():
    assert told(["", OUCH, NEWT, OUCH, PAGES], [1, 2.34567, -0.0], ended=True) == (
        "5 actions; the episode ended with the last one.\n"
        "success: 1 (1 where the task ends in success)\n"
        "east: 2.346 (sum(obs.x - prev_obs.x))\n"
        "turns: 0 (Game turns that passed; usually written -turns)\n"
        "Messages:\n"
        "2 x Ouch!\n"
        "1 x You kill the newt!\n"
        "1 x You see here N gold piece. / There is the doorway here."
    )


def test_silence_and_a_single_step_are_told():
    text = told([""], [0, 0, 1])
    assert text.startswith("1 action; the episode went on after them.\n") and text.endswith("\nMessages: none.")


def test_each_segment_of_several_has_its_own_text():
    one, other = segments([OUCH], [0, 0, 1]), segments([NEWT, NEWT], [0, 0, 2], ended=True)
    assert describe(Segments.joined([one, other]), TABLE, TEXTS) == [
        *describe(one, TABLE, TEXTS),
        *describe(other, TABLE, TEXTS),
    ]


def test_what_an_annotator_cannot_see_makes_no_difference():
    assert told([OUCH], [0, 0.12341, 1], inputs=1.0) == told([OUCH], [0, 0.12342, 1], inputs=2.0)
    assert told([OUCH], [0, 0, 1]) != told([OUCH], [0, 0, 2])
    assert told([OUCH], [0, 0, 1]) != told([OUCH], [0, 0, 1], ended=True)


def test_of_many_messages_the_first_and_last_are_told():
    many = [f"Message {chr(65 + i)}." for i in range(40)]
    texts = {caption_id(text): text for text in many}
    (text,) = describe(segments(many, [0, 0, 0]), TABLE, texts)
    lines = text.splitlines()[5:]
    assert lines[0] == "1 x Message A." and lines[-1] == f"1 x {many[-1]}"
    assert lines[16] == "(8 other messages)" and len(lines) == 33


def test_a_message_without_a_text_is_no_error():
    (text,) = describe(segments([OUCH], [0, 0, 1]), TABLE, {})
    assert text.endswith("1 x (a message that was not kept)")


@given(st.lists(st.sampled_from(["", NEWT, OUCH, PAGES]), min_size=1, max_size=9), st.floats(-1e6, 1e6))
def test_texts_name_questions_as_they_are(captions, value):
    one, other = told(captions, [0, value, 1]), told([*captions, NEWT], [0, value, 1])
    assert one == told(captions, [0, value, 1]) != other
    asked = Question.pair(one, other)
    assert (asked.text, asked.second_text) == (one, other)
    assert asked.ids == (caption_id(one), caption_id(other))
