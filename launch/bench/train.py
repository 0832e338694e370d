"""Training speed: our PPO beside Stable-Baselines3's, with the same network, batch, task and observations.

    yendor          one process: games and learner take turns
    yendor-ray      Ray rollout workers play while the learner learns
    sb3-dummy       SB3's PPO over gymnasium environments in one process (``DummyVecEnv``)
    sb3-subproc     ... over gymnasium environments in a process each (``SubprocVecEnv``)
    sb3-games       ... over our games (``GamesVecEnv``): what part of the difference is theirs

SB3 gets the environments in their cheap configuration: only the observation keys that the network reads, no
environment checker, no ``Monitor``. Every round begins with one update that is not measured.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from agents.config import ModelConfig, PPOConfig
from envs.data import Config
from launch.arguments import validate
from launch.bench.contender import Contender, Maker, Round, num_cores
from launch.config import TrainConfig
from launch.errors import UserError, unknown_name

if TYPE_CHECKING:
    import gymnasium
    from stable_baselines3.common.vec_env import VecEnv

OBS_KEYS = ("glyphs_crop", "blstats", "message")
"""Keys that registered environments and our games both have."""
_WARM_UP_UPDATES = 2

Positive = Annotated[int, Field(gt=0)]


class TrainBench(Config):
    """Steps per second of training, ours beside Stable-Baselines3's, measured in turn."""

    task: str = "MiniHack-Room-5x5-v0"
    """A MiniHack task id."""
    contenders: str = "yendor,yendor-ray,sb3-dummy,sb3-subproc"
    """Who is measured, separated by commas; sb3-games can be added."""
    rounds: Positive = 5
    """Measurements of each."""
    seconds: Annotated[float, Field(gt=0)] = 10.0
    """Length of a measurement."""
    games: Positive = 16
    """Games side by side."""
    num_steps: Positive = 128
    """Steps of each game in a batch."""
    workers: Positive = 2
    """Ray rollout workers of yendor-ray; the games are dealt over them."""
    max_policy_lag: Annotated[int, Field(ge=0, le=64)] = 1
    """Updates that yendor-ray's rollouts may be old."""
    threads: Annotated[int, Field(gt=0)] = 1
    """Threads of our learner's arithmetic."""
    sb3_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of Stable-Baselines3's arithmetic; 0 = as many as cores, torch's own choice."""
    penalty_step: float = -0.001
    """Reward of a step in which game time stood still."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes games and weights."""
    ppo: PPOConfig = PPOConfig()
    model: ModelConfig = ModelConfig()

    def train_config(self, num_workers: int) -> TrainConfig:
        """The run that is measured, with its games in one process or dealt over workers.

        Raises:
            UserError: the flags do not fit together.
        """
        values = {
            "preset": "bench",
            "seed": self.seed,
            "total_steps": 2**40,
            "threads": self.threads,
            "env": {"task": self.task, "obs_keys": OBS_KEYS, "penalty_step": self.penalty_step},
            "rollout": {
                "num_workers": num_workers,
                "games_per_worker": self.games // max(1, num_workers),
                "num_steps": self.num_steps,
                "max_policy_lag": self.max_policy_lag if num_workers else 0,
            },
            "ppo": self.ppo,
            "model": self.model,
            "logging": {"tensorboard": False},
        }
        return validate(TrainConfig, values)


def makers(flags: TrainBench) -> list[Maker]:
    """The contenders that the flags name.

    Raises:
        UserError: one is unknown, the task is not of MiniHack, or the flags do not fit together.
    """
    if not flags.task.startswith("MiniHack-"):
        raise UserError(f"task '{flags.task}': only MiniHack's environments show {OBS_KEYS[0]} by themselves")
    if flags.games % flags.workers:
        raise UserError(f"games {flags.games} cannot be dealt evenly over workers {flags.workers}")
    if flags.model.core != "none":
        raise UserError(f"model.core is '{flags.model.core}', which Stable-Baselines3 has not; allowed: none")
    games = flags.train_config(0).env
    try:
        games.specs()
    except ValueError as error:
        raise UserError(f"task: {error}") from None
    sb3 = flags.train_config(0).model_copy(update={"threads": flags.sb3_threads or num_cores()})
    known: Mapping[str, Maker] = {
        "yendor": YendorMaker("yendor", flags.train_config(0)),
        "yendor-ray": YendorMaker("yendor-ray", flags.train_config(flags.workers)),
        "sb3-dummy": Sb3Maker("sb3-dummy", sb3, "dummy"),
        "sb3-subproc": Sb3Maker("sb3-subproc", sb3, "subproc"),
        "sb3-games": Sb3Maker("sb3-games", sb3, "games", is_reference=False),
    }
    names = [name.strip() for name in flags.contenders.split(",")]
    for name in names:
        if name not in known:
            raise unknown_name("contender", name, known)
    return [known[name] for name in dict.fromkeys(names)]


@dataclass(frozen=True)
class YendorMaker:
    """Our PPO, as ``yendor train`` runs it."""

    name: str
    config: TrainConfig
    is_reference: bool = False

    def build(self) -> Contender:
        """In this process."""
        return YendorTraining(self.config)


