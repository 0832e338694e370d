import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rewards.heron.config import ComparisonConfig, JudgesConfig, ModelConfig, TreeConfig
from rewards.heron.factors import Factor, FactorTable
from rewards.heron.judgement import judge, segment_returns
from rewards.heron.preference_trainer import PreferenceTrainer
from rewards.heron.preferences import MIN_JUDGED, PairBatch, PairStore, check_learnable
from rewards.heron.segments import SegmentBuffer, Segments, retained
from rewards.heron.tree import Level, PreferenceTree

SMALL = ModelConfig(
    steps_per_update=4,
    publish_updates=1,
    hidden=16,
    batch_pairs=32,
    min_segments=32,
    first_steps=8,
    capacity_segments=512,
    held_out_share=0.2,
)
LENGTH = 4


def table_of(names=("goal", "path"), signs=(1, -1), margins=(0.0, None)):
    return FactorTable(
        [
            Factor(name=name, columns=("info.died",), per_step=dict.popitem, sign=sign, margin=margin)
            for name, sign, margin in zip(names, signs, margins, strict=True)
        ]
    )


def segments_of(number, seed=0, first_episode=0):
    """Inputs: whether a goal was reached, how far was walked, and two that mean nothing; the factors are sums."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(number * LENGTH, 4))
    inputs[:, 0] = rng.random(number * LENGTH) < 0.05
    inputs[:, 1] = rng.integers(0, 5, number * LENGTH)
    factors = inputs.reshape(number, LENGTH, 4).sum(1)[:, :2]
    return Segments(
        inputs=inputs.astype(np.float32),
        lengths=np.full(number, LENGTH),
        factors=factors,
        episode_id=first_episode + np.arange(number) // 2,
        first_step=np.zeros(number, np.int64),
        ended=np.zeros(number, bool),
        task=np.zeros(number, np.int64),
        caption_id=np.zeros(number * LENGTH, np.int64),
    )


def trainer_of(model=SMALL, table=None, comparison=None, seed=0, sources=("tree",)):
    judges = JudgesConfig(sources=sources, human=Path("pairs") if "human" in sources else None)
    config = TreeConfig(model=model, comparison=comparison or ComparisonConfig(), judges=judges)
    return PreferenceTrainer(config, table or table_of(), seed)


def same(one, other):
    """Nested states are equal to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one == other


@pytest.mark.parametrize("mode", ["bins", "margin"])
def test_it_learns_a_lexicographic_order(mode):
    model = SMALL.replace(learning_rate=3e-3, first_steps=200)
    trainer = trainer_of(model, comparison=ComparisonConfig(mode=mode))
    trainer.add(segments_of(512))
    for _ in range(11):
        scorer = trainer.update()
    figures = trainer.metrics()
    assert scorer.version == figures["version"] == 11
    assert figures["accuracy"] > 0.93 and figures["rank_correlation"] > 0.9
    assert figures["accuracy/goal"] > 0.8 and figures["accuracy/path"] > 0.95
    assert figures["decided/goal"] + figures["decided/path"] + figures["tie_share"] == pytest.approx(1)
    # A goal is worth more than any path; a shorter path is better.
    steps = np.zeros((4, 4), np.float32)
    steps[0, 0], steps[2:, 1] = 1, [1, 4]
    goal, nothing, short, long = scorer.score(steps)
    assert goal > nothing > short > long


