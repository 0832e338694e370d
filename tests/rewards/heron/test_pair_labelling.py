"""Pairs that others than the tree judge: described in words, asked about beside a run, and learned from in one."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.evaluate import evaluate
from agents.policy import RandomPolicy
from envs.captions import caption_id
from envs.recording import make_recorded
from envs.seeding import ListedSeeds, evaluation_seeds
from envs.spec import GamesConfig
from envs.tasks import make
from launch.cli import main
from launch.config.train_config import TrainConfig
from launch.runs.checkpoint import decode_state, encode_state
from launch.runs.folder import read_events
from rewards.heron.factors import FactorTable, parse_ranking
from rewards.heron.pair_labelling import PairLabelling, describe
from rewards.heron.segments import Segments
from rewards.inquiry import Inquiry
from rewards.labels.questions import Answer, Question
from rewards.labels.store import LabelStore
from tests.launch.running import trained

TABLE = FactorTable(parse_ranking(["success", "-turns"]))
TEXTS = {caption_id(text): text for text in ("You kill the newt!", "Ouch!", "Huh?")}


def segments(values, captions=None):
    """One segment of two steps for each value of the factor ``turns``."""
    N = len(values)
    captions = captions or [0] * N
    return Segments(
        inputs=np.repeat(np.array(values, np.float32), 2)[:, None],
        lengths=np.full(N, 2),
        factors=np.stack([np.zeros(N), np.array(values, np.float64)], axis=1),
        episode_id=np.arange(N),
        first_step=np.zeros(N, np.int64),
        ended=np.zeros(N, bool),
        task=np.zeros(N, np.int64),
        caption_id=np.repeat(np.array(captions, np.int64), 2),
    )


class FakeTrainer:
    """Has pairs of segments to ask about, in a fixed order, and keeps what it is given."""

    def __init__(self, *pairs):
        self.pairs = list(pairs)
        self.taken = []

    def undecided(self, num):
        some, self.pairs = self.pairs[:num], self.pairs[num:]
        return segments([first for first, _ in some]), segments([second for _, second in some])

    def take(self, pairs):
        assert pairs.source == "labeller"
        self.taken += zip(
            pairs.first.factors[:, 1].tolist(), pairs.second.factors[:, 1].tolist(), pairs.target.tolist(), strict=True
        )


def turns(text):
    (line,) = [line for line in text.splitlines() if line.startswith("turns: ")]
    return float(line.split()[1])


class FakeFeed:
    """Prefers the segment of fewer turns, ``delay`` polls after it was asked; of 13 turns it knows nothing."""

    def __init__(self, delay=1, stored=()):
        self.delay, self.stored = delay, list(stored)
        self.asked, self.waiting, self.trouble = [], [], None

    def answer(self, question):
        first, second = turns(question.text), turns(question.second_text)
        return Answer(question, None if 13 in (first, second) else float(first < second))

    def submit(self, questions):
        known = {question.ids for question, _ in self.waiting}
        new = [question for question in questions if question.ids not in known]
        self.asked += new
        self.waiting += [(question, self.delay) for question in new]

    def poll(self):
        found = [*self.stored, *(self.answer(question) for question, left in self.waiting if left <= 0)]
        self.stored = []
        self.waiting = [(question, left - 1) for question, left in self.waiting if left > 0]
        return found

    def drain(self, questions):
        self.asked += (questions := list(questions))
        return [self.answer(question) for question in questions]

    def problem(self):
        return self.trouble

    def metrics(self):
        return {"asked": float(len(self.asked))}

    def state_dict(self):
        return {"asked": len(self.asked)}

    def load_state_dict(self, state):
        pass


def labelling(trainer, feed, *, waits=False, num=4, seed=1):
    inquiry = Inquiry(feed, "play", waits=waits, grace_s=0.0)
    return PairLabelling(trainer, TABLE, inquiry, pairs_per_update=num, seed=seed)


def test_answers_are_learned_from_when_they_come_in_the_order_in_which_segments_were_shown():
    trainer, feed = FakeTrainer((1, 2), (4, 3)), FakeFeed(delay=1)
    own = labelling(trainer, feed)
    own.update(TEXTS)
    assert len(feed.asked) == 2 and trainer.taken == []
    assert own.metrics()["heron/unanswered_pairs"] == 2
    own.update(TEXTS)
    assert {frozenset(pair[:2]) for pair in trainer.taken} == {frozenset({1.0, 2.0}), frozenset({3.0, 4.0})}
    assert all(target == (first < second) for first, second, target in trainer.taken)
    assert own.metrics()["heron/asked_pairs"] == 2 and own.metrics()["heron/unanswered_pairs"] == 0
    own.update(TEXTS)
    assert len(trainer.taken) == 2


def test_barrier_mode_waits_for_each_answer():
    trainer = FakeTrainer((1, 2), (4, 3))
    labelling(trainer, FakeFeed(), waits=True).update(TEXTS)
    assert len(trainer.taken) == 2


def test_no_pair_is_asked_about_twice_however_it_is_turned():
    trainer, feed = FakeTrainer((1, 2), (2, 1), (1, 2), (1, 3)), FakeFeed()
    own = labelling(trainer, feed, num=2)
    for _ in range(4):
        own.update(TEXTS)
    assert len(feed.asked) == len(trainer.taken) == 2


def test_segments_of_one_text_are_a_tie_without_asking():
    trainer, feed = FakeTrainer((5, 5), (1, 2)), FakeFeed()
    own = labelling(trainer, feed)
    own.update(TEXTS)
    assert trainer.taken == [(5.0, 5.0, 0.5)] and len(feed.asked) == 1
    assert own.metrics()["heron/alike_pairs"] == 1


def test_what_has_no_answer_is_dropped_and_counted():
    trainer = FakeTrainer((1, 13), (1, 2))
    own = labelling(trainer, FakeFeed(), waits=True)
    own.update(TEXTS)
    assert len(trainer.taken) == 1
    assert own.metrics()["heron/unjudged_pairs"] == 1


def test_which_segment_is_shown_first_is_left_to_chance():
    pairs = [(i, i + 100) for i in range(200)]
    trainer = FakeTrainer(*pairs)
    own = labelling(trainer, FakeFeed(), waits=True, num=200)
    own.update(TEXTS)
    assert 0.35 < own.metrics()["heron/first_shown_better"] < 0.65
    again = FakeTrainer(*pairs)
    labelling(again, FakeFeed(), waits=True, num=200).update(TEXTS)
    assert again.taken == trainer.taken


def test_while_answers_are_late_few_pairs_wait():
    trainer, feed = FakeTrainer(*((i, i + 1000) for i in range(1000))), FakeFeed(delay=1000)
    own = labelling(trainer, feed, num=2)
    for _ in range(100):
        own.update(TEXTS)
    assert len(feed.asked) == own.metrics()["heron/unanswered_pairs"] == 32


def test_answers_that_the_store_has_already_are_used_when_their_pair_comes():
    before = FakeFeed()
    labelling(FakeTrainer((1, 2)), before).update(TEXTS)
    (asked,) = before.asked
    stored = [before.answer(question) for question in (asked, Question.pair(asked.second_text, asked.text))]
    trainer, feed = FakeTrainer((7, 8), (1, 2)), FakeFeed(delay=1000, stored=stored)
    own = labelling(trainer, feed, num=1)
    own.update(TEXTS)
    assert trainer.taken == []
    own.update(TEXTS)
    assert len(trainer.taken) == 1 and own.metrics()["heron/unanswered_pairs"] == 1


def test_a_saved_state_goes_on_as_if_nothing_had_happened():
    pairs = [(i, i + 50) for i in range(12)]
    whole = FakeTrainer(*pairs)
    own = labelling(whole, FakeFeed(delay=1))
    for _ in range(5):
        own.update(TEXTS)
    half, rest = FakeTrainer(*pairs[:8]), FakeTrainer(*pairs[8:])
    first = labelling(half, FakeFeed(delay=1))
    first.update(TEXTS)
    first.update(TEXTS)
    assert first.metrics()["heron/unanswered_pairs"] == 4
    state = decode_state(*encode_state(first.state_dict()))
    feed = FakeFeed(delay=1)
    second = labelling(rest, feed, seed=2)
    second.load_state_dict(state)
    assert len(feed.asked) == 4
    for _ in range(3):
        second.update(TEXTS)
    assert sorted(half.taken + rest.taken) == sorted(whole.taken)
    figures = [{name: x for name, x in one.metrics().items() if name.startswith("heron/")} for one in (second, own)]
    assert figures[0] == figures[1]


def test_an_outage_is_told_once():
    feed, events = FakeFeed(), []
    own = labelling(FakeTrainer(), feed)
    for trouble in (None, "no labels: refused", "no labels: refused", None, None):
        feed.trouble = trouble
        own.update(TEXTS)
        events += own.events()
    assert [event.fields.get("cause") for event in events] == ["no labels: refused", None]
    assert {event.fields["about"] for event in events} == {"play"}


# ---- runs

UPDATE = 4 * 32
TASK = "MiniHack-Room-Random-5x5-v0"
HERON = {
    "kind": "tree",
    "weight": 0.1,
    "ranking": ["success", "alive", "-turns"],
    "segment_steps": 8,
    "model": {
        "min_segments": 8,
        "capacity_segments": 128,
        "members": 1,
        "hidden": 8,
        "first_steps": 8,
        "publish_updates": 1,
    },
}


def _config(tmp_path, *, judges, labels=None, updates=4, **heron):
    values = {
        "preset": "debug",
        "runs": str(tmp_path),
        "name": "run",
        "total_steps": updates * UPDATE,
        "device": "cpu",
        "env": {"task": TASK},
        "rollout": {"num_workers": 0, "games_per_worker": 4, "num_steps": 32},
        "ppo": {"minibatch": 64, "epochs": 1, "precision": "fp32"},
        "reward": {"heron": HERON | heron | {"judges": judges}},
        "labels": labels or {"mode": "barrier", "client": {"kind": "scripted"}},
        "logging": {"interval_s": 0.01, "tensorboard": False},
    }
    return TrainConfig.model_validate(values)


def _report(config):
    return json.loads((config.runs / "run" / "heron.json").read_text())


@pytest.mark.parametrize("sources", [["tree", "labeller"], ["labeller"]])
def test_a_run_with_an_annotator_resumes_bit_for_bit_in_barrier_mode(tmp_path, sources):
    judges = {"sources": sources, "pairs_per_update": 16}
    whole = trained(_config(tmp_path / "whole", judges=judges))
    trained(_config(tmp_path / "cut", judges=judges, updates=2))
    longer = _config(tmp_path / "cut", judges=judges)
    resumed = trained(longer, resume=True)
    assert whole.weights_sha256 == resumed.weights_sha256
    figures = {name: value for name, value in whole.metrics.items() if name.startswith("heron/")}
    assert figures.items() <= resumed.metrics.items()
    assert figures["heron/version"] > 0 and figures["heron/judged_pairs"] > 0 and figures["heron/asked_pairs"] > 0
    assert set(_report(longer)["sources"]) == set(sources)
    with LabelStore(tmp_path / "whole" / "run" / "labels.sqlite") as store:
        labels, _ = store.since(0)
    assert {label.prompt_version for label in labels} == {"segments-1"}
    assert all(label.second_id and "Messages:" in label.text for label in labels)


def test_captions_and_play_are_labelled_in_one_run_and_one_store(tmp_path):
    config = _config(tmp_path, judges={"sources": ["labeller"], "pairs_per_update": 16})
    oni = config.reward.oni.replace(weight=0.1)
    both = config.replace(reward=config.reward.replace(oni=oni))
    summary = trained(both)
    assert summary.metrics["heron/judged_pairs"] > 0 and summary.metrics["labels/known"] > 0
    with LabelStore(tmp_path / "run" / "labels.sqlite") as store:
        labels, _ = store.since(0)
    assert {label.prompt_version for label in labels} == {"single-1", "segments-1"}


@pytest.mark.slow
def test_an_annotator_on_ray_judges_as_one_on_a_thread(tmp_path):
    judges = {"sources": ["tree", "labeller"], "pairs_per_update": 16}
    here = trained(_config(tmp_path / "here", judges=judges))
    config = _config(tmp_path / "ray", judges=judges)
    rollout = config.rollout.replace(num_workers=1)
    on_ray = trained(config.replace(rollout=rollout))
    assert here.weights_sha256 == on_ray.weights_sha256
    assert here.metrics["heron/judged_pairs"] == on_ray.metrics["heron/judged_pairs"] > 0


def test_labels_that_come_late_hold_nothing_up(tmp_path):
    labels = {"client": {"kind": "scripted", "delay_s": 0.2}}
    summary = trained(_config(tmp_path, judges={"sources": ["tree", "labeller"]}, labels=labels))
    assert summary.steps == 4 * UPDATE and summary.metrics["heron/version"] > 0


def test_the_lexicon_is_refused_for_play(tmp_path):
    with pytest.raises(ValueError, match=r"the lexicon judges captions.*scripted"):
        _config(tmp_path, judges={"sources": ["labeller"]}, labels={"client": {"kind": "lexicon"}})
    with pytest.raises(ValueError, match="the lexicon judges captions"):
        _config(tmp_path, judges={"sources": ["tree", "labeller"]}, labels={"client": {"kind": "auto"}})
    values = _config(tmp_path, judges={"sources": ["labeller"]}).model_dump()
    values |= {"llm": {"base_url": "http://localhost:1/v1"}, "labels": {"client": {"kind": "auto"}}}
    assert TrainConfig.model_validate(values).asks_language_model


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with a few recorded episodes, the best first."""
    folder = tmp_path_factory.mktemp("recorded")
    config = GamesConfig(task=TASK, max_episode_steps=30)
    records = []
    seeds = evaluation_seeds(12)
    games = make(config, 1, ListedSeeds(seeds))
    policy = RandomPolicy(games.spec)
    games.close()
    for _ in evaluate(policy, lambda B, s: make_recorded(config, B, s, records.append), seeds, num_games=4):
        pass
    records.sort(key=lambda record: record.num_steps)
    for number, record in enumerate(records):
        record.save(folder / f"{number:02}.npz")
    return folder


