"""Replayed rewards follow the reward model."""

import pickle

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.evaluate import evaluate
from agents.sb3 import (
    DictRewardReplayBuffer,
    GamesVecEnv,
    RewardReplayBuffer,
    RewardVecEnvWrapper,
    Sb3Policy,
)
from envs.data import RewardPart
from envs.seeding import TrainingSeeds, evaluation_seeds
from envs.toy import CorridorGames


def cells(rollout):
    """The cell [T, B] that each action led to."""
    obs = rollout.obs["vector"][1:].copy()
    t, b = rollout.final_obs.at.T
    obs[t, b] = rollout.final_obs.obs["vector"]
    return obs[..., :6].argmax(-1)


class CellReward:
    """Pays ``factor`` for each cell to the right; the version is the number of changes of the factor."""

    part_names = ("cell",)

    def __init__(self, factor):
        self.version, self.factor = 0, factor

    def change(self, factor):
        self.version, self.factor = self.version + 1, factor

    def initial_state(self, num_games):
        return {}

    def score(self, rollout, state):
        value = (self.factor * cells(rollout)).astype(np.float32)
        return {"cell": RewardPart(value=value, valid=np.ones(value.shape, bool))}, state


class TotalReward(CellReward):
    """Pays ``factor`` times the sum of the cells visited so far in the episode: needs its memory."""

    def initial_state(self, num_games):
        return {"sum": np.zeros(num_games, np.float32)}

    def score(self, rollout, state):
        visited, sums = cells(rollout), state["sum"].copy()
        value = np.zeros(visited.shape, np.float32)
        for t in range(len(visited)):
            sums += visited[t]
            value[t] = self.factor * sums
            sums[rollout.done[t]] = 0
        return {"cell": RewardPart(value=value, valid=np.ones(value.shape, bool))}, {"sum": sums}


class DistanceReward(CellReward):
    """Charges ``factor`` for each cell that is left to go."""

    def score(self, rollout, state):
        value = (self.factor * (cells(rollout) - 5) / 5).astype(np.float32)
        return {"cell": RewardPart(value=value, valid=np.ones(value.shape, bool))}, state


