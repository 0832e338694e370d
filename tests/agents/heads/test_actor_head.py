"""A head with neither a likelihood nor a learner that knows it: it samples, records, and says its own loss."""

import numpy as np
import pytest
import torch
from torch import nn

from agents.config import CategoricalConfig, EncoderConfig, ModelConfig, PPOConfig
from agents.heads import HEADS
from agents.heads.actor_head import HeadLoss, HeadSample, LikelihoodHead
from agents.model import ActorCritic
from agents.policy import TorchPolicy, weights_of
from agents.ppo import PPOLearner
from agents.rollout import RolloutWorker
from envs.data import RewardOutput
from envs.protocols import GamesSpec
from envs.seeding import TrainingSeeds
from envs.toy import CorridorGames


class RegressionHead(nn.Module):
    """Scores actions, plays the best after noise, and regresses scores on what paid: advantage-weighted cloning."""

    def __init__(self, config, num_features, spec):
        super().__init__()
        self.num_actions = spec.num_actions
        self.scores = nn.Linear(num_features, spec.num_actions)
        nn.init.zeros_(self.scores.weight)
        nn.init.zeros_(self.scores.bias)

    def sample(self, features, action_mask, noise, *, deterministic=False):
        drawn = torch.from_numpy(noise.uniform(self.num_actions))
        scores = self.scores(features).float() + (0.0 if deterministic else 1.0) * drawn
        return HeadSample(actions=scores.argmax(-1), record={"drawn": drawn})

    def loss(self, features, batch, config):
        assert batch.old_log_prob is None and batch.record["drawn"].shape == (len(features), self.num_actions)
        jitter = torch.from_numpy(batch.generator.normal(0, 0.01, features.shape).astype(np.float32))
        target = nn.functional.one_hot(batch.actions, self.num_actions)
        error = (self.scores(features + jitter).float() - target).square().mean(-1)
        loss = (batch.advantage.clamp(max=2.0).exp() * error).mean()
        return HeadLoss(loss=loss, metrics={"regression": loss.detach()})


@pytest.fixture(autouse=True)
def one_line_of_the_table(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setitem(HEADS, CategoricalConfig, RegressionHead)


def _games():
    return CorridorGames(8, TrainingSeeds(1, 0, 8), length=6, limit=12)


def _model(spec):
    torch.manual_seed(1)
    return ActorCritic(ModelConfig(encoder=EncoderConfig(hidden=32, vector_hidden=32)), spec, 1)


def _learner(games):
    config = PPOConfig(learning_rate=3e-3, minibatch=128, epochs=4, precision="fp32")
    return PPOLearner(_model(games.spec), config, [0.95], torch.device("cpu"), 1)


def _worker(games):
    return RolloutWorker(games, TorchPolicy(_model(games.spec), torch.device("cpu")), 32, 1, 0)


def _output(rollout):
    return RewardOutput(streams=rollout.env_reward[..., None], parts={})


def test_it_learns_the_corridor():
    games = _games()
    learner, worker, results = _learner(games), _worker(games), []
    for _ in range(12):
        worker.load(weights_of(learner.model), learner.version)
        collected = worker.collect()
        assert collected.rollout.log_prob is None and set(collected.rollout.head_record) == {"drawn"}
        metrics = learner.update([collected.rollout], [_output(collected.rollout)])
        results += [e.success for e in collected.episodes]
    assert np.mean(results[:20]) < 0.7 and np.mean(results[-50:]) > 0.9
    assert "regression" in metrics and "entropy" not in metrics


def test_the_numbers_that_its_loss_draws_repeat_after_a_resume():
    games = _games()
    learner, rollout = _learner(games), _worker(games).collect().rollout
    saved = weights_of(learner.model), learner.state_dict()
    weights = []
    for resumed in (_learner(games), _learner(games)):
        resumed.load_weights(saved[0])
        resumed.load_state_dict(saved[1])
        resumed.update([rollout], [_output(rollout)])
        weights.append(weights_of(resumed.model))
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])


def test_play_of_older_policies_is_refused_in_one_sentence():
    games = _games()
    learner, rollout = _learner(games), _worker(games).collect().rollout
    learner.version = 1
    with pytest.raises(ValueError, match="and RegressionHead gives none; allowed: max_policy_lag 0"):
        learner.update([rollout], [_output(rollout)])


def test_the_table_builds_a_head_for_every_configuration(monkeypatch):
    monkeypatch.undo()
    spec = GamesSpec(tasks=("x",), obs={}, action_names=("a", "b"))
    head = HEADS[CategoricalConfig](CategoricalConfig(), 3, spec)
    assert isinstance(head, nn.Module) and isinstance(head, LikelihoodHead)
    assert not isinstance(RegressionHead(None, 3, spec), LikelihoodHead)
    with pytest.raises(ValueError, match="the categorical head needs discrete actions"):
        HEADS[CategoricalConfig](CategoricalConfig(), 3, GamesSpec(tasks=("x",), obs={}, action_names=()))
