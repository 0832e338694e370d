"""On a GPU, where there is one: the same update as on the CPU, within rounding."""

import numpy as np
import pytest
import torch

from agents.config import EncoderConfig, ModelConfig, PPOConfig
from agents.devices import autocast, device, has_fast_bf16
from agents.model import ActorCritic
from agents.policy import TorchPolicy, weights_of
from agents.ppo import PPOLearner
from agents.rollout import RolloutWorker
from envs.data import RewardOutput
from envs.seeding import TrainingSeeds
from envs.toy import CorridorGames

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def _updated(where, precision="fp32", core="none"):
    games = CorridorGames(8, TrainingSeeds(1, 0, 8))
    config = ModelConfig(encoder=EncoderConfig(hidden=16, vector_hidden=16), core=core, core_hidden=16)
    torch.manual_seed(0)
    model = ActorCritic(config, games.spec, 1)
    worker = RolloutWorker(games, TorchPolicy(model, torch.device("cpu")), 32, 1, 0)
    rollout = worker.collect().rollout
    learner = PPOLearner(
        model.train(), PPOConfig(minibatch=64, precision=precision), [0.9], torch.device(where), seed=1
    )
    learner.update([rollout], [RewardOutput(streams=rollout.env_reward[..., None], parts={})])
    return weights_of(learner.model)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("core", ["none", "gru"])
def test_an_update_on_the_gpu_equals_one_on_the_cpu(core):
    ours, theirs = _updated("cuda", core=core), _updated("cpu", core=core)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@needs_cuda
def test_bf16_on_the_gpu_stays_close():
    ours, theirs = _updated("cuda", "bf16"), _updated("cpu")
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-2)


def test_bf16_on_the_cpu_stays_close():
    ours, theirs = _updated("cpu", "bf16"), _updated("cpu")
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-2)


def test_devices_are_chosen_and_refused():
    assert device("cpu").type == "cpu"
    assert device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="'cuda' is not available here; allowed: auto, cpu"):
            device("cuda")
    with autocast("auto", torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu") == has_fast_bf16(torch.device("cpu"))
