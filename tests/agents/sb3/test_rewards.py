"""Rewards of ours under Stable-Baselines3."""

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.config import EncoderConfig, ModelConfig
from agents.evaluate import evaluate
from agents.sb3 import (
    GamesVecEnv,
    RewardVecEnvWrapper,
    Sb3Policy,
    network_kwargs,
)
from envs.data import EndStatus, FinalObs, RewardOutput, RewardPart, Rollout
from envs.seeding import TrainingSeeds, evaluation_seeds
from envs.toy import CorridorGames

SMALL = ModelConfig(encoder=EncoderConfig(hidden=32, vector_hidden=32))


def reached(rollout):
    """Observations [T, B, ...] that the actions led to, those that ended an episode included."""
    obs = rollout.obs["vector"][1:].copy()
    t, b = rollout.final_obs.at.T
    obs[t, b] = rollout.final_obs.obs["vector"]
    return obs


class NewCells:
    """Pays each cell of a corridor once an episode; knows nothing of bumps into the wall."""

    part_names = ("cells",)
    version = 0

    def __init__(self, length=6):
        self.length = length

    def initial_state(self, num_games):
        return {"seen": np.zeros((num_games, self.length), bool)}

    def score(self, rollout, state):
        seen = state["seen"].copy()
        cells = reached(rollout)[..., : self.length].argmax(-1)
        value = np.zeros(cells.shape, np.float32)
        for t, row in enumerate(cells):
            everyone = np.arange(len(row))
            value[t] = ~seen[everyone, row] & (row > 0)
            seen[everyone, row] = True
            seen[rollout.done[t]] = False
        return {"cells": RewardPart(value=value, valid=rollout.actions != 2)}, {"seen": seen}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def corridor(num_games=8, seed=1, **settings):
    return CorridorGames(num_games, TrainingSeeds(seed, 0, num_games), **{"limit": 12, **settings})


def joined(rollouts):
    """Consecutive rollouts of one step as one."""
    at = np.concatenate([r.final_obs.at + np.array([t, 0]) for t, r in enumerate(rollouts)])
    names = ["actions", "env_reward", "terminated", "truncated", "end_status", "policy_version"]
    names += ["episode_id", "step_in_episode", "caption_id", "caption_count"]
    obs = {k: np.concatenate([r.obs[k][:1] for r in rollouts] + [rollouts[-1].obs[k][1:]]) for k in rollouts[0].obs}
    finals = {k: np.concatenate([r.final_obs.obs[k] for r in rollouts]) for k in obs}
    columns = {name: np.concatenate([getattr(r, name) for r in rollouts]) for name in names}
    return Rollout(obs=obs, final_obs=FinalObs(at=at, obs=finals), **columns)


def played(venv, steps, seed=0):
    rng = np.random.default_rng(seed)
    venv.reset()
    for _ in range(steps):
        actions = np.array([venv.action_space.sample() for _ in range(venv.num_envs)])
        if hasattr(venv.action_space, "n"):
            actions = rng.choice(3, venv.num_envs, p=[0.2, 0.7, 0.1])
        yield venv.step(actions)


def test_scoring_step_by_step_equals_scoring_the_whole_at_once():
    rollouts, paid = [], []
    venv = RewardVecEnvWrapper(GamesVecEnv(corridor(4)), NewCells(), on_step=lambda r, parts: rollouts.append(r))
    for _, reward, _, _ in played(venv, 60):
        paid.append(reward)
    whole = joined(rollouts)
    parts, _ = NewCells().score(whole, NewCells().initial_state(4))
    part = parts["cells"]
    np.testing.assert_array_equal(np.stack(paid), np.where(part.valid, part.value, 0))
    assert venv.num_scored == 240 and venv.num_invalid["cells"] == (~part.valid).sum() > 0
    assert whole.done.sum() > 5
    # Episodes are numbered, and count their steps and captions.
    assert len(np.unique(whole.episode_id)) == whole.done.sum() + 4
    starts = np.vstack([np.ones((1, 4), bool), whole.done[:-1]])
    np.testing.assert_array_equal(whole.step_in_episode == 0, starts)
    spoken = whole.caption_id != 0
    assert spoken.any() and (whole.caption_count[spoken] >= 1).all()
    assert {text for r in rollouts for text in r.new_captions.values()} >= {
        "You see here the key.",
        "You win!",
    }


