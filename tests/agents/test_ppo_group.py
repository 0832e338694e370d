"""Learners of a group: one network, one gradient, each minibatch split over them."""

import threading

import numpy as np
import torch

from agents.config import EncoderConfig, ModelConfig, PPOConfig
from agents.model import ActorCritic
from agents.policy import TorchPolicy, weights_of
from agents.ppo import PPOLearner
from agents.rollout import RolloutWorker
from envs.data import RewardOutput, RewardPart
from envs.seeding import TrainingSeeds
from envs.toy import CorridorGames


class ThreadGroup:
    """Members that are threads of this process."""

    def __init__(self, rank, size, slots, barrier):
        self.rank, self.size = rank, size
        self._slots, self._barrier = slots, barrier

    def gather(self, values):
        self._slots[self.rank] = values.copy()
        self._barrier.wait()
        found = np.stack([self._slots[rank] for rank in range(self.size)])
        self._barrier.wait()
        return found

    def average(self, values):
        values[:] = self.gather(values).mean(0)

    def close(self):
        pass


def _thread_groups(size):
    slots, barrier = {}, threading.Barrier(size)
    return [ThreadGroup(rank, size, slots, barrier) for rank in range(size)]


def _model(spec):
    torch.manual_seed(1)
    return ActorCritic(ModelConfig(encoder=EncoderConfig(hidden=32, vector_hidden=32)), spec, 1)


def _rollout(stream):
    games = CorridorGames(4, TrainingSeeds(1, stream, 4), length=6, limit=12)
    worker = RolloutWorker(games, TorchPolicy(_model(games.spec), torch.device("cpu")), 16, 1, stream)
    rollout = worker.collect().rollout
    part = RewardPart(value=rollout.env_reward, valid=np.ones(rollout.env_reward.shape, bool))
    output = RewardOutput(streams=rollout.env_reward[..., None].astype(np.float32), parts={"env": part})
    return games.spec, rollout, output


def _updated(model, config, rollouts, outputs, group=None):
    learner = PPOLearner(model, config, [0.95], torch.device("cpu"), 1, group)
    metrics = learner.update(rollouts, outputs)
    gradients = {name: p.grad.numpy().copy() for name, p in learner.model.named_parameters()}
    return weights_of(learner.model), gradients, metrics


def _in_threads(works):
    found = [None] * len(works)

    def run(i):
        torch.set_num_threads(1)
        found[i] = works[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_two_learners_with_half_a_batch_each_equal_one_with_all_of_it():
    config = PPOConfig(minibatch=128, epochs=1, precision="fp32")  # one minibatch: no order to differ in
    collected = [_rollout(stream) for stream in range(2)]
    # Built here: threads share torch's generator.
    one, *two = (_model(collected[0][0]) for _ in range(3))
    _, whole, metrics = _updated(one, config, [c[1] for c in collected], [c[2] for c in collected])
    groups = _thread_groups(2)
    works = [
        lambda group=group, c=c, model=model: _updated(model, config, [c[1]], [c[2]], group)
        for group, c, model in zip(groups, collected, two, strict=True)
    ]
    (first, mean, a), (second, same, b) = _in_threads(works)
    for name, gradient in whole.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_array_equal(mean[name], same[name])
        # Adam's first step has the gradient's sign alone: only gradients can be compared closely.
        np.testing.assert_allclose(mean[name], gradient, atol=1e-6)
    assert np.isclose(metrics["grad_norm"], a["grad_norm"], rtol=1e-4)
    assert np.isclose(metrics["loss"], (a["loss"] + b["loss"]) / 2, rtol=1e-3, atol=1e-6)


def test_members_stay_equal_over_epochs_and_minibatches():
    config = PPOConfig(minibatch=32, epochs=3)
    collected = [_rollout(stream) for stream in range(2)]
    groups, models = _thread_groups(2), [_model(collected[0][0]) for _ in range(2)]
    works = [
        lambda group=group, c=c, model=model: _updated(model, config, [c[1]], [c[2]], group)
        for group, c, model in zip(groups, collected, models, strict=True)
    ]
    (first, _, _), (second, _, _) = _in_threads(works)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
