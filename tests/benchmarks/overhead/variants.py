"""Training with some of its parts left out: variants of a run, updated in turn in one process.

All variants play the same games with the same actions: the learning rate is next to nothing, so that all keep the
network that they began with. They take turns update by update, in an order drawn anew each time.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, PositiveInt

from agents.config import ModelConfig, PPOConfig
from agents.policy import TorchPolicy, weights_of
from agents.rollout import RolloutWorker
from envs.data import Config
from envs.seeding import TrainingSeeds
from envs.timing import PhaseTimer
from launch.bench.harness import in_turn
from launch.bench.training import REFERENCE_NETWORK, TrainBench
from launch.config.resolve import for_machine
from launch.config.train_config import TrainConfig
from launch.errors import UserError
from launch.processes.label_feed import ThreadFeed
from launch.processes.learning import Learning
from launch.processes.placement import SplitPlacement
from launch.processes.wiring import build_games, build_labeller, build_learning, build_model
from launch.processes.workers import LocalPool
from launch.runs.folder import RunFolder
from launch.runs.metrics import MetricsWriter
from launch.runs.progress import Silent
from launch.training.run import TrainingRun
from rewards.auto.language.admission import admit
from rewards.auto.program_teacher import RunPrograms
from rewards.inquiry import Inquiry
from rewards.oni.caption_teacher import CaptionTeacher
from rewards.oni.oni_kind import caption_model

NO_LEARNING = 1e-12
"""A learning rate with which all variants keep the network that they began with, and so play alike."""


class VariantsBench(Config):
    """Variants of a run that are updated in turn."""

    task: str = "MiniHack-Room-5x5-v0"
    """A task id."""
    updates: Annotated[int, Field(ge=2)] = 60
    """Updates of each variant that are measured."""
    batch: PositiveInt = 2048
    """Steps in an update, over all games."""
    games: PositiveInt = 16
    """Games side by side."""
    threads: PositiveInt = 1
    """Threads of the learner's arithmetic."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes games, weights and the order of turns."""
    ppo: PPOConfig = PPOConfig(minibatch=512, epochs=1, learning_rate=NO_LEARNING)
    model: ModelConfig = REFERENCE_NETWORK

    def train_config(self, changes: Mapping[str, Any]) -> TrainConfig:
        """The run with some fields changed, by dotted path.

        Raises:
            UserError: the flags do not fit together.
        """
        shared = {name: getattr(self, name) for name in ("task", "batch", "threads", "seed", "ppo", "model")}
        return TrainBench(**shared).train_config(self.games, changes)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a training loop has."""

    captions: bool = False
    """Messages are named and counted."""
    labels: bool = False
    """Captions are sent to the labeller; the update waits for its answers as ``labels.mode`` says."""
    metrics: bool = False
    """Everything is accounted for, and written every ``logging.interval_s``."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of ``TrainConfig`` by dotted path."""
    program: str | None = None
    """Source of a reward program."""


PHASES = ("games", "inference", "captions", "record", "labels", "reward_model", "score", "evidence", "learn")
"""Parts of an update that are timed by themselves; everything else is ``rest``."""


@dataclass(frozen=True)
class Spent:
    """What one update took."""

    wall_s: float
    cpu_s: float
    """Of all threads of the process."""
    phases: Mapping[str, float]
    """Wall clock of each of ``PHASES``, in seconds, and ``rest``."""


_WARM_UP_UPDATES = 3


class OverheadRun:
    """One variant; its games and network are its own.

    Args:
        variant: which parts it has.
        config: the run, with the variant's changes.
        folder: an empty folder for its files.
    """

    def __init__(self, variant: Variant, config: TrainConfig, folder: Path) -> None:
        with ExitStack() as stack:
            self.worker = worker = _worker(config, captions=variant.captions)
            stack.callback(worker.close)
            given = {} if variant.program is None else {"program": RunPrograms(chain=(admit(variant.program),))}
            learning = build_learning(config, worker.games.spec, given=given)
            stack.callback(learning.close)
            phases, teachers = PhaseTimer(), {}
            if variant.labels:
                teachers["oni"] = _caption_teacher(config, folder, phases if variant.metrics else learning.phases)
                stack.callback(teachers["oni"].close)
            self._update: Callable[[], object]
            self._write_line: Callable[[], None] | None = None
            self._times: Callable[[], Mapping[str, float]]
            if variant.metrics:
                held = stack.enter_context(RunFolder.create(folder, "run", config.model_dump_json()))
                writer = stack.enter_context(MetricsWriter(held.path, tensorboard=config.logging.tensorboard))
                placement = SplitPlacement(LocalPool(worker), learning)
                run = TrainingRun(config, held, placement, teachers, writer, Silent(), phases=phases)
                # Writing a line starts the times afresh.
                self._update, self._write_line, self._times = run.update, run._write_line, lambda: run.times
            else:
                loop = Loop(worker, learning, teachers.get("oni"))
                self._update, self._times = loop.update, lambda: loop.times
            self._interval_s = config.logging.interval_s
            self._stack = stack.pop_all()

    def update(self) -> Spent:
        """One update; of a line of metrics, the part that falls to it."""
        wall_s, cpu_s = _timed(self._update)
        phases = {phase: self._times().get(phase, 0.0) for phase in PHASES}
        if self._write_line is not None:
            line_wall_s, line_cpu_s = _timed(self._write_line)
            part = wall_s / self._interval_s
            wall_s, cpu_s = wall_s + part * line_wall_s, cpu_s + part * line_cpu_s
        return Spent(wall_s, cpu_s, phases | {"rest": wall_s - sum(phases.values())})

    def close(self) -> None:
        """End what was started."""
        self._stack.close()


