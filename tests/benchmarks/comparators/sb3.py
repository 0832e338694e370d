"""Stable-Baselines3's PPO as a system that is measured, with the references' network in its actor-critic policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv
from torch import Tensor

from agents.config import EncoderConfig
from agents.sb3.vec_env import obs_specs
from launch.bench.harness import Round, System
from launch.config.train_config import TrainConfig
from launch.evaluation.sb3_reference import reference_env, reference_ppo
from tests.benchmarks.comparators.gym_environments import training_env
from tests.benchmarks.comparators.network import ReferenceEncoder

_WARM_UP_UPDATES = 2


@dataclass(frozen=True)
class Sb3Spec:
    """SB3's PPO over one kind of vector environment (a key of ``VEC_ENVS``)."""

    name: str
    config: TrainConfig
    kind: str
    is_reference: bool = True

    def build(self) -> System:
        """In this process."""
        torch.set_num_threads(self.config.threads)
        return Sb3Training(self.config, VEC_ENVS[self.kind](self.config))


def _gym_envs(config: TrainConfig) -> list[Callable[[], gymnasium.Env]]:
    assert config.env.penalty_step is not None, "the benchmark sets it"
    return [partial(training_env, config.env.task, config.env.penalty_step)] * config.rollout.games_per_worker


def _dummy(config: TrainConfig) -> VecEnv:
    return DummyVecEnv(_gym_envs(config))


def _subproc(config: TrainConfig) -> VecEnv:
    return SubprocVecEnv(_gym_envs(config))


VEC_ENVS: Mapping[str, Callable[[TrainConfig], Any]] = {
    "dummy": _dummy,
    "subproc": _subproc,
    "games": reference_env,
}
"""gymnasium's environments in one process, in a process each, and our games."""


class Sb3Training:
    """SB3's PPO, one ``learn`` for each batch.

    Args:
        config: hyper-parameters and network.
        venv: what it is trained on; closed with this.
    """

    def __init__(self, config: TrainConfig, venv: VecEnv) -> None:
        self._venv, self._batch = venv, config.batch_steps
        model: Any = reference_ppo(config, venv, policy_kwargs(config.model.encoder))
        model.env.step = games = Timed(model.env.step)
        model.policy.forward = act = Timed(model.policy.forward)
        model.policy.predict_values = values = Timed(model.policy.predict_values)
        model.train = learn = Timed(model.train)
        self._timed = {"games": (games,), "inference": (act, values), "learn": (learn,)}
        self._model = model

    def warm_up(self) -> None:
        """A few updates."""
        self._learn(_WARM_UP_UPDATES)

    def run_round(self, seconds: float) -> Round:
        """Whole updates, until the time is over; the first is not measured."""
        self._learn(1)
        before = self._spent()
        elapsed, updates, began = 0.0, 0, time.perf_counter()
        while elapsed < seconds:
            self._learn(1)
            elapsed = time.perf_counter() - began
            updates += 1
        split = {activity: (now - before[activity]) / elapsed for activity, now in self._spent().items()}
        return Round(steps=updates * self._batch, seconds=elapsed, split=split)

    def _spent(self) -> dict[str, float]:
        """Seconds so far; the games' include waiting for the processes that play them."""
        return {activity: sum(timed.seconds for timed in parts) for activity, parts in self._timed.items()}

    def _learn(self, updates: int) -> None:
        self._model.learn(updates * self._batch, log_interval=None, reset_num_timesteps=False)

    def close(self) -> None:
        """Close the environments."""
        self._venv.close()


class Timed:
    """A function that adds up how long its calls take.

    Args:
        function: does the work.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.seconds = 0.0
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's answer."""
        began = time.perf_counter()
        answer = self._function(*args, **kwargs)
        self.seconds += time.perf_counter() - began
        return answer


class ReferenceExtractor(BaseFeaturesExtractor):
    """``ReferenceEncoder`` as SB3's features extractor.

    Args:
        observation_space: a Dict of Boxes: ``glyphs_crop`` and ``blstats``.
        sizes: fields of ``EncoderConfig``.
    """

    def __init__(self, observation_space: spaces.Space, sizes: Mapping[str, Any]) -> None:
        super().__init__(observation_space, sizes["hidden"])
        shapes = {key: spec.shape for key, spec in obs_specs(observation_space).items()}
        self.encoder = ReferenceEncoder(sizes, shapes)

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Features [N, hidden]."""
        return self.encoder(observations)


def policy_kwargs(config: EncoderConfig) -> dict[str, Any]:
    """One shared encoder, and no layers between it and the two linear heads."""
    return {
        "features_extractor_class": ReferenceExtractor,
        "features_extractor_kwargs": {"sizes": config.model_dump()},
        "net_arch": [],
        "normalize_images": False,
    }