def _write(folder, *lines):
    path = folder / "preferences.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def _prefer(first, second, preferred="first"):
    return {"first": f"{first:02}.npz", "second": f"{second:02}.npz", "preferred": preferred}


@pytest.mark.parametrize("sources", [["human"], ["tree", "human"]])
def test_a_run_learns_from_people(recorded, tmp_path, sources):
    lines = [_prefer(a, b) for a in range(6) for b in range(6, 12)]
    path = _write(recorded, *lines, _prefer(1, 0, "equal"))
    config = _config(tmp_path, judges={"sources": sources, "human": str(path)}, labels={})
    summary = trained(config)
    assert summary.metrics["heron/version"] > 0 and summary.metrics["heron/judged_pairs"] > 0
    assert _report(config)["sources"]["human"] == 37
    assert [e["pairs"] for e in read_events(tmp_path / "run") if e["kind"] == "human_preferences"] == [37]
    assert not (tmp_path / "run" / "labels.sqlite").exists()
    path.unlink()
    longer = config.replace(total_steps=5 * UPDATE)
    assert trained(longer, resume=True).steps == 5 * UPDATE
    assert _report(config)["sources"]["human"] == 37


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON"),
        ('["00.npz", "01.npz", "first"]', "expected an object with first, second, preferred"),
        ({"first": "00.npz", "preferred": "first"}, "'second' is missing"),
        (_prefer(0, 1, "third"), "preferred is 'third', allowed are first, second, equal"),
        (_prefer(0, 99), "cannot be read: No such file"),
        (_prefer(0, 0), "the same episode"),
        ({"first": "00.npz", "second": "damaged.npz", "preferred": "equal"}, "damaged.npz is not an episode record"),
    ],
)
def test_what_is_no_preference_ends_before_anything_is_written(recorded, tmp_path, capsys, line, said):
    (recorded / "damaged.npz").write_bytes((recorded / "00.npz").read_bytes()[:-100])
    path = _write(recorded, _prefer(0, 1), line)
    flags = ["--runs", str(tmp_path / "runs"), "--env.task", TASK, "--reward.heron.weight", "0.1"]
    flags += ["--reward.heron.judges.sources", "human", "--reward.heron.judges.human", str(path)]
    assert main(["train", "debug", *flags]) == 2
    text = capsys.readouterr().err
    assert text.startswith("yendor: reward.heron.judges.human: ") and text.count("\n") == 1
    assert f"{path} line 2" in text and said in text
    assert not (tmp_path / "runs").exists()