def test_rewards_are_standard_over_recent_steps():
    trainer, segments = trainer_of(), segments_of(128)
    trainer.add(segments)
    opinions = trainer.update().opinions(segments.inputs)
    np.testing.assert_allclose(opinions.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(opinions.std(1), 1, atol=1e-5)
    assert trainer.metrics()["disagreement"] == pytest.approx(opinions.std(0).mean(), rel=1e-4)


def test_rewards_are_standard_over_the_newest_half_of_a_full_buffer():
    model = SMALL.replace(capacity_segments=128)
    trainer = trainer_of(model)
    old, new = segments_of(128, seed=1), segments_of(64, seed=2, first_episode=500)
    old.inputs[:] += 3
    for segments in (old, new):
        trainer.add(segments)
    opinions = trainer.update().opinions(new.inputs)
    np.testing.assert_allclose(opinions.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(opinions.std(1), 1, atol=1e-5)


def test_nothing_is_published_before_there_are_enough_segments():
    trainer = trainer_of()
    assert trainer.update() is None
    trainer.add(segments_of(31))
    assert trainer.update() is None and trainer.metrics()["version"] == 0
    trainer.add(segments_of(1, first_episode=50))
    assert trainer.update().version == 1


def test_nothing_is_learned_from_ties_alone():
    trainer, segments = trainer_of(), segments_of(64)
    trainer.add(replace(segments, factors=np.ones((64, 2))))
    assert trainer.update() is None and trainer.metrics()["pairs"] == 0
    # A task of its own for each segment: nothing to compare.
    trainer = trainer_of()
    trainer.add(replace(segments, task=np.arange(64)))
    assert trainer.update() is None


def test_versions_come_as_often_as_asked_for():
    trainer = trainer_of(SMALL.replace(publish_updates=3))
    trainer.add(segments_of(64))
    versions = [trainer.update() for _ in range(7)]
    assert [scorer and scorer.version for scorer in versions] == [None, None, 1, None, None, 2, None]


@pytest.mark.parametrize("sources", [("tree",), ("tree", "labeller"), ("labeller",)])
def test_a_resumed_trainer_goes_on_bit_for_bit(sources):
    def go_on(trainer, times):
        for i in range(times):
            trainer.add(segments_of(40, seed=i, first_episode=1000 * i))
            scorer = trainer.update()
            first, second = trainer.undecided(3)
            trainer.take(PairBatch(first=first, second=second, target=np.ones(len(first)), source="llm"))
        return trainer.state_dict(), scorer.state()

    def make():
        trainer = trainer_of(comparison=ComparisonConfig(mode="margin", stage_updates=4), sources=sources)
        trainer.load_state_dict(trainer_of(sources=sources).state_dict())  # nothing yet
        return trainer

    one, other = make(), make()
    go_on(one, 6)
    other.load_state_dict(one.state_dict())
    assert one.metrics() == other.metrics() and one.report() == other.report()
    assert same(go_on(one, 12), go_on(other, 12))
    with pytest.raises(ValueError, match="other networks"):
        trainer_of(SMALL.replace(hidden=8), sources=sources).load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="ranks 2 factors, not 1"):
        trainer_of(table=table_of(("goal",), (1,), (None,))).load_state_dict(one.state_dict())


def test_the_same_seed_gives_the_same_reward_and_another_seed_another():
    def weights(seed):
        trainer = trainer_of(seed=seed)
        trainer.add(segments_of(64))
        return trainer.update().state()["weights"]

    assert same(weights(0), weights(0)) and not same(weights(0), weights(1))


@pytest.mark.parametrize("mode", ["bins", "margin"])
def test_the_unit_of_a_factor_does_not_matter(mode):
    def learned(scale):
        trainer, segments = trainer_of(comparison=ComparisonConfig(mode=mode)), segments_of(128)
        trainer.add(replace(segments, factors=segments.factors * scale))
        for _ in range(3):
            scorer = trainer.update()
        return scorer.state(), trainer.metrics()

    assert same(learned(np.array([1, 1000.0])), learned(np.ones(2)))


@pytest.mark.parametrize("stage_updates", [None, 2])
def test_margins_are_fixed_for_a_stage(stage_updates):
    trainer = trainer_of(comparison=ComparisonConfig(stage_updates=stage_updates, stage_segments=64))
    trainer.add(segments_of(128))
    margins = []
    for number in range(4):
        trainer.update()
        margins.append(trainer.report().levels[1].margin)
        wider = segments_of(128, seed=number)
        trainer.add(replace(wider, factors=wider.factors * 10))
    first, second, third, fourth = margins
    assert first == second and third == fourth
    assert third == first if stage_updates is None else third > 5 * first


def test_no_segments_and_no_pairs_change_nothing():
    trainer = trainer_of()
    first, second = trainer.undecided(3)
    trainer.add(first)
    trainer.take(PairBatch(first=first, second=second, target=np.zeros(0), source="llm"))
    assert trainer.update() is None and trainer.report().sources == {"tree": 0}
    trainer.add(segments_of(64))
    trainer.add(first)
    assert trainer.update().version == 1


def test_bad_segments_are_refused_by_name():
    trainer, segments = trainer_of(), segments_of(4)
    broken = segments.factors.copy()
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match="factor 'path' is not finite"):
        trainer.add(replace(segments, factors=broken))
    with pytest.raises(ValueError, match="the ranking has 2"):
        trainer.add(replace(segments, factors=np.zeros((4, 3))))
    with pytest.raises(ValueError, match="input 3 of the reward model is not finite"):
        trainer.add(replace(segments, inputs=np.where(np.arange(4) == 3, np.inf, segments.inputs)))
    trainer.add(segments)
    with pytest.raises(ValueError, match="reads 4 inputs a step, got 2"):
        trainer.add(replace(segments, inputs=segments.inputs[:, :2]))