def with_program(config: TrainConfig, source: str | None) -> TrainConfig:
    """The configuration with games that record what a program reads; as it is without one."""
    if source is None:
        return config
    program = admit(source)
    chosen = config.reward.program.replace(code=program.sha, fallback=(), columns=program.needed_columns)
    return config.replace(reward=config.reward.replace(program=chosen))


def update_in_turn(
    variants: Mapping[str, Variant], configs: Mapping[str, TrainConfig], *, updates: int, threads: int, seed: int
) -> dict[str, list[Spent]]:
    """Update all variants in turn, in an order drawn anew in each round.

    Args:
        variants: by name.
        configs: of each, with its changes.
        updates: of each variant that are measured, after a few that are not.
        threads: of the learner's arithmetic.
        seed: fixes the order of turns.

    Returns:
        What each update took, by variant.

    Raises:
        UserError: a configuration does not fit the task.
    """
    torch.set_num_threads(threads)
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="yendor-bench-")))
        updating: dict[str, Callable[[int], Spent]] = {}
        for name, variant in variants.items():
            folder = path / name
            folder.mkdir()
            try:
                run = OverheadRun(variant, for_machine(configs[name]), folder)
            except ValueError as error:
                raise UserError(str(error)) from None
            stack.callback(run.close)
            updating[name] = lambda _, run=run: run.update()
        order = np.random.default_rng(seed)
        in_turn(updating, 0, warm_up=_WARM_UP_UPDATES, order=order)
        print(f"{len(updating)} variants are warm")
        # What was built will stay: the collector need not look at it again while one of them is timed.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        return in_turn(updating, updates, warm_up=0, order=order)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall clock and of CPU time."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def _worker(config: TrainConfig, *, captions: bool) -> RolloutWorker:
    rollout = config.rollout
    games: Any = build_games(config, rollout.games_per_worker, TrainingSeeds(config.seed, 0, rollout.games_per_worker))
    if not captions:  # a worker names the messages of all games that have some
        games.spec = replace(games.spec, has_messages=False)
    model = build_model(config, games.spec, len(config.reward.streams))
    policy = TorchPolicy(model, torch.device("cpu"), config.ppo.precision)
    return RolloutWorker(games, policy, rollout.num_steps, config.seed, 0)


def _caption_teacher(config: TrainConfig, folder: Path, phases: PhaseTimer) -> CaptionTeacher:
    # Not the run's own questions: labels are asked for here even where nothing pays them.
    spec = config.labels.spec(asks_pairs=config.reward.oni.asks_pairs)
    feed = ThreadFeed(*build_labeller(config, str(folder / "labels.sqlite"), spec))
    inquiry = Inquiry(feed, "captions", waits=config.labels.mode == "barrier")
    return CaptionTeacher(caption_model(config.reward.oni, config.seed), inquiry, phases)


class Loop:
    """Collect, label, score, learn: what an update cannot do without, and nothing else.

    Args:
        worker: plays.
        learning: scores and learns.
        teacher: has the worker's captions labelled; None = nobody does.
    """

    def __init__(self, worker: RolloutWorker, learning: Learning, teacher: CaptionTeacher | None) -> None:
        self._worker, self._learning, self._teacher = worker, learning, teacher
        self.times: dict[str, float] = {}
        """Seconds by phase in the last update."""

    def update(self) -> None:
        """One update."""
        learner, phases = self._learning.learner, self._learning.phases
        collected = self._worker.collect()
        if self._teacher is not None:
            self._learning.take({"oni": self._teacher.update(collected.rollout.new_captions)})
        outputs = self._learning.score([collected])
        with phases.measure("learn"):
            learner.update([collected.rollout], outputs)
        self._worker.load(weights_of(learner.model), learner.version)
        self.times = {**collected.seconds, **phases.take()}


# -- costs ------------------------------------------------------------------------------------------


def cost(more_s: np.ndarray, update_s: np.ndarray, steps: int) -> dict[str, float]:
    """What a part costs, from pairs of updates with and without it.

    Args:
        more_s: [N] seconds that the update with it took longer.
        update_s: [N] seconds of the whole update with it.
        steps: environment steps in an update.

    Returns:
        ``share`` of the time with it, its 95 % interval ``low`` and ``high``, and ``us_per_step``.
    """
    low, high = median_interval(more_s)
    whole_s, more = float(np.median(update_s)), float(np.median(more_s))
    return {"share": more / whole_s, "low": low / whole_s, "high": high / whole_s, "us_per_step": more / steps * 1e6}


def median_interval(values: np.ndarray, seed: int = 0, samples: int = 10_000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the median of values [N]."""
    drawn = np.random.default_rng(seed).choice(values, (samples, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)
