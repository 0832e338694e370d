"""Training with some of its parts left out, update by update, in this process."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.policy import TorchPolicy, weights_of
from agents.rollout import RolloutWorker
from envs.phases import Phases
from envs.seeding import TrainingSeeds
from launch.config.resolve import for_machine
from launch.config.train import TrainConfig
from launch.errors import UserError
from launch.processes.label_feed import LabelFeed, ThreadFeed
from launch.processes.placement import SplitPlacement
from launch.processes.workers import LocalPool
from launch.runs.folder import RunFolder
from launch.runs.metrics import MetricsWriter
from launch.runs.progress import Silent
from launch.training.annotation import Annotation
from launch.training.learning import Learning, Lessons
from launch.training.programs import RunPrograms
from launch.training.run import TrainingRun
from launch.training.wiring import build_caption_model, build_games, build_labeller, build_learning, build_model
from rewards.auto.admission import admit


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


PHASES = ("games", "inference", "captions", "record", "labels", "reward_model", "score", "segments", "learn")
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
            programs = RunPrograms(chain=() if variant.program is None else (admit(variant.program),))
            learning = build_learning(config, worker.games.spec, programs=programs)
            stack.callback(learning.close)
            feed = None
            if variant.labels:
                feed = ThreadFeed(*build_labeller(config, str(folder / "labels.sqlite")))
                stack.callback(feed.close)
            self._update: Callable[[], object]
            self._write_line: Callable[[], None] | None = None
            self._times: Callable[[], Mapping[str, float]]
            if variant.metrics:
                held = stack.enter_context(RunFolder.create(folder, "run", config.model_dump_json()))
                writer = stack.enter_context(MetricsWriter(held.path, tensorboard=config.logging.tensorboard))
                placement = SplitPlacement(LocalPool(worker), learning)
                run = TrainingRun(config, held, placement, feed, writer, Silent())
                # Writing a line starts the times afresh.
                self._update, self._write_line, self._times = run.update, run._write_line, lambda: run.times
            else:
                loop = Loop(worker, learning, None if feed is None else _annotation(config, feed, learning.phases))
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
    env = config.env.model_copy(update={"features": program.needed_columns})
    reward = config.reward.model_copy(update={"program": program.sha})
    return config.model_copy(update={"env": env, "reward": reward})


def take_turns(
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
        runs: dict[str, OverheadRun] = {}
        for name, variant in variants.items():
            folder = path / name
            folder.mkdir()
            try:
                runs[name] = OverheadRun(variant, for_machine(configs[name]), folder)
            except ValueError as error:
                raise UserError(str(error)) from None
            stack.callback(runs[name].close)
        order = np.random.default_rng(seed)
        for _ in range(_WARM_UP_UPDATES):
            _round(runs, order)
        print(f"{len(runs)} variants are warm")
        # What was built will stay: the collector need not look at it again in somebody's turn.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        rounds = [_round(runs, order) for _ in range(updates)]
    return {name: [spent[name] for spent in rounds] for name in runs}


def _round(runs: Mapping[str, OverheadRun], order: np.random.Generator) -> dict[str, Spent]:
    names = list(runs)
    return {names[i]: runs[names[i]].update() for i in order.permutation(len(names))}


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall clock and of CPU time."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def _worker(config: TrainConfig, *, captions: bool) -> RolloutWorker:
    rollout = config.rollout
    games: Any = build_games(config, rollout.games_per_worker, TrainingSeeds(config.seed, 0, rollout.games_per_worker))
    if not captions:  # a worker names the messages of all games that say they give some
        games.spec = replace(games.spec, has_messages=False)
    model = build_model(config, games.spec, len(config.reward.streams))
    policy = TorchPolicy(model, torch.device("cpu"), config.ppo.precision)
    return RolloutWorker(games, policy, rollout.num_steps, config.seed, 0)


def _annotation(config: TrainConfig, feed: LabelFeed, phases: Phases) -> Annotation:
    waits = config.labels.mode == "barrier"
    return Annotation(feed, build_caption_model(config), waits=waits, phases=phases, on_outage=lambda problem: None)


class Loop:
    """Collect, label, score, learn: what an update cannot do without, and nothing else.

    Args:
        worker: plays.
        learning: scores and learns.
        annotation: has the worker's captions labelled; None = nobody does.
    """

    def __init__(self, worker: RolloutWorker, learning: Learning, annotation: Annotation | None) -> None:
        self._worker, self._learning, self._annotation = worker, learning, annotation
        self.times: dict[str, float] = {}
        """Seconds by phase in the last update."""

    def update(self) -> None:
        """One update."""
        learner, phases = self._learning.learner, self._learning.phases
        collected = self._worker.collect()
        if self._annotation is not None:
            self._learning.take(Lessons(captions=self._annotation.update(collected.rollout.new_captions)))
        outputs = self._learning.score([collected])
        with phases.measure("learn"):
            learner.update([collected.rollout], outputs)
        self._worker.load(weights_of(learner.model), learner.version)
        self.times = {**collected.seconds, **phases.take()}
