"""HERON's reward, and the sums of factors that it is compared with: conformance, and what they pay by hand."""

import numpy as np
import pytest

from envs.data import EndStatus, FinalObs, Rollout
from rewards import conformance
from rewards.heron.config import PowersOfTenConfig, WeightedSumConfig
from rewards.heron.factors import FactorTable, parse_ranking
from rewards.heron.heron_reward import FactorSum, HeronReward, Scorer
from rewards.heron.inputs import InputScale, JoinedInputs, VectorInputs

RANKING = ("goal = max(info.terminated)", "height = last(obs[0])", "-energy = action[0] * action[0]")


def _scorer(version=1, hidden=4, members=2, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(2, hidden), (1, hidden), (hidden, hidden), (1, hidden), (hidden, 1), (1, 1)]
    return Scorer(
        weights=tuple(rng.normal(size=(members, *shape)).astype(np.float32) for shape in shapes),
        scale=InputScale(mean=np.zeros(2, np.float32), std=np.ones(2, np.float32)),
        output_mean=np.zeros(members),
        output_std=np.ones(members),
        aggregate="mean",
        version=version,
    )


def _rollout(T=9, B=3, ends=((2, 0), (5, 0), (4, 2))):
    rng = np.random.default_rng(1)
    done = np.zeros((T, B), bool)
    for t, b in ends:
        done[t, b] = True
    at = np.argwhere(done)
    return Rollout(
        obs={"vector": rng.normal(size=(T + 1, B, 1)).astype(np.float32)},
        actions=np.zeros((T, B), np.int64),
        env_reward=np.zeros((T, B), np.float32),
        terminated=done,
        truncated=np.zeros((T, B), bool),
        end_status=done.astype(np.int8),
        final_obs=FinalObs(at=at, obs={"vector": rng.normal(size=(len(at), 1)).astype(np.float32)}),
        policy_version=np.zeros((T, B), np.int64),
        episode_id=np.zeros((T, B), np.int64),
        step_in_episode=np.zeros((T, B), np.int32),
    )


def _model(scorer=None):
    model = HeronReward(JoinedInputs([VectorInputs()]))
    model.take(scorer or _scorer())
    return model


def test_conformance():
    conformance.check_reward_model(_model, _rollout())


def test_before_the_first_version_nothing_is_valid():
    model, rollout = HeronReward(JoinedInputs([VectorInputs()])), _rollout()
    parts, _ = model.score(rollout, model.initial_state(3))
    assert model.version == 0 and not parts["heron"].valid.any()
    copy = _model()
    copy.load_state_dict(model.state_dict())
    assert copy.version == 0


def test_a_step_is_paid_what_one_relu_network_says():
    # One member, one unit: relu(before + 2 * after), times 3, less 1.
    ones = [np.array([[[1.0], [2.0]]]), [[[0.0]]], [[[1.0]]], [[[0.0]]], [[[3.0]]], [[[-1.0]]]]
    scorer = Scorer(
        weights=tuple(np.array(w, np.float32) for w in ones),
        scale=InputScale(mean=np.zeros(2, np.float32), std=np.ones(2, np.float32)),
        output_mean=np.zeros(1),
        output_std=np.full(1, 2.0),
        aggregate="mean",
        version=5,
    )
    model, rollout = _model(scorer), _rollout()
    parts, _ = model.score(rollout, {})
    before, after = rollout.obs["vector"][:-1, :, 0], rollout.reached("vector")[..., 0]
    np.testing.assert_allclose(parts["heron"].value, (3 * np.maximum(before + 2 * after, 0) - 1) / 2, rtol=1e-5)
    assert model.version == 5
    t, b = rollout.final_obs.at[0]
    assert after[t, b] == rollout.final_obs.obs["vector"][0, 0]  # the state reached, not the next episode's first


# -- sums of factors: what reward engineering would do with a ranking


def rollout_of(heights, actions, terminated=()):
    """Heights [T, B] that actions [T, B] led to; after an end the game shows 0 again."""
    heights, actions = np.array(heights, np.float32), np.array(actions, np.float32)
    T, B = actions.shape
    ends = np.zeros((T, B), bool)
    for place in terminated:
        ends[place] = True
    at = np.argwhere(ends).reshape(-1, 2)
    shown = np.concatenate([np.zeros((1, B), np.float32), np.where(ends, 0, heights)])
    return Rollout(
        obs={"vector": shown[..., None]},
        actions=actions[..., None],
        env_reward=np.full((T, B), 1000, np.float32),
        terminated=ends,
        truncated=np.zeros((T, B), bool),
        end_status=np.where(ends, EndStatus.DEATH, EndStatus.RUNNING).astype(np.int8),
        final_obs=FinalObs(at=at, obs={"vector": heights[ends][:, None]}),
        policy_version=np.zeros((T, B), np.int64),
        episode_id=np.zeros((T, B), np.int64),
        step_in_episode=np.zeros((T, B), np.int32),
    )


def summed(weights, ranking=RANKING):
    return FactorSum(FactorTable(parse_ranking(ranking)), weights)


def test_weights_by_hand():
    assert WeightedSumConfig(beta=0.5).weights(4) == (1, 0.5, 0.25, 0.125)
    assert PowersOfTenConfig().weights(3) == (100, 10, 1)
    assert WeightedSumConfig(beta=3.0).weights(1) == PowersOfTenConfig().weights(1) == (1,)


def test_each_step_pays_signed_weighted_factors_and_nothing_of_the_environments_reward():
    rollout = rollout_of([[2, 1], [5, -4]], [[0.5, 0], [1, 2]], terminated=[(1, 0)])
    model = summed((100, 10, 1))
    parts, state = model.score(rollout, model.initial_state(2))
    part = parts["heron"]
    # The last observation of the episode that ended counts, not the one after the restart.
    assert part.value.tolist() == [[20 - 0.25, 10], [100 + 50 - 1, -40 - 4]]
    assert part.valid.all() and part.value.dtype == np.float32 and state == {} == model.state_dict()


def test_conformance_of_sums():
    rng = np.random.default_rng(0)
    rollout = rollout_of(rng.normal(size=(20, 3)), rng.normal(size=(20, 3)), terminated=[(4, 0), (11, 0), (9, 2)])
    conformance.check_reward_model(lambda: summed((1, 0.3, 0.09)), rollout)


def test_weights_must_be_as_many_as_factors():
    with pytest.raises(ValueError, match=r"2 weights for 3 factors \(goal, height, energy\)"):
        summed((1, 2))


def test_a_factor_that_is_not_finite_is_an_error_and_no_reward():
    with pytest.raises(ValueError, match="ratio"):
        model = summed((1,), ["ratio = obs[0] / action[0]"])
        model.score(rollout_of([[1]], [[0]]), {})