# -- segments in words

NEWT, OUCH, PAGES = "You kill the newt!", "Ouch!", "You see here N gold piece.\nThere is the doorway here."
ALL_TEXTS = {caption_id(text): text for text in (NEWT, OUCH, PAGES)}
DESCRIBED = FactorTable(parse_ranking(["success", "east = sum(obs.x - prev_obs.x)", "-turns"]))


def one_segment(captions, factors, ended=False, inputs=0.0):
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


def described(*args, **kwargs):
    (text,) = describe(one_segment(*args, **kwargs), DESCRIBED, ALL_TEXTS)
    return text


def test_a_text_by_hand():
    assert described(["", OUCH, NEWT, OUCH, PAGES], [1, 2.34567, -0.0], ended=True) == (
        "5 actions; the episode ended with the last one.\n"
        "success: 1 (1 where the task ends in success)\n"
        "east: 2.346 (sum(obs.x - prev_obs.x))\n"
        "turns: 0 (Game turns that passed; usually written -turns)\n"
        "Messages:\n"
        "2 x Ouch!\n"
        "1 x You kill the newt!\n"
        "1 x You see here N gold piece. / There is the doorway here."
    )


def test_silence_and_a_single_step_are_described():
    text = described([""], [0, 0, 1])
    assert text.startswith("1 action; the episode went on after them.\n") and text.endswith("\nMessages: none.")


