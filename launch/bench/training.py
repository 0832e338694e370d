"""Training speed of the three placements.

    yendor            one process: games and learner take turns
    yendor-split      Ray rollout workers play while the learner learns
    yendor-symmetric  Ray peers play and learn, and average their gradients

The defaults are the reference network: a 9x9 crop of glyphs and the bottom line statistics, embedding 32, two 3x3
convolutions of 32 channels, statistics through 64 twice, joined in 256, 0.9 million parameters; batches of 2,048 steps,
minibatches of 512, one epoch. Every round begins with one update that is not measured. All learn while they are
measured, so that episodes get shorter where a task is learned; ``--ppo.learning-rate 1e-12`` keeps all at the policy
that they began with.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from agents.config import EncoderConfig, ModelConfig, PPOConfig
from envs.data import Config
from envs.tasks import specs_of
from launch.bench.harness import Round, System, SystemSpec, compare
from launch.config.flags import validate
from launch.config.train_config import TrainConfig
from launch.errors import UserError, unknown_name
from launch.runs.progress import Silent

REFERENCE_NETWORK = ModelConfig(
    encoder=EncoderConfig(glyph_embedding=32, crop_channels=32, crop_stride=1, blstats_layers=2, hidden=256)
)
"""What public systems were measured with."""
OBS_KEYS = ("glyphs_crop", "blstats")
"""What it reads."""
_WARM_UP_UPDATES = 2
_OTHER = ("captions", "record", "score", "account")


class TrainBench(Config):
    """Steps per second of training, measured in turn."""

    task: str = "MiniHack-Room-5x5-v0"
    """A task id."""
    systems: str | None = None
    """What is measured, separated by commas; none = all of the list above."""
    rounds: PositiveInt = 5
    """Measurements of each."""
    seconds: Annotated[float, Field(gt=0)] = 10.0
    """Length of a measurement."""
    batch: PositiveInt = 2048
    """Steps in a batch, over all games."""
    games: PositiveInt = 16
    """Games side by side, over all workers."""
    workers: PositiveInt = 2
    """Processes that play, where there are several; the games are dealt over them."""
    max_policy_lag: Annotated[int, Field(ge=0, le=64)] = 1
    """Updates that yendor-split's rollouts may be old."""
    threads: PositiveInt = 1
    """Threads of the learner's arithmetic."""
    penalty_step: float = -0.001
    """Reward of a step in which game time stood still."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes games and weights."""
    ppo: PPOConfig = PPOConfig(minibatch=512, epochs=1)
    model: ModelConfig = REFERENCE_NETWORK

    def train_config(self, num_games: int, changes: Mapping[str, Any] | None = None) -> TrainConfig:
        """The run that is measured.

        Args:
            num_games: over all workers.
            changes: fields by dotted path (``rollout.num_workers``); without any, one process does everything.

        Raises:
            UserError: the flags do not fit together.
        """
        values: dict[str, Any] = {
            "preset": "bench",
            "seed": self.seed,
            "total_steps": 2**40,
            "threads": self.threads,
            "device": "cpu",
            "env": {"task": self.task, "obs_keys": OBS_KEYS, "penalty_step": self.penalty_step},
            "placement": "split",
            "rollout": {"num_workers": 0},
            "ppo": self.ppo.model_dump(),
            "model": self.model.model_dump(),
            "logging": {"tensorboard": False},
        }
        for path, value in (changes or {}).items():
            _put(values, path.split("."), value)
        if self.batch % num_games:
            raise UserError(f"batch {self.batch} cannot be dealt evenly over {num_games} games")
        num_workers = max(1, values["rollout"]["num_workers"])
        if num_games % num_workers:
            raise UserError(f"games {num_games} cannot be dealt evenly over workers {num_workers}")
        values["rollout"] |= {"games_per_worker": num_games // num_workers, "num_steps": self.batch // num_games}
        return validate(TrainConfig, values)

    def placements(self) -> dict[str, dict[str, Any]]:
        """Our ways to train: each one's name, and what its configuration has different, by dotted path."""
        return {
            "yendor": {"rollout.num_workers": 0},
            "yendor-split": {"rollout.num_workers": self.workers, "rollout.max_policy_lag": self.max_policy_lag},
            "yendor-symmetric": {"rollout.num_workers": self.workers, "placement": "symmetric"},
        }

    def chosen(self, known: Sequence[str], default: Sequence[str]) -> list[str]:
        """The names that ``systems`` lists, each once.

        Args:
            known: all that there are.
            default: chosen if nothing is listed.

        Raises:
            UserError: one is unknown.
        """
        names = [name.strip() for name in self.systems.split(",")] if self.systems else default
        for name in names:
            if name not in known:
                raise unknown_name("system", name, known)
        return list(dict.fromkeys(names))

    def placement_spec(self, name: str) -> TrainingSpec:
        """One of ``placements``, to be measured.

        Raises:
            UserError: the flags do not fit together.
        """
        return TrainingSpec(name, self.train_config(self.games, self.placements()[name]))


def measure(flags: TrainBench) -> tuple[str, dict[str, Any]]:
    """The table, and all that was measured.

    Raises:
        UserError: a system is unknown, the task cannot be played, or the flags do not fit together.
    """
    check_task(flags)
    known = list(flags.placements())
    specs: list[SystemSpec] = [flags.placement_spec(name) for name in flags.chosen(known, known)]
    return compare(specs, flags.rounds, flags.seconds)


def check_task(flags: TrainBench) -> None:
    """Refuse a task that cannot be played, before anything starts.

    Raises:
        UserError: says why.
    """
    try:
        specs_of(flags.train_config(flags.games).env)
    except ValueError as error:
        raise UserError(f"task: {error}") from None


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value


# -- what is measured -------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingSpec:
    """Our PPO, as ``yendor train`` runs it."""

    name: str
    config: TrainConfig
    is_reference: bool = False

    def build(self) -> System:
        """In this process."""
        return Training(self.config)


class Training:
    """A training run that stops between rounds.

    Args:
        config: the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        # In the process that is measured: torch and Ray take seconds to import, and memory.
        import torch

        from launch.config.resolve import for_machine
        from launch.processes.session import ray_session
        from launch.runs.folder import RunFolder
        from launch.runs.metrics import MetricsWriter
        from launch.training.driver import build_placement
        from launch.training.run import TrainingRun

        torch.set_num_threads(config.threads)
        self._config = config = for_machine(config)
        with ExitStack() as stack:
            path = stack.enter_context(tempfile.TemporaryDirectory(prefix="yendor-bench-"))
            folder = stack.enter_context(RunFolder.create(Path(path), "run", config.model_dump_json()))
            if config.rollout.num_workers:
                stack.enter_context(ray_session(None, config.rollout.num_workers + 1))
            self._placement = build_placement(config, _on_death)
            stack.callback(self._placement.close)
            writer = MetricsWriter(folder.path, tensorboard=False)
            stack.callback(writer.close)
            self._run = TrainingRun(config, folder, self._placement, {}, writer, Silent())
            self._stack = stack.pop_all()

    def warm_up(self) -> None:
        """A few updates."""
        for _ in range(_WARM_UP_UPDATES):
            self._run.update()
        self._rest()

    def run_round(self, seconds: float) -> Round:
        """Whole updates, until the time is over; not measured are the first ones, whose rollouts lay ready."""
        run = self._run
        for _ in range(1 + self._config.rollout.max_policy_lag):
            run.update()
        began, steps, before = time.perf_counter(), run.steps, dict(run.times)
        while (elapsed := time.perf_counter() - began) < seconds:
            run.update()
        shares = {phase: (spent - before[phase]) / elapsed for phase, spent in run.times.items()}
        self._rest()
        return Round(steps=run.steps - steps, seconds=elapsed, split=_split(self._config, shares))

    def _rest(self) -> None:
        """Returns when the workers' outstanding requests are answered: they answer in order, and then stand still."""
        self._placement.state_dict()

    def close(self) -> None:
        """End workers, session and folder."""
        self._stack.close()


def _split(config: TrainConfig, shares: Mapping[str, float]) -> dict[str, float]:
    """Shares of the wall clock by activity, from those by phase of ``TrainingRun.times``.

    With workers that only play, ``wait`` is the learner's, and the workers' shares come on top of it. Where the
    same process plays and learns, what is left of its time was spent waiting (for peers, and for the driver).
    """
    split = {activity: shares[activity] for activity in ("games", "inference", "learn")}
    split["other"] = sum(shares[phase] for phase in _OTHER if phase in shares)
    apart = config.placement == "split" and config.rollout.num_workers > 0
    split["wait"] = shares["wait"] if apart else max(0.0, 1.0 - sum(split.values()))
    return split


def _on_death(worker: int, cause: str) -> None:
    raise RuntimeError(f"rollout worker {worker} died: {cause}")