def test_the_true_reward_and_return_are_kept():
    venv = RewardVecEnvWrapper(GamesVecEnv(corridor(1)), NewCells())
    venv.reset()
    for step in range(5):
        _, reward, done, (info,) = venv.step(np.ones(1, int))
        assert reward[0] == 1.0 and info["env_reward"] == (step == 4)
    assert done[0] and info["episode"]["r"] == 1.0 and info["scored_return"] == 5.0


class Mixed:
    """Answers as a mix does: two streams."""

    version = 3

    def initial_state(self, num_games):
        return []

    def score(self, rollout, state):
        streams = np.stack([np.full(rollout.env_reward.shape, 2.0), np.full(rollout.env_reward.shape, 0.5)], -1)
        return RewardOutput(streams=streams.astype(np.float32), parts={}), state


def test_the_streams_of_a_mix_are_added_up():
    venv = RewardVecEnvWrapper(GamesVecEnv(corridor(2)), Mixed())
    assert [reward.tolist() for _, reward, _, _ in played(venv, 2)] == [[2.5, 2.5]] * 2
    assert venv.last_version == 3


class Upright:
    """Pays Pendulum's cosine."""

    part_names = ("upright",)
    version = 0

    def initial_state(self, num_games):
        return {}

    def score(self, rollout, state):
        value = reached(rollout)[..., 0].astype(np.float32)
        return {"upright": RewardPart(value=value, valid=np.ones(value.shape, bool))}, state


def test_any_vec_env_will_do():
    made = DummyVecEnv([lambda: gymnasium.make("Pendulum-v1", max_episode_steps=20)] * 2)
    venv = RewardVecEnvWrapper(made, Upright(), weights={"upright": 2.0})
    done, infos = np.zeros(2, bool), []
    for obs, reward, done, infos in played(venv, 20):  # noqa: B007
        shown = np.stack([infos[b].get("terminal_observation", obs[b]) for b in range(2)])
        np.testing.assert_allclose(reward, 2 * shown[:, 0])
    assert done.all() and infos[0]["episode"]["r"] < 0 and infos[0]["episode"]["l"] == 20
    assert venv.last.truncated.all() and (venv.last.end_status == EndStatus.ABORTED).all()
    assert venv.last.caption_id is None


def success(model, make_games, episodes=50, deterministic=False):
    policy = Sb3Policy(model, make_games(1, TrainingSeeds(0, 0, 1)).spec)
    results = evaluate(policy, make_games, evaluation_seeds(episodes), deterministic=deterministic)
    return float(np.mean([result.success for result in results]))


def corridor_of(num_games, seeds):
    return CorridorGames(num_games, seeds, length=10, limit=18)


def test_sb3_ppo_learns_from_our_reward_alone():
    games = corridor_of(8, TrainingSeeds(1, 0, 8))
    venv = RewardVecEnvWrapper(GamesVecEnv(games), NewCells(10))
    kwargs = network_kwargs(SMALL)
    hyper = {
        "n_steps": 64,
        "batch_size": 128,
        "n_epochs": 4,
        "learning_rate": 3e-3,
        "gamma": 0.95,
        "ent_coef": 0.01,
    }
    model = PPO("MultiInputPolicy", venv, policy_kwargs=kwargs, seed=1, device="cpu", **hyper)
    assert success(model, corridor_of) < 0.5
    model.learn(16_000)
    assert success(model, corridor_of) > 0.9