class YendorTraining:
    """A training run that stops between rounds.

    Args:
        config: the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        import torch

        from agents.policy import weights_of
        from launch.metrics import MetricsWriter
        from launch.ray_session import ray_session
        from launch.run_folder import RunFolder
        from launch.train import games_spec
        from launch.training_run import TrainingRun
        from launch.wiring import build_learner, build_mix, build_worker
        from launch.workers import LocalPool, RayPool
        from rewards.labels.table import LabelTable

        torch.set_num_threads(config.threads)
        self._stack = stack = ExitStack()
        path = stack.enter_context(tempfile.TemporaryDirectory(prefix="yendor-bench-"))
        folder = stack.enter_context(RunFolder.create(Path(path), "run", config.model_dump_json()))
        table = LabelTable()
        mix = build_mix(config, table)
        if config.rollout.num_workers:
            stack.enter_context(ray_session(None, config.rollout.num_workers + 1))
            pool, spec = RayPool(config, len(mix.streams), _on_death), games_spec(config)
        else:
            worker = build_worker(config, 0, len(mix.streams))
            pool, spec = LocalPool(worker), worker.games.spec
        stack.callback(pool.close)
        learner = build_learner(config, spec, mix)
        writer = MetricsWriter(folder.path, tensorboard=False)
        stack.callback(writer.close)
        self._pool = pool
        self._run = TrainingRun(config, folder, pool, None, table, mix, learner, writer, _Silent())
        pool.publish(weights_of(learner.model), learner.version)

    def warm_up(self) -> None:
        """A few updates."""
        for _ in range(_WARM_UP_UPDATES):
            self._run.update()
        self._pool.state_dict()

    def run_round(self, seconds: float) -> Round:
        """Whole updates, until the time is over."""
        run = self._run
        run.update()
        began, steps, times = time.perf_counter(), run.steps, dict(run.times)
        while (elapsed := time.perf_counter() - began) < seconds:
            run.update()
        spent = {name: (now - times[name]) / elapsed for name, now in run.times.items()}
        # Answers when what the workers have on order is played: they then stand still.
        self._pool.state_dict()
        split = {"collect": spent["wait_s"], "learn": spent["learn_s"]}
        return Round(steps=run.steps - steps, seconds=elapsed, split=split)

    def close(self) -> None:
        """End workers, session and folder."""
        self._stack.close()


def _on_death(worker: int, cause: str) -> None:
    raise RuntimeError(f"rollout worker {worker} died: {cause}")


class _Silent:
    """Shows nothing."""

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


@dataclass(frozen=True)
class Sb3Maker:
    """SB3's PPO over one kind of vector environment."""

    name: str
    config: TrainConfig
    kind: str
    is_reference: bool = True

    def build(self) -> Contender:
        """In this process."""
        import torch

        torch.set_num_threads(self.config.threads)
        return Sb3Training(self.config, _VEC_ENVS[self.kind](self.config))


def _gym_env(task: str, penalty_step: float | None) -> gymnasium.Env:
    import gymnasium

    from envs import registered  # noqa: F401  (imports minihack, whose tasks register themselves)

    return gymnasium.make(task, observation_keys=OBS_KEYS, penalty_step=penalty_step, disable_env_checker=True)


def _gym_envs(config: TrainConfig) -> list[Callable[[], gymnasium.Env]]:
    env = partial(_gym_env, config.env.task, config.env.penalty_step)
    return [env] * config.rollout.games_per_worker


def _dummy(config: TrainConfig) -> VecEnv:
    from stable_baselines3.common.vec_env import DummyVecEnv

    return DummyVecEnv(_gym_envs(config))


def _subproc(config: TrainConfig) -> VecEnv:
    from stable_baselines3.common.vec_env import SubprocVecEnv

    return SubprocVecEnv(_gym_envs(config))


def _games(config: TrainConfig) -> VecEnv:
    from launch.reference import reference_env

    return reference_env(config)


_VEC_ENVS: Mapping[str, Callable[[TrainConfig], Any]] = {
    "dummy": _dummy,
    "subproc": _subproc,
    "games": _games,
}


class Sb3Training:
    """SB3's PPO, one ``learn`` a round.

    Args:
        config: hyper-parameters and network.
        venv: what it is trained on; closed with this.
    """

    def __init__(self, config: TrainConfig, venv: VecEnv) -> None:
        from launch.reference import reference_ppo

        self._venv, self._batch = venv, config.batch_steps
        self._model = reference_ppo(config, venv)

    def warm_up(self) -> None:
        """A few updates."""
        self._learn(_WARM_UP_UPDATES)

    def run_round(self, seconds: float) -> Round:
        """Whole updates, until the time is over."""
        self._learn(1)
        collect_s = elapsed = 0.0
        updates = 0
        began = time.perf_counter()
        while elapsed < seconds:
            collect_s += self._learn(1)
            elapsed = time.perf_counter() - began
            updates += 1
        share = collect_s / elapsed
        return Round(steps=updates * self._batch, seconds=elapsed, split={"collect": share, "learn": 1 - share})

    def _learn(self, updates: int) -> float:
        """Seconds of it that went into collecting."""
        from launch.bench.sb3_clock import CollectClock

        clock = CollectClock()
        self._model.learn(
            updates * self._batch,
            clock,
            log_interval=None,  # pyright: ignore[reportArgumentType]
            reset_num_timesteps=False,
        )
        return clock.collect_s

    def close(self) -> None:
        """Close the environments."""
        self._venv.close()