def filled(reward, steps, buffer_size=400, num_games=4):
    """A wrapper, its attached buffer after random steps, and what a model of factor 10 would have paid."""
    venv = RewardVecEnvWrapper(GamesVecEnv(CorridorGames(num_games, TrainingSeeds(1, 0, num_games), limit=9)), reward)
    buffer = DictRewardReplayBuffer(
        buffer_size, venv.observation_space, venv.action_space, device="cpu", n_envs=num_games
    )
    buffer.attach(venv)
    rng, paid = np.random.default_rng(2), []
    for _ in range(2):  # the second reset cuts the running episodes short
        obs = venv.reset()
        for _step in range(steps // 2):
            actions = rng.choice(3, num_games, p=[0.2, 0.6, 0.2])
            following, rewards, done, infos = venv.step(actions)
            after = {key: x.copy() for key, x in following.items()}
            for b in np.flatnonzero(done):
                after["vector"][b] = infos[b]["terminal_observation"]["vector"]
            buffer.add(obs, after, actions, rewards, done, infos)
            obs = following
            paid.append(rewards * 10)
    return venv, buffer, np.stack(paid)


def in_order(buffer):
    return np.roll(buffer.rewards, -buffer.pos, 0) if buffer.full else buffer.rewards[: buffer.pos]


@pytest.mark.parametrize("kind", [CellReward, TotalReward])
@pytest.mark.parametrize("steps", [60, 260])
def test_every_reward_is_recomputed_exactly(kind, steps):
    reward = kind(1.0)
    _, buffer, wanted = filled(reward, steps)
    assert buffer.full == (steps == 260)
    before = in_order(buffer).copy()
    buffer.recompute()
    np.testing.assert_array_equal(in_order(buffer), before)
    assert buffer.num_recomputed == 0
    reward.change(10.0)
    buffer.recompute()
    np.testing.assert_allclose(in_order(buffer), wanted[-len(before) :])
    assert buffer.num_recomputed == before.size


def test_a_sample_is_brought_up_to_the_present_version():
    reward = CellReward(1.0)
    _, buffer, _ = filled(reward, 60)
    reward.change(10.0)
    sample = buffer.sample(32)
    cell = sample.next_observations["vector"][:, :6].argmax(1)
    torch.testing.assert_close(sample.rewards[:, 0], 10.0 * cell)
    # Nothing that no sample asked for was computed.
    assert 0 < buffer.num_recomputed < 240


def test_without_its_wrapper_a_buffer_says_what_it_lacks():
    venv, buffer, _ = filled(CellReward(1.0), 60)
    buffer = pickle.loads(pickle.dumps(buffer))
    with pytest.raises(RuntimeError, match="attach"):
        buffer.sample(4)
    buffer.attach(venv)
    assert buffer.sample(4).rewards.shape == (4, 1)
    other = RewardVecEnvWrapper(GamesVecEnv(CorridorGames(2, TrainingSeeds(1, 0, 2))), CellReward(1.0))
    with pytest.raises(ValueError, match="4 environments, the wrapper 2"):
        buffer.attach(other)


def test_memory_saving_is_refused():
    with pytest.raises(ValueError, match="optimize_memory_usage"):
        space = gymnasium.spaces.Box(-1, 1, (3,))
        RewardReplayBuffer(10, space, space, optimize_memory_usage=True)


def corridor_of(num_games, seeds):
    return CorridorGames(num_games, seeds, length=6, limit=12)


def test_sb3_dqn_learns_after_the_reward_changed_its_mind():
    reward = DistanceReward(-1.0)
    venv = RewardVecEnvWrapper(GamesVecEnv(corridor_of(4, TrainingSeeds(1, 0, 4))), reward)
    model = DQN(
        "MultiInputPolicy",
        venv,
        replay_buffer_class=DictRewardReplayBuffer,
        buffer_size=20_000,
        learning_starts=200,
        learning_rate=1e-3,
        gamma=0.9,
        train_freq=4,
        gradient_steps=4,
        target_update_interval=400,
        exploration_fraction=0.3,
        policy_kwargs={"net_arch": [32]},
        seed=1,
        device="cpu",
    )
    model.replay_buffer.attach(venv)
    model.learn(2_000)  # away from the goal
    policy = Sb3Policy(model, venv.venv.games.spec)

    def success():
        results = evaluate(policy, corridor_of, evaluation_seeds(20), deterministic=True)
        return np.mean([result.success for result in results])

    assert success() == 0
    reward.change(1.0)
    model.learn(5_000)
    assert success() == 1
    assert model.replay_buffer.num_recomputed > 1_000
    sample = model.replay_buffer.sample(256)
    cell = sample.next_observations["vector"][:, :6].argmax(1)
    torch.testing.assert_close(sample.rewards[:, 0], (cell - 5) / 5)


class Torque:
    """Pays less for more torque, as the environment got it."""

    part_names = ("torque",)
    version = 0

    def initial_state(self, num_games):
        return {}

    def score(self, rollout, state):
        value = -np.abs(rollout.actions[..., 0]).astype(np.float32)
        return {"torque": RewardPart(value=value, valid=np.ones(value.shape, bool))}, state


def test_actions_are_rescored_as_the_environment_got_them_and_loading_keeps_the_rewards(tmp_path):
    venv = RewardVecEnvWrapper(DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")]), Torque())
    settings = {"learning_starts": 100, "policy_kwargs": {"net_arch": [8]}, "seed": 1, "device": "cpu"}
    model = SAC("MlpPolicy", venv, replay_buffer_class=RewardReplayBuffer, buffer_size=500, **settings)
    model.replay_buffer.attach(venv)
    model.learn(60)
    before = model.replay_buffer.rewards[:60].copy()
    assert np.abs(before).max() > 1.0  # SB3 itself stores actions scaled into [-1, 1]
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    venv.scoring.rewards.version = 1
    model.replay_buffer.attach(venv)
    model.replay_buffer.recompute()
    np.testing.assert_array_equal(model.replay_buffer.rewards[:60], before)
    assert model.replay_buffer.num_recomputed == 60
