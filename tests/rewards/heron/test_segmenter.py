"""Cutting play into segments, and what a reward model reads of each step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.data import FinalObs, Rollout
from envs.protocols import GamesSpec, ObsSpec
from rewards.heron.config import ModelConfig
from rewards.heron.factors import Factor, FactorTable
from rewards.heron.inputs import (
    ActionInputs,
    CaptionInputs,
    ColumnInputs,
    EncodedInputs,
    JoinedInputs,
    VectorInputs,
    read_columns,
    step_inputs,
)
from rewards.heron.segmenter import Segmenter

TABLE = FactorTable([Factor(name="sum", columns=("obs.0",), per_step=lambda columns: columns["obs.0"])])


def _play(lengths, T, B=1, offset=0):
    """Games [T, B] of episodes with these lengths, the same in all games; the vector counts the steps of the run."""
    done = np.zeros((T, B), bool)
    step = np.zeros((T, B), np.int32)
    episode = np.zeros((T, B), np.int64)
    t = 0
    for number, length in enumerate([*lengths, T]):
        for s in range(length):
            if t == T:
                break
            step[t], episode[t] = s, number * B + np.arange(B) + offset
            done[t] = s == length - 1 and number < len(lengths)
            t += 1
    clock = np.arange(T + 1, dtype=np.float32)[:, None, None] * np.ones((1, B, 1), np.float32)
    at = np.argwhere(done)
    return Rollout(
        obs={"vector": clock},
        actions=np.zeros((T, B), np.int64),
        env_reward=np.zeros((T, B), np.float32),
        terminated=done,
        truncated=np.zeros((T, B), bool),
        end_status=done.astype(np.int8),
        final_obs=FinalObs(at=at, obs={"vector": at[:, :1].astype(np.float32) + 1}),
        policy_version=np.zeros((T, B), np.int64),
        episode_id=episode,
        step_in_episode=step,
        caption_id=np.arange(1, T * B + 1).reshape(T, B),
        caption_count=np.ones((T, B), np.int32),
    )


def _cut_at(rollout, points):
    """The rollout in pieces, as workers would send them."""
    pieces = []
    for start, stop in zip([0, *points], [*points, rollout.num_steps], strict=True):
        if start == stop:
            continue
        kept = (rollout.final_obs.at[:, 0] >= start) & (rollout.final_obs.at[:, 0] < stop)
        columns = {
            name: getattr(rollout, name)[start:stop]
            for name in (
                "actions", "env_reward", "terminated", "truncated", "end_status", "policy_version", "episode_id",
                "step_in_episode", "caption_id", "caption_count",
            )
        }  # fmt: skip
        at = rollout.final_obs.at[kept] - [start, 0]
        finals = {key: x[kept] for key, x in rollout.final_obs.obs.items()}
        obs = {key: x[start : stop + 1] for key, x in rollout.obs.items()}
        pieces.append(Rollout(obs=obs, final_obs=FinalObs(at=at, obs=finals), **columns))
    return pieces


def _segments(pieces, steps, num_tasks=1):
    cutter = Segmenter(VectorInputs(), TABLE, steps, num_tasks)
    state = cutter.initial_state(pieces[0].num_games)
    found = []
    for piece in pieces:
        segments, state = cutter.cut(piece, state)
        if segments is not None:
            found += [segments.take(np.array([i])) for i in range(len(segments))]
    return found


def _described(segment):
    return (int(segment.episode_id[0]), int(segment.first_step[0]), int(segment.lengths[0]), bool(segment.ended[0]))


def test_segments_by_hand():
    # An episode of 7 steps in threes: 0-2, 3-5, and the last three steps again; one of 2 is shorter than a segment.
    found = _segments([_play([7, 2], 12)], 3)
    assert [_described(s) for s in found] == [(0, 0, 3, False), (0, 3, 3, False), (0, 4, 3, True), (1, 0, 2, True),
                                              (2, 0, 3, False)]  # fmt: skip
    last = found[2]
    np.testing.assert_array_equal(last.inputs, [[4, 5], [5, 6], [6, 7]])  # the vector before and after each step
    assert last.factors.tolist() == [[5 + 6 + 7]]
    assert last.caption_id.tolist() == [5, 6, 7]


def test_an_episode_that_ends_with_a_segment_has_no_second_last_one():
    assert [_described(s) for s in _segments([_play([6], 6)], 3)] == [(0, 0, 3, False), (0, 3, 3, True)]


def test_whole_episodes():
    found = _segments([_play([7, 2], 12)], None)
    assert [_described(s) for s in found] == [(0, 0, 7, True), (1, 0, 2, True)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), max_size=5),
    st.lists(st.integers(1, 29), max_size=4, unique=True),
    st.sampled_from([1, 3, 5, None]),
)
def test_it_does_not_matter_where_rollouts_begin(lengths, points, steps):
    rollout = _play(lengths, 30, B=2)
    whole = _segments([rollout], steps)
    cut = _segments(_cut_at(rollout, sorted(points)), steps)
    by_episode = {_described(s): s for s in whole}
    assert sorted(by_episode) == sorted(map(_described, cut))
    for segment in cut:
        other = by_episode[_described(segment)]
        np.testing.assert_array_equal(segment.inputs, other.inputs)
        np.testing.assert_array_equal(segment.factors, other.factors)
        np.testing.assert_array_equal(segment.caption_id, other.caption_id)


def test_a_lost_rollout_leaves_a_gap_that_no_segment_spans():
    pieces = _cut_at(_play([], 12), [4, 8])
    found = _segments([pieces[0], pieces[2]], 3)
    assert [_described(s) for s in found] == [(0, 0, 3, False), (0, 8, 3, False)]


def test_tasks_are_dealt_over_the_games():
    found = _segments([_play([3], 3, B=4)], 3, num_tasks=2)
    assert [int(s.task[0]) for s in found] == [0, 1, 0, 1]


def test_inputs_by_hand():
    rollout = _play([2], 3)
    np.testing.assert_array_equal(VectorInputs()(rollout)[:, 0], [[0, 1], [1, 2], [2, 3]])
    np.testing.assert_array_equal(ActionInputs(3)(rollout)[0, 0], [1, 0, 0])
    captions = CaptionInputs(4)(rollout)
    np.testing.assert_array_equal(captions[:, 0].astype(int), [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    both = JoinedInputs([VectorInputs(), ActionInputs(3)])
    assert both(rollout).shape == (3, 1, 5) and both(rollout) is both(rollout)


def test_the_action_of_a_continuous_task_is_an_input_as_it_is():
    rollout = _play([2], 3)
    assert ActionInputs(0)(rollout).shape == (3, 1, 1)


def test_silence_has_no_bucket():
    rollout = _play([2], 3)
    rollout.caption_id[:] = 0
    assert not CaptionInputs(4)(rollout).any()


def test_the_encoding_after_an_end_is_that_of_the_last_observation():
    rollout = _play([2], 3)
    rollout.final_obs.obs["vector"][:] = 50.0
    inputs = EncodedInputs(lambda obs: obs["vector"] * 10, ["vector"])(rollout)
    np.testing.assert_array_equal(inputs[:, 0], [[0, 10], [10, 500], [20, 30]])


def test_text_is_no_input():
    with pytest.raises(ValueError, match=r"'obs\.message' is text"):
        ColumnInputs(["obs.message"])


def test_what_factors_read_is_no_input_unless_asked_for():
    config = ModelConfig(inputs=("obs.hp", "obs.x"))
    assert read_columns(config, {"obs.x"}) == ("obs.hp",)
    sees = config.replace(see_factors=True)
    # What factors read is added, unless it is text.
    assert read_columns(sees, ("obs.x", "info.died", "obs.message")) == ("obs.hp", "obs.x", "info.died")


def test_a_factor_that_reads_messages_hides_them_from_the_model():
    spec = GamesSpec(
        tasks=("x",),
        obs={"vector": ObsSpec(shape=(1,), dtype=np.dtype(np.float32))},
        action_names=("a", "b"),
        has_messages=True,
    )
    rollout = _play([2], 3)
    assert step_inputs(ModelConfig(caption_buckets=4), {}, spec, None)(rollout).shape[-1] == 2 + 2 + 4
    assert step_inputs(ModelConfig(caption_buckets=4), {"obs.message"}, spec, None)(rollout).shape[-1] == 2 + 2
