"""Bounded rewards: what a trajectory can earn does not grow with its length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.data import EndStatus, FinalObs, RewardPart, Rollout
from rewards import conformance
from rewards.bounded import BOUNDS, Clipped, Delta, bounded
from rewards.kinds import PlainReward
from rewards.mix import EnvReward
from rewards.parts import PartConfig


def rollout_of(rewards, terminated=(), truncated=()):
    """The environment's rewards [T, B], with episodes that end at some (t, b)."""
    rewards = np.array(rewards, np.float32)
    T, B = rewards.shape
    ends = {"terminated": np.zeros((T, B), bool), "truncated": np.zeros((T, B), bool)}
    for name, places in (("terminated", terminated), ("truncated", truncated)):
        for place in places:
            ends[name][place] = True
    at = np.argwhere(ends["terminated"] | ends["truncated"]).reshape(-1, 2)
    return Rollout(
        obs={"vector": np.zeros((T + 1, B, 1), np.float32)},
        actions=np.zeros((T, B), np.int64),
        env_reward=rewards,
        end_status=np.where(ends["terminated"], EndStatus.DEATH, EndStatus.RUNNING).astype(np.int8),
        final_obs=FinalObs(at=at, obs={"vector": np.zeros((len(at), 1), np.float32)}),
        policy_version=np.zeros((T, B), np.int64),
        episode_id=np.zeros((T, B), np.int64),
        step_in_episode=np.zeros((T, B), np.int32),
        **ends,
    )


class Patchy(EnvReward):
    """Has no opinion of steps that the environment pays exactly 0 for, where its value is not even a number."""

    def score(self, rollout, state):
        valid = rollout.env_reward != 0
        return {"env": RewardPart(value=np.where(valid, rollout.env_reward, np.float32(np.nan)), valid=valid)}, state


class Counting(PlainReward):
    """Pays the number of the episode's steps so far; learns one number."""

    part_names = ("count",)
    version = 7

    def __init__(self):
        self.learned = 3

    def initial_state(self, num_games):
        return {"steps": np.zeros(num_games, np.int64)}

    def score(self, rollout, state):
        steps, value = state["steps"].copy(), np.zeros(rollout.env_reward.shape, np.float32)
        for t, done in enumerate(rollout.done):
            value[t] = steps = steps + 1
            steps = np.where(done, 0, steps)
        return {"count": RewardPart(value=value, valid=np.ones(value.shape, bool))}, {"steps": steps}

    def state_dict(self):
        return {"learned": self.learned}

    def load_state_dict(self, state):
        self.learned = state["learned"]


def paid(model, rollout):
    parts, _ = model.score(rollout, model.initial_state(rollout.num_games))
    (part,) = parts.values()
    return part


@pytest.mark.parametrize("inner", [EnvReward, Patchy, Counting])
def test_conformance(inner):
    rewards = np.random.default_rng(0).choice([-1, 0, 0.5, 2], (20, 3))
    rollout = rollout_of(rewards, terminated=[(4, 0), (9, 2)], truncated=[(11, 0)])
    conformance.check_reward_model(lambda: Clipped(inner(), 0.5), rollout)
    conformance.check_reward_model(lambda: Delta(inner()), rollout, lookahead=1)
    with pytest.raises(AssertionError):
        conformance.check_reward_model(lambda: Delta(inner()), rollout)


def test_clipped_fines_what_falls_short():
    part = paid(Clipped(EnvReward(), 0.5), rollout_of([[2], [0.5], [0.25], [-1]], terminated=[(3, 0)]))
    assert part.value[:, 0].tolist() == [0, 0, -0.25, -1.5] and part.valid.all()


def test_delta_pays_differences_within_an_episode_and_its_last_reward_whole():
    rollout = rollout_of([[3], [1], [4], [2], [8], [5]], terminated=[(1, 0)], truncated=[(3, 0)])
    part = paid(Delta(EnvReward()), rollout)
    assert part.value[:, 0].tolist() == [2, 1, 2, 2, 3, 0]
    assert part.valid[:, 0].tolist() == [True] * 5 + [False]  # the last step's successor is not there yet


def test_delta_of_an_invalid_step_and_of_the_one_before_it_is_invalid():
    rollout = rollout_of([[3, 1], [0, 2], [4, 0], [2, 5]], terminated=[(3, 0), (1, 1)])
    part = paid(Delta(Patchy()), rollout)
    assert part.valid.tolist() == [[False, True], [False, True], [True, False], [True, False]]
    assert np.isfinite(part.value).all() and (part.value[~part.valid] == 0).all()
    assert part.value[part.valid].tolist() == [-1, 2, 2, 2]  # an invalid step after an end costs nothing


def test_one_step_rollouts_of_delta_pay_at_ends_only():
    part = paid(Delta(EnvReward()), rollout_of([[3, 4]], terminated=[(0, 1)]))
    assert part.valid.tolist() == [[False, True]] and part.value.tolist() == [[0, 4]]


rewards_st = st.lists(st.integers(-8, 8), min_size=1, max_size=12)


@given(st.lists(rewards_st, min_size=1, max_size=4), st.data())
def test_what_follows_a_step_sums_up_to_its_own_reward(episodes, data):
    flat = np.concatenate(episodes)
    ends = np.cumsum([len(episode) for episode in episodes]) - 1
    cut_short = data.draw(st.lists(st.booleans(), min_size=len(ends), max_size=len(ends)))
    places = {True: [], False: []}
    for end, is_cut in zip(ends, cut_short, strict=True):
        places[is_cut].append((end, 0))
    part = paid(Delta(EnvReward()), rollout_of(flat[:, None], terminated=places[False], truncated=places[True]))
    assert part.valid.all()
    for first, end in zip(ends - [len(e) - 1 for e in episodes], ends, strict=True):
        to_go = np.cumsum(part.value[first : end + 1, 0][::-1])[::-1]
        np.testing.assert_array_equal(to_go, flat[first : end + 1])


@given(rewards_st, st.integers(1, 30), st.integers(-8, 8))
def test_loops_earn_no_more_than_their_bound(cycle, repeats, threshold):
    rollout = rollout_of(np.tile(cycle, repeats)[:, None], truncated=[(len(cycle) * repeats - 1, 0)])
    assert paid(Clipped(EnvReward(), threshold), rollout).value.sum() <= 0
    assert paid(Delta(EnvReward()), rollout).value.sum() == cycle[0]  # whatever the number of loops


def test_everything_else_is_the_wrapped_model():
    for wrapped in (Clipped(Counting(), 1.0), Delta(Counting())):
        assert wrapped.version == 7 and wrapped.part_names == ("count",)
        assert wrapped.initial_state(2)["steps"].shape == (2,)
        wrapped.load_state_dict({"learned": 5})
        assert wrapped.state_dict() == {"learned": 5}
        _, state = wrapped.score(rollout_of([[0, 0], [0, 0]]), wrapped.initial_state(2))
        assert state["steps"].tolist() == [2, 2]


def test_every_bound_of_the_configuration_has_its_wrapper():
    assert set(BOUNDS) == set(PartConfig.model_fields["bound"].annotation.__args__)
    model = EnvReward()
    assert bounded(model, PartConfig()) is model
    assert isinstance(bounded(model, PartConfig(bound="delta")), Delta)
    fined = paid(bounded(model, PartConfig(bound="clip", bound_at=2.0)), rollout_of([[1.0]], terminated=[(0, 0)]))
    assert fined.value.tolist() == [[-1.0]]