def test_each_segment_of_several_has_its_own_text():
    one, other = one_segment([OUCH], [0, 0, 1]), one_segment([NEWT, NEWT], [0, 0, 2], ended=True)
    assert describe(Segments.joined([one, other]), DESCRIBED, ALL_TEXTS) == [
        *describe(one, DESCRIBED, ALL_TEXTS),
        *describe(other, DESCRIBED, ALL_TEXTS),
    ]


def test_what_an_annotator_cannot_see_makes_no_difference():
    assert described([OUCH], [0, 0.12341, 1], inputs=1.0) == described([OUCH], [0, 0.12342, 1], inputs=2.0)
    assert described([OUCH], [0, 0, 1]) != described([OUCH], [0, 0, 2])
    assert described([OUCH], [0, 0, 1]) != described([OUCH], [0, 0, 1], ended=True)


def test_of_many_messages_the_first_and_last_are_described():
    many = [f"Message {chr(65 + i)}." for i in range(40)]
    texts = {caption_id(text): text for text in many}
    (text,) = describe(one_segment(many, [0, 0, 0]), DESCRIBED, texts)
    lines = text.splitlines()[5:]
    assert lines[0] == "1 x Message A." and lines[-1] == f"1 x {many[-1]}"
    assert lines[16] == "(8 other messages)" and len(lines) == 33


def test_a_message_without_a_text_is_no_error():
    (text,) = describe(one_segment([OUCH], [0, 0, 1]), DESCRIBED, {})
    assert text.endswith("1 x (a message that was not kept)")


@given(st.lists(st.sampled_from(["", NEWT, OUCH, PAGES]), min_size=1, max_size=9), st.floats(-1e6, 1e6))
def test_texts_name_questions_as_they_are(captions, value):
    one, other = described(captions, [0, value, 1]), described([*captions, NEWT], [0, value, 1])
    assert one == described(captions, [0, value, 1]) != other
    asked = Question.pair(one, other)
    assert (asked.text, asked.second_text) == (one, other)
    assert asked.ids == (caption_id(one), caption_id(other))
