"""The loop of one run, update after update, over the parts that ``launch.training.driver`` builds and closes.

A checkpoint stands between rollouts: everything that was collected has been learned from, so that games,
rewards' memories of them and sums over them agree.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from envs.files import write_atomic
from envs.statistics import spearman
from envs.timing import PhaseTimer
from launch.config.train_config import TrainConfig
from launch.processes.learning import UpdateReport
from launch.processes.ledger import CaptionLedger, RecentSums
from launch.processes.lifecycle import StopRequest
from launch.processes.placement import Placement
from launch.processes.wiring import PROFILED_SPANS
from launch.runs import checkpoint as checkpoints
from launch.runs.folder import RunFolder, installed_versions
from launch.runs.metrics import MetricsWriter, WindowedEpisodes
from launch.runs.profile import Profile
from launch.runs.progress import Progress
from rewards.teacher import Teacher

CAPTIONS_FILE = "captions.json"
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """How a run ended."""

    steps: int
    updates: int
    elapsed_s: float
    weights_sha256: str
    """Of every weight, in the order of their names: equal runs have equal hashes."""
    metrics: Mapping[str, float]
    stopped_by: str | None
    """Name of the signal that ended the run early; None if it reached its steps."""


class TrainingRun:
    """The loop of one run: collects, teaches, learns, reports and saves.

    Args:
        config: the run's.
        folder: where it is written.
        placement: plays, scores and learns.
        teachers: of the rewards that have one, by kind; built with this run's ``ledger`` and ``phases``.
        writer: takes metrics.
        progress: shows metrics and events.
        ledger: of the captions; None = a new one.
        phases: where the driver's time is counted; None = by itself.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        placement: Placement,
        teachers: Mapping[str, Teacher],
        writer: MetricsWriter,
        progress: Progress,
        ledger: CaptionLedger | None = None,
        phases: PhaseTimer | None = None,
    ) -> None:
        self.config, self.folder = config, folder
        self.placement, self.teachers = placement, teachers
        self.writer, self.progress = writer, progress
        self.ledger, self.phases = ledger or CaptionLedger(), phases or PhaseTimer()
        self.steps = self.updates = 0
        self.phases.spans_left = PROFILED_SPANS if config.profile else 0
        self._profile = Profile(folder.path) if config.profile else None
        self.episodes, self.part_sums = WindowedEpisodes(), RecentSums()
        self.times: dict[str, float] = {}
        """Seconds spent in each phase since the last line of metrics."""
        self._elapsed_before_s = 0.0
        self._started_s = self._line_s = self._saved_s = time.monotonic()
        self._line_steps = self._line_updates = self._saved_updates = 0
        self._last: dict[str, float] = {}

    def until(self, stop: StopRequest) -> TrainSummary:
        """Update after update, until the steps are done or a signal arrives."""
        if self.steps == 0:
            for teacher in self.teachers.values():
                teacher.begin()
        self._log_events()
        began_at = self.updates
        while self.steps < self.config.total_steps and stop.signal is None:
            self.update()
            if time.monotonic() - self._line_s >= self.config.logging.interval_s:
                self._write_line()
            if self._is_time_to_save():
                self.save()
        if self.updates > began_at:
            self.save()
        if self.updates > self._line_updates:
            self._write_line()
        return self._finish(stop)

    def _log_events(self) -> None:
        for teacher in self.teachers.values():
            for event in teacher.events():
                self.folder.event(event.kind, step=self.steps, **event.fields)
                if event.note is not None:
                    self.progress.note(event.note)

    def update(self) -> None:
        """Collect a batch, score it, learn from it."""
        with self.phases.measure("wait"):
            captions = self.placement.collect()
        self._learn_from(captions)

    def _learn_from(self, captions: Mapping[int, str]) -> None:
        self.ledger.texts.update(captions)
        news = {name: own for name, teacher in self.teachers.items() if (own := teacher.update(captions)) is not None}
        share = min(1.0, self.steps / self.config.total_steps)
        with self.phases.measure("update"):
            reports = self.placement.learn(news, share)
        for phase, seconds in self.phases.take().items():
            self._count_time(phase, seconds)
        if reports:  # else a death undid it
            self.updates += 1
            for report in reports:
                self._account(report)
            for name, teacher in self.teachers.items():
                teacher.observe([own for report in reports for own in report.evidence.get(name, ())])
            self._last = self._means(reports)
        self._log_events()
        if reports and self._profile is not None:
            spans = [*(report.spans for report in reports), {"driver": self.phases.take_spans()}]
            self._profile.add(spans, sum(report.steps for report in reports))

    def _count_time(self, phase: str, seconds: float) -> None:
        self.times[phase] = self.times.get(phase, 0.0) + seconds

    def _account(self, report: UpdateReport) -> None:
        self.steps += report.steps
        self.episodes.add(report.episodes)
        self.part_sums.add(report.part_sums)
        for tally in report.captions:
            self.ledger.add(tally)

    def _value_of(self, caption: int) -> float | None:
        """What a caption is worth to the first reward that can say."""
        values = (teacher.caption_value(caption) for teacher in self.teachers.values())
        return next((value for value in values if value is not None), None)

    def _means(self, reports: Sequence[UpdateReport]) -> dict[str, float]:
        """Metrics of one update, over its learners."""
        for phase in dict.fromkeys(phase for report in reports for phase in report.seconds):
            self._count_time(phase, float(np.mean([report.seconds.get(phase, 0.0) for report in reports])))
        learned = [report.learned for report in reports]
        found = {f"policy/{name}": float(np.mean([own[name] for own in learned])) for name in learned[0]}
        for name in reports[0].parts:
            totals, valid, steps = (sum(x) for x in zip(*(report.parts[name] for report in reports), strict=True))
            found[f"rewards/{name}/valid"] = valid / steps
            if valid:
                found[f"rewards/{name}/mean"] = totals / valid
        return found

    def _write_line(self) -> None:
        now, updates = time.monotonic(), self.updates - self._line_updates
        metrics = dict(self._last) | self.episodes.metrics()
        metrics |= {f"rewards/{name}/episode_sum": value for name, value in self.part_sums.metrics().items()}
        for teacher in self.teachers.values():
            metrics = {**teacher.metrics(), **metrics}  # of two that share a labeller's figures, the first's
        metrics |= return_correlations(self.part_sums, self.episodes, self.config.reward.paid)
        metrics |= {f"time/{name}_s": seconds / max(1, updates) for name, seconds in self.times.items()}
        metrics["time/steps_per_s"] = (self.steps - self._line_steps) / max(1e-9, now - self._line_s)
        metrics["time/elapsed_s"] = self.elapsed_s
        metrics["workers/deaths"] = float(self.placement.deaths)
        metrics["rollout/dropped"] = float(self.placement.dropped_rollouts)
        self.writer.write(self.steps, metrics)
        self.progress.update(self.steps, metrics)
        self.times = {}
        self._line_s, self._line_steps, self._line_updates = now, self.steps, self.updates
        self._last = metrics

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began, without the pauses between resumes."""
        return self._elapsed_before_s + time.monotonic() - self._started_s

    def _is_time_to_save(self) -> bool:
        when = self.config.checkpoint
        if when.interval_updates is not None:
            return self.updates - self._saved_updates >= when.interval_updates
        return time.monotonic() - self._saved_s >= when.interval_s

    def save(self) -> None:
        """Write a checkpoint, and the captions beside it.

        What the workers are playing is learned from first: a checkpoint stands between rollouts, so that games,
        rewards' memories of them and sums over them agree.
        """
        for captions in self.placement.drain():
            self._learn_from(captions)
        state = {
            "steps": self.steps,
            "updates": self.updates,
            "elapsed_s": self.elapsed_s,
            "placement": self.placement.state_dict(),
            "episodes": self.episodes.state_dict(),
            "ledger": self.ledger.state_dict(),
            "part_sums": self.part_sums.state_dict(),
            "metrics": self._last,
            "teachers": {name: teacher.state_dict() for name, teacher in self.teachers.items()},
        }
        path = checkpoints.save(
            self.folder.path,
            self.steps,
            {"model": self.placement.weights()},
            state,
            keep=self.config.checkpoint.keep,
            versions=installed_versions(),
        )
        captions = json.dumps(self.ledger.most_frequent(self._value_of), indent=1)
        write_atomic(self.folder.path / CAPTIONS_FILE, captions)
        for teacher in self.teachers.values():
            for name, text in teacher.documents().items():
                write_atomic(self.folder.path / name, text)
        self.folder.event("checkpoint", step=self.steps, path=path.name)
        for worker in self.placement.recycle(state["placement"]):
            self.folder.event("worker_recycled", step=self.steps, worker=worker)
        self._saved_s, self._saved_updates = time.monotonic(), self.updates

    def restore(self, saved: checkpoints.Checkpoint) -> None:
        """Go on from a checkpoint; captions that were still unlabelled are asked for again."""
        state = saved.state
        self.steps, self.updates = int(state["steps"]), int(state["updates"])
        self._elapsed_before_s = float(state["elapsed_s"])
        self._line_steps, self._line_updates, self._saved_updates = self.steps, self.updates, self.updates
        self.episodes.load_state_dict(state["episodes"])
        self.ledger.load_state_dict(state["ledger"])
        self.part_sums.load_state_dict(state["part_sums"])
        self.placement.load_state_dict(state["placement"], saved.tensors["model"])
        self._last = dict(state["metrics"])
        for name, teacher in self.teachers.items():
            teacher.load_state_dict(state["teachers"][name])
        self.folder.event("resumed", step=self.steps, checkpoint=saved.path.name)
        self.progress.note(f"resumed at step {self.steps:,} from {saved.path.name}")

    def _finish(self, stop: StopRequest) -> TrainSummary:
        if self._profile is not None and not self._profile.is_over:
            self._profile.write()
        summary = TrainSummary(
            steps=self.steps,
            updates=self.updates,
            elapsed_s=self.elapsed_s,
            weights_sha256=weights_sha256(self.placement.weights()),
            metrics=self._last,
            stopped_by=None if stop.signal is None else stop.signal.name,
        )
        self.folder.event("stopped" if summary.stopped_by else "finished", step=self.steps)
        text = json.dumps({**summary.__dict__, "metrics": dict(summary.metrics)}, indent=1)
        write_atomic(self.folder.path / SUMMARY_FILE, text)
        return summary


def return_correlations(sums: RecentSums, episodes: WindowedEpisodes, names: Iterable[str]) -> dict[str, float]:
    """Spearman's rank correlation of what each reward paid the last episodes with what the environment did.

    Args:
        sums: of the reward parts, over the same episodes.
        episodes: the last ones.
        names: of the rewards that are paid; the environment's own is left out.

    Returns:
        By the metrics' names; none of a reward before the first episode has ended, and while all were paid, or worth,
        the same.
    """
    returns = np.array(episodes.returns)
    paid = {name: sums.of(name) for name in names if name != "env"}
    found = {name: spearman(np.array(own), returns) for name, own in paid.items() if own}
    return {f"rewards/{name}/return_correlation": value for name, value in found.items() if value is not None}


def weights_sha256(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of every weight, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()
