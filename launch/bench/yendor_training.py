"""Our PPO as a contender: a training run that stops between rounds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from launch.bench.contender import Contender, Round
from launch.config.train import TrainConfig
from launch.runs.progress import Silent

_WARM_UP_UPDATES = 2
_OTHER = ("captions", "record", "score", "account")


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
            self._run = TrainingRun(config, folder, self._placement, None, writer, Silent())
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
        """Returns when what the workers have on order is played: they answer in order, and then stand still."""
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
