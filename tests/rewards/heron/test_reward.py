"""HERON's reward: conformance, and what it pays by hand."""

import importlib.util
from pathlib import Path

import numpy as np

from envs.data import FinalObs, Rollout
from rewards.heron.inputs import InputScale, JoinedInputs, VectorInputs
from rewards.heron.reward import HeronReward
from rewards.heron.scorer import Scorer

_spec = importlib.util.spec_from_file_location("conformance", Path(__file__).parents[1] / "conformance.py")
conformance = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(conformance)


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
    conformance.check(_model, _rollout())


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