def test_dead_factors_are_reported_while_the_tree_decides_nothing():
    trainer, segments = trainer_of(), segments_of(64)
    trainer.add(replace(segments, factors=np.ones((64, 2))))
    assert trainer.dead_factors == []
    assert trainer.update() is None
    assert trainer.dead_factors == ["goal", "path"] and trainer.metrics()["dead_factors"] == 2
    assert all(level.dead for level in trainer.report().levels)
    # Held-out segments begin to differ, the others do not: nothing is learned, and it is seen all the same.
    more = segments_of(400, first_episode=500)
    held = more.take(np.flatnonzero(trainer._held_out(more)))
    trainer.add(replace(held, factors=np.stack([np.ones(len(held)), np.arange(len(held))], axis=1)))
    assert trainer.update() is None
    assert trainer.dead_factors == ["goal"]


def late(number, path, seed=0):
    """Segments with this path, or one for each."""
    segments = segments_of(number, seed, first_episode=1000 * seed)
    return replace(segments, factors=np.stack([segments.factors[:, 0], np.broadcast_to(path, number)], axis=1))


def test_a_factor_that_comes_alive_takes_its_margin_then_and_keeps_it():
    trainer = trainer_of(comparison=ComparisonConfig(stage_segments=64))
    trainer.add(late(64, 0.0))
    trainer.update()
    assert trainer.margins == {"goal": 0, "path": 0} and trainer.dead_factors == ["path"]
    # One segment differs: the quantile of the differences is still 0.
    trainer.add(late(64, np.arange(64) == 5, seed=1))
    trainer.update()
    assert trainer.margins["path"] == 0
    resumed = trainer_of(comparison=ComparisonConfig(stage_segments=64))
    resumed.load_state_dict(trainer.state_dict())
    trainer.add(late(64, np.arange(64.0), seed=2))
    resumed.add(late(64, np.arange(64.0), seed=2))
    trainer.update()
    resumed.update()
    margin = trainer.margins["path"]
    assert 5 < margin < 15 and trainer.margins["goal"] == 0  # a quarter of the pairs of 0..63 differ by less than 9
    assert resumed.margins == trainer.margins and same(resumed.state_dict(), trainer.state_dict())
    trainer.add(late(64, 10 * np.arange(64.0), seed=3))
    trainer.update()
    assert trainer.margins["path"] == margin


def test_a_factor_that_was_not_dead_keeps_its_margin_of_0():
    trainer = trainer_of(comparison=ComparisonConfig(stage_segments=64))
    trainer.add(late(64, np.arange(64) == 5))
    trainer.update()
    trainer.add(late(64, np.arange(64.0), seed=1))
    trainer.update()
    assert trainer.margins["path"] == 0


def test_a_dead_factor_is_reported():
    trainer, segments = trainer_of(), segments_of(256)
    trainer.add(replace(segments, factors=segments.factors * [0, 1]))
    trainer.update()
    goal, path = trainer.report().levels
    assert goal.dead and not path.dead and trainer.metrics()["dead_factors"] == 1
    assert goal.decided == 0 and goal.accuracy is None and goal.ties == goal.compared == path.compared


