"""Stable-Baselines3's PPO as a contender."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from launch.bench.contender import Contender, Round
from launch.config.train import TrainConfig

if TYPE_CHECKING:
    import gymnasium
    from stable_baselines3.common.vec_env import VecEnv

_WARM_UP_UPDATES = 2


@dataclass(frozen=True)
class Sb3Maker:
    """SB3's PPO over one kind of vector environment (a key of ``VEC_ENVS``)."""

    name: str
    config: TrainConfig
    kind: str
    is_reference: bool = True

    def build(self) -> Contender:
        """In this process."""
        import torch

        torch.set_num_threads(self.config.threads)
        return Sb3Training(self.config, VEC_ENVS[self.kind](self.config))


def _gym_envs(config: TrainConfig) -> list[Callable[[], gymnasium.Env]]:
    from launch.bench.gym_reference import training_env

    assert config.env.penalty_step is not None, "the benchmark sets it"
    return [partial(training_env, config.env.task, config.env.penalty_step)] * config.rollout.games_per_worker


def _dummy(config: TrainConfig) -> VecEnv:
    from stable_baselines3.common.vec_env import DummyVecEnv

    return DummyVecEnv(_gym_envs(config))


def _subproc(config: TrainConfig) -> VecEnv:
    from stable_baselines3.common.vec_env import SubprocVecEnv

    return SubprocVecEnv(_gym_envs(config))


def _games(config: TrainConfig) -> VecEnv:
    from launch.evaluation.reference import reference_env

    return reference_env(config)


VEC_ENVS: Mapping[str, Callable[[TrainConfig], Any]] = {
    "dummy": _dummy,
    "subproc": _subproc,
    "games": _games,
}
"""gymnasium's environments in one process, in a process each, and our games."""


class Sb3Training:
    """SB3's PPO, one ``learn`` for each batch.

    Args:
        config: hyper-parameters and network.
        venv: what it is trained on; closed with this.
    """

    def __init__(self, config: TrainConfig, venv: VecEnv) -> None:
        from launch.bench.sb3_policy import policy_kwargs
        from launch.evaluation.reference import reference_ppo

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
