"""Every learner learns something small within seconds on a CPU."""

import numpy as np
import pytest
import torch

from agents.config import EncoderConfig, ModelConfig, PPOConfig
from agents.model import ActorCritic
from agents.policy import TorchPolicy, weights_of
from agents.ppo import PPOLearner
from agents.rollout import RolloutWorker
from envs.data import RewardOutput, RewardPart
from envs.seeding import TrainingSeeds
from envs.toy import CorridorGames, MaskedGames, MemoryGames

SMALL = EncoderConfig(hidden=32, vector_hidden=32)


def _env_output(rollout):
    part = RewardPart(value=rollout.env_reward, valid=np.ones(rollout.env_reward.shape, bool))
    return RewardOutput(streams=rollout.env_reward[..., None].astype(np.float32), parts={"env": part})


def _success_after(games, updates, *, core="none", lag=0, num_steps=32, seed=1, ppo=None):
    """Share of successes among the last 50 episodes; ``lag`` holds back the weights that the worker gets."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    config = ModelConfig(encoder=SMALL, core=core, core_hidden=32)
    ppo = ppo or PPOConfig(learning_rate=3e-3, minibatch=128, epochs=4, entropy=0.01)
    learner = PPOLearner(ActorCritic(config, games.spec, 1), ppo, [0.95], torch.device("cpu"), seed)
    policy = TorchPolicy(ActorCritic(config, games.spec, 1), torch.device("cpu"))
    worker = RolloutWorker(games, policy, num_steps, seed, 0)
    history = []
    results = []
    for _ in range(updates):
        history.append((weights_of(learner.model), learner.version))
        worker.load(*history[max(0, len(history) - 1 - lag)])
        collected = worker.collect()
        metrics = learner.update([collected.rollout], [_env_output(collected.rollout)])
        results += [float(e.success) for e in collected.episodes]
    assert metrics["lag_max"] == lag
    worker.close()
    return float(np.mean(results[-50:]))


@pytest.mark.parametrize("lag", [0, 2])
def test_ppo_learns_the_corridor_synchronously_and_with_old_rollouts(lag):
    games = CorridorGames(8, TrainingSeeds(1, 0, 8), length=6, limit=12)
    assert _success_after(games, 25, lag=lag) > 0.9


def test_ppo_learns_where_each_game_has_other_actions():
    assert _success_after(MaskedGames(8, TrainingSeeds(1, 0, 8)), 25) > 0.9


def test_a_recurrent_policy_recalls_a_cue_that_a_memoryless_one_cannot():
    remembered = _success_after(MemoryGames(16, TrainingSeeds(1, 0, 16)), 90, core="gru")
    guessed = _success_after(MemoryGames(16, TrainingSeeds(1, 0, 16)), 90)
    assert remembered > 0.9 > 0.75 > guessed