def test_what_is_reported():
    trainer = trainer_of()
    before = trainer.report()
    assert before.version == 0 and before.levels[0].margin == 0 and before.levels[1].margin is None
    trainer.add(segments_of(256))
    trainer.update()
    report = trainer.report()
    goal, path = report.levels
    assert (goal.name, goal.sign, path.name, path.sign) == ("goal", 1, "path", -1)
    assert path.margin > 0 and path.compared == goal.ties and path.decided + path.ties == path.compared
    assert goal.accuracy_low < goal.accuracy < goal.accuracy_high
    assert 0 < goal.independent_pairs <= report.held_out_segments // 2 < goal.decided
    assert report.accuracy == (goal.right + path.right) / (goal.decided + path.decided)
    assert report.cycle_share == 0 and report.segments == 256
    # The eight first steps, on pairs that differ.
    assert report.sources == {"tree": trainer.metrics()["pairs"]}
    assert json.loads(json.dumps(report.as_json()))["levels"][1]["name"] == "path"


def judged_pairs(number, seed, by, source="llm"):
    first, second = segments_of(number, seed), segments_of(number, seed + 1, first_episode=10_000)
    target = (first.inputs[:, by].reshape(-1, LENGTH).sum(1) > second.inputs[:, by].reshape(-1, LENGTH).sum(1)) * 1.0
    return PairBatch(first=first, second=second, target=target, source=source)


def test_judged_pairs_alone_train():
    model = SMALL.replace(learning_rate=3e-3, first_steps=200)
    trainer = trainer_of(model, sources=("human",))
    trainer.add(segments_of(64))
    assert trainer.update() is None
    trainer.take(judged_pairs(200, 1, by=2, source="human"))
    assert 100 < trainer.learnable_pairs < 200  # a fifth of the episodes is held out, a pair is of two
    scorer = trainer.update()
    # Column 2 is in no factor.
    steps = np.zeros((2, 4), np.float32)
    steps[:, 2] = 1, -1
    assert np.subtract(*scorer.score(steps)) > 0.5
    assert trainer.metrics()["judged_accuracy"] > 0.8 and "accuracy" not in trainer.metrics()
    report = trainer.report()
    assert report.sources == {"human": 200} and not report.uses_tree
    assert report.levels == () and report.cycle_share is None and report.rank_correlation is None
    assert trainer.dead_factors == [] and "dead_factors" not in trainer.metrics()
    first, second = trainer.undecided(5)
    assert len(first) == len(second) == 5


def test_judged_pairs_take_their_share_of_a_batch():
    trainer = trainer_of(SMALL.replace(judged_share=0.25))
    trainer.add(segments_of(256))
    trainer.take(judged_pairs(100, 1, by=2))
    trainer.update()
    figures = trainer.metrics()
    assert figures["judged_pairs"] == 8 * 8 and figures["pairs"] == 8 * 32


def test_undecided_pairs_are_ties_of_the_tree():
    trainer = trainer_of()
    assert list(map(len, trainer.undecided(4))) == [0, 0]
    trainer.add(segments_of(256))
    assert list(map(len, trainer.undecided(4))) == [0, 0]
    trainer.update()
    first, second = trainer.undecided(20)
    assert len(first) == len(second) == 20
    np.testing.assert_array_equal(first.factors[:, 0], second.factors[:, 0])
    margin = trainer.report().levels[1].margin
    assert (np.abs(first.factors - second.factors)[:, 1] < margin).all()
    assert ((first.episode_id != second.episode_id) | (first.inputs[::LENGTH, 2] != second.inputs[::LENGTH, 2])).all()


def test_a_store_keeps_the_newest_pairs_of_each_source():
    store, batch = PairStore(3, ("human",)), judged_pairs(4, 0, by=2)
    people = judged_pairs(5, 7, by=2, source="human")
    store.add(people)
    store.add(batch)
    store.add(judged_pairs(1, 5, by=2))
    assert len(store) == 8 and store.sources() == {"human": 5, "llm": 3}
    both = people.by_pair()
    assert same(store.segments.take(np.arange(10)).state_dict(), both.state_dict())
    np.testing.assert_array_equal(store.target, [*people.target, *batch.target[2:], *judged_pairs(1, 5, by=2).target])
    np.testing.assert_array_equal(store.segments.factors[10], batch.first.factors[2])
    np.testing.assert_array_equal(store.segments.factors[11], batch.second.factors[2])
    copy = PairStore(3, ("human",))
    copy.load_state_dict(store.state_dict())
    assert same(copy.state_dict(), store.state_dict())


