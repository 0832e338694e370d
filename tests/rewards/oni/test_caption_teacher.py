"""Captions to questions, answers to values, beside a run; the feed is a fake that is told what to say."""

import numpy as np

from envs.captions import caption_id
from envs.timing import PhaseTimer
from launch.runs.checkpoint import decode_state, encode_state
from rewards.inquiry import Inquiry
from rewards.labels.questions import Answer, Question
from rewards.oni.caption_reward import CaptionEvidence
from rewards.oni.caption_teacher import CaptionTeacher
from rewards.oni.retrieval import RetrievalModel

GOOD, BAD, ODD = "You kill the newt!", "Ouch!", "Huh?"
VERDICTS = {GOOD: 1.0, BAD: 0.0, ODD: None}
CAPTIONS = {caption_id(text): text for text in VERDICTS}


class FakeFeed:
    """Answers a question ``delay`` polls after it was asked."""

    def __init__(self, delay=1, stored=()):
        self.delay = delay
        self.stored = list(stored)
        self.asked = []
        self.waiting = []
        self.trouble = None
        self.budget = 0

    def _answer(self, question):
        return Answer(question, VERDICTS[question.text])

    def submit(self, questions):
        known = {q.ids for q, _ in self.waiting}
        new = [q for q in questions if q.ids not in known]
        self.asked += new
        self.waiting += [(q, self.delay) for q in new]
        self.budget += len(new)

    def poll(self):
        found = [self._answer(q) for q, left in self.waiting if left <= 0] + self.stored
        self.stored = []
        self.waiting = [(q, left - 1) for q, left in self.waiting if left > 0]
        return found

    flush = poll

    def drain(self, questions):
        self.asked += list(questions)
        return [self._answer(q) for q in questions]

    def problem(self):
        return self.trouble

    def metrics(self):
        return {"asked": float(self.budget)}

    def state_dict(self):
        return {"asked": self.budget}

    def load_state_dict(self, state):
        self.budget = state["asked"]

    def close(self):
        pass


class Clock:
    """A second for each look."""

    def __init__(self):
        self.now_s = 0

    def __call__(self):
        self.now_s += 1
        return self.now_s


def teacher(feed, *, waits=False, clock=None, again_s=1e9):
    inquiry = Inquiry(feed, "captions", waits=waits, again_s=again_s, clock=clock or Clock())
    return CaptionTeacher(RetrievalModel(), inquiry, PhaseTimer(), clock=Clock())


def known(own):
    return own.metrics()["labels/known"]


def values(pairs):
    return {CAPTIONS[ident]: value for ident, value in pairs}


def test_labels_take_effect_when_they_arrive():
    feed = FakeFeed(delay=1)
    own = teacher(feed)
    assert own.update(CAPTIONS) == []
    assert values(own.update({})) == {GOOD: 1.0, BAD: 0.0}
    assert own.update({}) == []
    assert known(own) == 2


def test_a_barrier_waits_for_every_answer():
    own = teacher(FakeFeed(delay=100), waits=True)
    assert values(own.update(CAPTIONS)) == {GOOD: 1.0, BAD: 0.0}


def test_a_store_that_others_filled_is_not_asked_again():
    feed = FakeFeed(stored=[Answer(Question.single(GOOD), 1.0)])
    own = teacher(feed)
    own.begin()
    assert known(own) == 1
    own.update({})
    assert values(own.update({caption_id(GOOD): GOOD})) == {GOOD: 1.0}
    assert own.model.value(caption_id(GOOD)) == 1.0 and feed.asked == []


def test_what_was_lost_is_asked_again_until_it_is_answered():
    feed, clock = FakeFeed(delay=1), Clock()
    own = teacher(feed, clock=clock, again_s=100)
    own.update(CAPTIONS)
    feed.waiting.clear()  # dropped, or given up in an outage
    own.update({})
    assert known(own) == 0
    clock.now_s += 100
    own.update({})
    own.update({})
    assert values(own.update({})) == {GOOD: 1.0, BAD: 0.0}
    clock.now_s += 100
    own.update({})
    assert [q.text for q in feed.asked].count(GOOD) == 2, "an answer ends the asking"


def test_an_outage_is_told_once_and_its_end_too():
    feed = FakeFeed()
    own, events = teacher(feed), []
    for trouble in (None, "no labels: 503", None, *["no labels: refused"] * 4, "no labels: 500", None, None):
        feed.trouble = trouble
        own.update({})
        events += own.events()
    assert [(event.kind, event.fields.get("cause")) for event in events] == [
        ("labels_stopped", "no labels: refused"),
        ("labels_resumed", None),
    ], "a hiccup is no outage, and an outage is told once"
    assert "goes on with the labels of captions" in events[0].note


def test_a_resumed_run_goes_on_where_it_stood():
    feed = FakeFeed(delay=1)
    own = teacher(feed)
    own.update(CAPTIONS)
    own.observe([CaptionEvidence(ids=np.array([0, caption_id(GOOD)]), counts=np.array([5, 3]), num_valued=0)])
    assert own.metrics()["labels/coverage"] == 0.0
    own.update({})
    feed.waiting = [(Question.single(GOOD), 0)]  # arrives while the checkpoint is written
    restored = decode_state(*encode_state(own.state_dict()))
    again = teacher(FakeFeed(delay=1))
    again.load_state_dict(restored)
    assert known(again) == known(own) == 2
    assert values(own.update({})) == values(again.update({}))
    assert values(again.update({caption_id("Hello."): "Hello."})) == {}
