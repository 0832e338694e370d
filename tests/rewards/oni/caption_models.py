"""Conformance suite of caption models: what ``rewards.oni.caption_model.CaptionModel`` promises, as assertions."""

import numpy as np
import torch

from envs.captions import caption_id
from rewards.labels.questions import Answer, Question

FOES = ("newt", "jackal", "grid bug", "sewer rat", "lichen", "kobold", "gnome", "fox", "hill orc", "giant ant")
THINGS = ("dagger", "sack", "oil lamp", "apple", "clear potion", "long sword", "leather armor", "wax candle")

GOOD = (
    [f"You kill the {foe}!" for foe in FOES]
    + [f"You kill the {foe}! You see here the {thing}." for foe in FOES[:4] for thing in THINGS[:4]]
    + ["_ - N gold piece.", "Welcome to experience level N.", "You find the hidden passage.", "You open the door."]
    + ["You climb up the stairs.", "With great effort you move the boulder.", "You feel much better."]
)
BAD = (
    [f"The {foe} bites!" for foe in FOES]
    + [f"You miss the {foe}." for foe in FOES]
    + [f"You see here the {thing}." for thing in THINGS]
    + [f"The {foe} misses! The {foe} bites!" for foe in FOES]
    + ["It's the wall.", "What the strange direction! Never mind.", "You have nothing to fire.", "Ouch!"]
    + ["You stop. Your kitten is in the way.", "The door is locked.", "You feel hungry.", "Never mind."]
)
CAPTIONS = (*(text for pair in zip(GOOD, BAD, strict=False) for text in pair), *BAD[len(GOOD) :])
PER_UPDATE = 8


def goodness(text: str) -> float:
    return float(text in GOOD)


def answer(question: Question) -> Answer:
    """The truth: of a pair, which is better."""
    if not question.is_pair:
        return Answer(question, goodness(question.text))
    return Answer(question, (1 + goodness(question.text) - goodness(question.second_text)) / 2)


def named(texts):
    return {caption_id(text): text for text in texts}


def arrivals():
    """Captions met in each update; then some updates that bring none."""
    return [CAPTIONS[at : at + PER_UPDATE] for at in range(0, len(CAPTIONS), PER_UPDATE)] + [()] * 8


def update(model, texts, arrange=lambda answers: answers):
    """One update of a run whose annotator answers at once; returns its questions and its values."""
    model.meet(named(texts))
    model.count({ident: 1 for ident in named(texts)})
    questions = model.questions()
    model.learn(arrange([answer(question) for question in questions]))
    return questions, model.take_values()


def same(a, b):
    """Two states are equal, bit for bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return type(a) is type(b) and a == b


def _assert_plain(state):
    if isinstance(state, dict):
        assert all(isinstance(key, str) for key in state)
        for value in state.values():
            _assert_plain(value)
    elif isinstance(state, list):
        for value in state:
            _assert_plain(value)
    elif isinstance(state, np.ndarray):
        assert state.dtype.kind in "biuf"
    else:
        assert state is None or isinstance(state, (str, int, float))


def check_questions(make):
    """All that is asked is asked once, about captions that were met, and is unanswered until it is answered."""
    model = make()
    model.meet({0: ""})
    assert list(model.questions()) == []
    met, asked, late = set(), {}, []
    for texts in arrivals():
        model.meet(named(texts))
        model.meet(named(texts))  # known ones change nothing
        met |= named(texts).keys()
        for question in model.questions():
            key = tuple(sorted(question.ids))
            assert key not in asked and set(question.ids) - {0} <= met and question.caption_id
            asked[key] = question
        waiting = {tuple(sorted(q.ids)) for q in model.unanswered()}
        assert waiting == asked.keys() - {tuple(sorted(a.question.ids)) for a in late}
        ready = [asked[key] for key in sorted(waiting)][::2]  # the rest comes later, or never
        answers = [answer(q) for q in ready[:-1]] + [Answer(q, None) for q in ready[-1:]]
        model.learn([*answers, *late[-2:]])  # some come twice
        late += answers
    assert asked


def check_silence_until_it_can_say(make):
    """No values before there are answers, nor from abstentions: and that is not 0."""
    model = make()
    for texts in arrivals()[:6]:
        model.meet(named(texts))
        model.learn([Answer(question, None) for question in model.questions()])
        assert list(model.take_values()) == [] and model.value(caption_id(texts[0])) is None
    assert model.metrics().get("labels", 0.0) == 0
    assert list(model.unanswered()) == []


def check_values(make):
    """What was taken is what is so; of captions that were met, finite, and no news twice."""
    model, known, met, answers = make(), {}, set(), 0
    for texts in arrivals():
        questions, values = update(model, texts)
        answers += len(questions)
        met |= named(texts).keys()
        known |= dict(values)
        assert known == {ident: model.value(ident) for ident in met if model.value(ident) is not None}
        assert list(model.take_values()) == []
        assert all(np.isfinite(value) for value in known.values())
    assert known.keys() == met, "every caption has a value in the end"
    good = np.mean([known[caption_id(text)] for text in GOOD])
    assert good > np.mean([known[caption_id(text)] for text in BAD])
    figures = model.metrics()
    assert all(isinstance(value, float) and np.isfinite(value) for value in figures.values()), figures
    assert 0 < figures["labels"] <= answers


def check_answers_of_other_runs(make, questions):
    """Answers about captions that were not met count; those captions have no value until they are met."""
    model = make()
    model.learn([answer(question) for question in questions])
    assert list(model.take_values()) == []
    model.meet(named(CAPTIONS))
    model.learn([])
    valued = {ident for ident, _ in model.take_values()}
    assert {q.caption_id for q in questions} <= valued <= named(CAPTIONS).keys()
    again = {tuple(sorted(q.ids)) for q in model.questions()} & {tuple(sorted(q.ids)) for q in questions}
    assert not again


def check_order(make):
    """Within one call, answers may come in any order and twice."""
    rng = np.random.default_rng(1)

    def shuffled(answers):
        return [answers[i] for i in rng.permutation(len(answers))] + answers[:2]

    one, other = make(), make()
    for texts in arrivals():
        (asked, values), (asked_again, values_again) = update(one, texts), update(other, texts, shuffled)
        assert asked == asked_again and dict(values) == dict(values_again)
    assert same(one.state_dict(), other.state_dict())


def check_resume(make):
    """A model that was saved and loaded goes on as one that was not; nobody else's random numbers are drawn."""
    torch_state = torch.random.get_rng_state()
    whole, updates = make(), arrivals()
    for at, texts in enumerate(updates):
        state = whole.state_dict()
        _assert_plain(state)
        expected = update(whole, texts)
        if at in (2, 7):
            copy = make()
            update(copy, CAPTIONS[-3:])  # what was there before is replaced
            copy.load_state_dict(state)
            assert same(copy.state_dict(), state)
            assert update(copy, texts) == expected
            for later in updates[at + 1 :]:
                update(copy, later)
            resumed = copy.state_dict()
    assert same(resumed, whole.state_dict())
    assert torch.equal(torch_state, torch.random.get_rng_state())


def check(make, questions):
    """Raises AssertionError where a promise of the protocol is broken.

    Args:
        make: builds a model, always with the same seed.
        questions: of another run, of the kind that the model asks, about ``CAPTIONS``; enough to learn from.
    """
    check_questions(make)
    check_silence_until_it_can_say(make)
    check_values(make)
    check_answers_of_other_runs(make, questions)
    check_order(make)
    check_resume(make)