def test_answers_of_the_labeller_never_push_out_those_of_people():
    trainer = trainer_of(sources=("tree", "labeller", "human"))
    trainer.take(judged_pairs(300, 0, by=2, source="human"))
    for seed in range(4):
        trainer.take(judged_pairs(100, 10 * seed, by=3, source="labeller"))
    assert trainer.report().sources == {"tree": 0, "human": 300, "labeller": 256}


def human_config(ties="half", sources=("human",)):
    judges = JudgesConfig(sources=sources, human=Path("pairs"))
    return TreeConfig(model=SMALL, comparison=ComparisonConfig(ties=ties), judges=judges)


def test_too_few_pairs_of_people_are_refused_where_nobody_else_judges():
    few, enough = judged_pairs(MIN_JUDGED - 1, 0, by=2, source="human"), judged_pairs(60, 0, by=2, source="human")
    with pytest.raises(ValueError, match=f"of the {MIN_JUDGED - 1} pairs can be learned from.* there must be 8"):
        check_learnable(few, human_config(), seed=0)
    check_learnable(few, human_config(sources=("tree", "human")), seed=0)
    check_learnable(enough, human_config(), seed=0)
    ties = replace(enough, target=np.full(60, 0.5))
    check_learnable(ties, human_config(), seed=0)
    with pytest.raises(ValueError, match=r"^0 of the 60 pairs"):
        check_learnable(ties, human_config(ties="drop"), seed=0)


def test_ties_of_the_tree_are_left_to_the_other_judges():
    def outcomes(sources, ties="half"):
        trainer = trainer_of(comparison=ComparisonConfig(ties=ties), sources=sources)
        trainer.add(segments_of(256))
        trainer.update()
        pairs = trainer._labelled(trainer._buffer.kept(), 200)
        return float((pairs.target == 0.5).mean())

    assert outcomes(("tree",)) == 0.25
    assert outcomes(("tree", "labeller")) == outcomes(("tree",), ties="drop") == 0


def test_judged_ties_are_dropped_too():
    pairs = judged_pairs(100, 1, by=2)
    pairs = replace(pairs, target=np.where(np.arange(100) < 50, 0.5, pairs.target))
    half, drop = (trainer_of(comparison=ComparisonConfig(ties=ties)) for ties in ("half", "drop"))
    for trainer in (half, drop):
        trainer.take(pairs)
    assert half.learnable_pairs > 50 > drop.learnable_pairs > 0


def test_judged_pairs_must_fit_together():
    segments = segments_of(2)
    with pytest.raises(ValueError, match="llm judged 1 pairs of 2 first and 2 second segments"):
        PairBatch(first=segments, second=segments, target=np.ones(1), source="llm")
    for wrong in (1.5, np.nan):
        with pytest.raises(ValueError, match="not between 0 and 1"):
            PairBatch(first=segments, second=segments, target=np.array([0, wrong]), source="llm")


def _one_class(segments):
    return np.zeros(len(segments), np.int64)


def test_a_buffer_of_one_class_keeps_the_newest_segments():
    buffer, pieces = SegmentBuffer(10, _one_class), [segments_of(3, seed=i, first_episode=10 * i) for i in range(5)]
    assert len(buffer) == 0 and buffer.kept() is None
    for piece in pieces:
        buffer.add(piece)
    expected = Segments.joined(pieces).take(np.arange(5, 15))
    assert len(buffer) == 10 and same(buffer.kept().state_dict(), expected.state_dict())
    buffer.add(segments_of(12, seed=9))
    assert same(buffer.kept().state_dict(), segments_of(12, seed=9).take(np.arange(2, 12)).state_dict())


def test_what_is_retained_by_hand():
    # The newest 4 of 8; of the 16 before, both of class 1 (rows 5 and 6) and the newest two of class 0.
    classes = np.array([0] * 5 + [1] * 2 + [0] * 13)
    assert retained(classes, 8).tolist() == [5, 6, 14, 15, 16, 17, 18, 19]


