"""Scoring, cutting and learning, one after the other: what segments hold, and what an update that breaks leaves."""

from types import SimpleNamespace

import numpy as np
import pytest

from agents.rollout import WorkerRollout
from envs.data import EndStatus, EpisodeResult, FinalObs, RewardOutput, RewardPart, Rollout
from envs.phases import Phases
from launch.runs.metrics import WindowedEpisodes
from launch.training.learning import Learning, Preferring
from launch.training.ledger import RecentSums
from launch.training.run import return_correlation
from rewards.heron.cutter import SegmentCutter
from rewards.heron.factors import Factor, FactorTable
from rewards.heron.inputs import EncodedInputs, JoinedInputs
from rewards.oni.values import CaptionValues

T = 4


class Network:
    """Encodes as its weight says, which an update changes; may break instead."""

    def __init__(self):
        self.phases, self.weight, self.breaks, self.encoded = Phases(), 1.0, False, 0

    def encode(self, obs):
        self.encoded += 1
        return self.weight * obs["vector"].astype(np.float32)

    def update(self, rollouts, outputs, share):
        if self.breaks:
            raise ConnectionError("a peer died")
        self.weight += 1
        return {}


class Mix:
    """Pays what the inputs come to."""

    part_names = ("heron",)

    def __init__(self, inputs):
        self.inputs = inputs

    def initial_state(self, num_games):
        return {}

    def score(self, rollout, state):
        value = self.inputs(rollout).sum(-1)
        part = RewardPart(value=value, valid=np.ones(value.shape, bool))
        return RewardOutput(streams=value[..., None], parts={"heron": part}), state


def table():
    """One factor: steps."""
    steps = Factor(name="steps", columns=("info.died",), per_step=lambda columns: np.ones(columns["info.died"].shape))
    return FactorTable([steps])


def learning_of(segment_steps):
    network = Network()
    inputs = JoinedInputs([EncodedInputs(network.encode, ("vector",))])
    cutter = SegmentCutter(inputs, table(), segment_steps)
    preferring = Preferring(reward=SimpleNamespace(take=None), cutter=cutter)
    return network, Learning(CaptionValues(), Mix(inputs), network, preferring)


def collected(number, worker=0, ends=False):
    """The number-th rollout of one game, whose episode is of as many steps as are played; what is seen is the step."""
    seen = number * T + np.arange(T + 1, dtype=np.float32).reshape(-1, 1, 1)
    done = np.zeros((T, 1), bool)
    done[-1] = ends
    rollout = Rollout(
        obs={"vector": seen},
        actions=np.zeros((T, 1), np.int64),
        env_reward=np.zeros((T, 1), np.float32),
        terminated=done,
        truncated=np.zeros((T, 1), bool),
        end_status=done.astype(np.int8),
        final_obs=FinalObs(at=np.argwhere(done), obs={"vector": seen[-1:, 0][: int(ends)]}),
        policy_version=np.zeros((T, 1), np.int64),
        episode_id=np.zeros((T, 1), np.int64),
        step_in_episode=(number * T + np.arange(T, dtype=np.int32))[:, None],
    )
    return WorkerRollout(rollout=rollout, episodes=[], worker=worker, seconds={}, spans=[])


def update(learning, *played):
    return learning.learn(played, learning.score(played), 0.0)


def test_segments_hold_what_the_encoder_said_when_they_were_scored():
    network, learning = learning_of(segment_steps=T)
    played = [collected(0, worker) for worker in range(3)]
    outputs = learning.score(played)
    report = learning.learn(played, outputs, 0.0)
    assert network.weight == 2 and network.encoded == 3  # each rollout was read once
    for output, segments in zip(outputs, report.segments, strict=True):
        np.testing.assert_array_equal(segments.inputs.sum(-1), output.parts["heron"].value[:, 0])


@pytest.mark.parametrize(("segment_steps", "lengths"), [(3, [3, 3]), (None, [12])])
def test_an_update_that_breaks_drops_its_segments_and_leaves_no_gap(segment_steps, lengths):
    network, learning = learning_of(segment_steps)
    update(learning, collected(0))
    network.breaks = True
    with pytest.raises(ConnectionError):
        update(learning, collected(1))
    network.breaks = False
    report = update(learning, collected(2, ends=True))
    # Steps 0 to 3 were reported, 4 to 7 (and with them the segment 3 to 5) are lost, what they begin is not.
    (segments,) = report.segments
    assert segments.lengths.tolist() == lengths
    assert (segments.first_step + segments.lengths).tolist()[-1] == 3 * T
    # The sum over the episode misses no step: with a weight of 1, 2 and 2, of t + (t + 1).
    paid = [weight * (2 * t + 1) for t, weight in zip(range(3 * T), np.repeat([1, 2, 2], T), strict=True)]
    assert report.part_sums["heron"] == [sum(paid)]


def test_what_was_paid_is_compared_with_what_episodes_were_worth():
    sums, episodes = RecentSums(window=4), WindowedEpisodes(window=4)
    assert return_correlation(sums, episodes) is None

    def play(paid, returns):
        sums.add({"heron": paid, "env": [0.0] * len(paid)})
        episodes.add(
            EpisodeResult(
                task="Room", seeds=None, env_return=x, num_steps=1, end_status=EndStatus.ABORTED, success=False
            )
            for x in returns
        )

    play([1.0, 1.0], [0.0, 5.0])
    assert return_correlation(sums, episodes) is None  # all were paid alike
    play([1.0, 2.0, 3.0, 4.0], [0.0, 0.1, 7.0, 0.3])  # only the last four count
    assert return_correlation(sums, episodes) == pytest.approx(0.8)
    empty = RecentSums()
    empty.add({"env": [1.0]})
    assert return_correlation(empty, episodes) is None