def test_what_has_become_rare_is_not_forgotten():
    buffer = SegmentBuffer(8, lambda segments: segments.factors[:, 0].astype(np.int64))
    rare, common = segments_of(2, seed=0, first_episode=0), segments_of(6, seed=1, first_episode=10)
    rare.factors[:, 0], common.factors[:, 0] = 1, 0
    for piece in [rare, *[common] * 20]:
        buffer.add(piece)
    kept = buffer.kept()
    assert len(kept) == 8 and (kept.factors[:, 0] == 1).sum() == 2


def test_judgement_by_hand():
    tree = PreferenceTree([Level(name="a", sign=1, margin=0.0), Level(name="b", sign=-1, margin=0.0)], "margin")
    factors = np.array([[1.0, 0], [0, 1], [0, 2], [0, 2]])  # 0 > 1 > 2 = 3
    returns = np.array([5.0, 1, 2, 0])
    rng = np.random.default_rng(0)
    found = judge(tree, factors, np.zeros(4, np.int64), returns, 500, rng)
    assert found.pairs == 6
    assert found.compared.tolist() == [6, 3] and found.decided.tolist() == [3, 2]
    assert found.right.tolist() == [3, 1]  # 1 against 2 is the wrong way round
    assert found.independent.tolist() == [2, 1]
    # Shares won: 1, 2/3, 1/6, 1/6; ranks 4, 3, 1.5, 1.5 against 4, 2, 3, 1.
    assert found.rank_correlation == pytest.approx(np.corrcoef([4, 3, 1.5, 1.5], [4, 2, 3, 1])[0, 1])
    assert judge(tree, factors, np.arange(4), returns, 500, rng) is None
    assert segment_returns(np.array([1.0, 2, 4]), np.array([1, 0, 2])).tolist() == [1, 0, 6]


def test_without_held_out_segments_there_is_no_accuracy():
    trainer, segments = trainer_of(SMALL.replace(held_out_share=1e-9)), segments_of(64)
    trainer.add(segments)
    assert trainer.update().version == 1
    assert "accuracy" not in trainer.metrics() and trainer.report().levels[0].accuracy is None


def ending_early(number, rng, shares, first_episode):
    """Play in which episodes end: success after 2 to 5 steps, death after 1 to 3, and 16 steps of neither.

    Args:
        shares: of the three.
    """
    kinds = rng.choice(3, number, p=shares)
    lengths = np.choose(kinds, [rng.integers(2, 6, number), rng.integers(1, 4, number), np.full(number, 16)])
    inputs = rng.normal(size=(int(lengths.sum()), 4)).astype(np.float32)
    last = np.cumsum(lengths) - 1
    inputs[:, :2] = 0
    inputs[last[kinds == 0], 0] = inputs[last[kinds == 1], 1] = 1
    return Segments(
        inputs=inputs,
        lengths=lengths,
        factors=np.stack([kinds == 0, -1.0 * (kinds == 1)], axis=1),
        episode_id=first_episode + np.arange(number),
        first_step=np.zeros(number, np.int64),
        ended=kinds < 2,
        task=np.zeros(number, np.int64),
        caption_id=np.zeros(len(inputs), np.int64),
    )


def test_segments_of_many_lengths_do_not_chase_the_constant_that_is_taken_off_again():
    """A solved task leaves short successes and a few of the rest: longer is not to be worth ever more."""
    table = table_of(("success", "alive"), (1, 1), (0.0, 0.0))
    model = SMALL.replace(learning_rate=1e-2, publish_updates=4)
    trainer, rng = trainer_of(model, table), np.random.default_rng(0)
    for update in range(60):
        shares = [0.3, 0.2, 0.5] if update < 10 else [0.96, 0.02, 0.02]
        trainer.add(ending_early(128, rng, shares, update * 128))
        trainer.update()
    figures = trainer.metrics()
    assert figures["accuracy/success"] > 0.95 and figures["accuracy/alive"] > 0.9
    assert figures["loss"] < 3
