"""One run's moving parts, update after update: what ``launch.training.driver`` sets up and lets go.

A checkpoint stands between rollouts: everything that was collected has been learned from, so that games,
rewards' memories of them and sums over them agree.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from envs.actions import union_of_names
from envs.files import write_atomic
from envs.phases import Phases
from launch.config.train import TrainConfig
from launch.processes.label_feed import LabelFeed
from launch.processes.lifecycle import StopRequest
from launch.processes.placement import Placement
from launch.runs import checkpoint as checkpoints
from launch.runs.folder import RunFolder, installed_versions
from launch.runs.metrics import MetricsWriter, WindowedEpisodes
from launch.runs.profile import Profile
from launch.runs.progress import Progress
from launch.training.annotation import Annotation
from launch.training.judging import Judging
from launch.training.learning import Lessons, UpdateReport
from launch.training.ledger import CaptionLedger, RecentSums
from launch.training.programs import Quarantine, Quarantines, RunAudit
from launch.training.wiring import PROFILED_SPANS, build_caption_model, build_heron_trainer
from rewards.heron.config import TreeConfig
from rewards.heron.human import pairs_in_file
from rewards.heron.report import REPORT_FILE
from rewards.heron.scorer import Scorer
from rewards.ranks import spearman

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
    """One run's moving parts, update after update.

    Args:
        config: the run's.
        folder: where it is written.
        placement: plays, scores and learns.
        feed: the labeller; None where no reward asks for labels.
        writer: takes metrics.
        progress: told of metrics and events.
        play_feed: the labeller of pairs of segments; None where HERON's model learns from others.
        quarantines: of reward programs, as the run's events tell them.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        placement: Placement,
        feed: LabelFeed | None,
        writer: MetricsWriter,
        progress: Progress,
        play_feed: LabelFeed | None = None,
        quarantines: Sequence[Quarantine] = (),
    ) -> None:
        self.config, self.folder = config, folder
        self.placement = placement
        self.writer, self.progress = writer, progress
        self.steps = self.updates = 0
        self.phases = Phases()
        self.phases.spans_left = PROFILED_SPANS if config.profile else 0
        self._profile = Profile(folder.path) if config.profile else None
        self.annotation = None if feed is None else self._annotation(feed)
        self.heron = build_heron_trainer(config)
        self.judging = None if play_feed is None else self._judging(play_feed)
        audit = RunAudit(folder.path, folder.run_id, progress.note)
        self.quarantines = Quarantines(quarantines, folder.event, audit, progress.note)
        self._dead_factors: set[str] = set()
        """Factors of which the log says that they are constant."""
        self.episodes = WindowedEpisodes()
        self.ledger, self.part_sums = CaptionLedger(), RecentSums()
        self.times: dict[str, float] = {}
        """Seconds spent in each phase since the last line of metrics."""
        self._elapsed_before_s = 0.0
        self._started_s = self._line_s = self._saved_s = time.monotonic()
        self._line_steps = self._line_updates = self._line_labels = self._saved_updates = 0
        self._last: dict[str, float] = {}

    def _annotation(self, feed: LabelFeed) -> Annotation:
        return Annotation(
            feed,
            build_caption_model(self.config),
            waits=self.config.labels.mode == "barrier",
            phases=self.phases,
            on_outage=partial(self._on_outage, "captions"),
        )

    def _judging(self, feed: LabelFeed) -> Judging:
        heron = self.config.reward.heron
        assert isinstance(heron, TreeConfig) and self.heron is not None, "only a model of preferences asks for them"
        return Judging(
            self.heron,
            heron.table(),
            feed,
            pairs_per_update=heron.judges.pairs_per_update,
            seed=self.config.seed,
            waits=self.config.labels.mode == "barrier",
            phases=self.phases,
            on_outage=partial(self._on_outage, "play"),
        )

    def _on_outage(self, about: str, problem: str | None) -> None:
        if problem is None:
            self.folder.event("labels_resumed", step=self.steps, about=about)
            self.progress.note(f"labels of {about} come again")
        else:
            self.folder.event("labels_stopped", step=self.steps, about=about, cause=problem)
            self.progress.note(f"{problem}; training goes on with the labels of {about} there are")

    def until(self, stop: StopRequest) -> TrainSummary:
        """Update after update, until the steps are done or a signal came."""
        if self.annotation is not None and self.steps == 0:
            self.annotation.begin()
            self._line_labels = self.annotation.num_known
        if self.steps == 0:
            self._take_human_preferences()
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

    def _take_human_preferences(self) -> None:
        """Once, at the beginning; from then on they are part of what is saved."""
        if self.heron is None:
            return
        heron = self.config.reward.heron
        assert isinstance(heron, TreeConfig)
        pairs = pairs_in_file(heron, union_of_names(self.config.env.specs()))
        if pairs is not None:
            self.heron.take(pairs)
            self.folder.event("human_preferences", step=self.steps, pairs=len(pairs))

    def update(self) -> None:
        """Collect a batch, score it, learn from it."""
        with self.phases.measure("wait"):
            captions = self.placement.collect()
        self._learn_from(captions)

    def _learn_from(self, captions: Mapping[int, str]) -> None:
        self.ledger.texts.update(captions)
        if self.judging is not None:
            self.judging.update(self.ledger.texts)
        lessons = Lessons(
            captions=() if self.annotation is None else self.annotation.update(captions),
            scorer=self._preferences_learned(),
            quarantined=self.quarantines.take(),
        )
        share = min(1.0, self.steps / self.config.total_steps)
        with self.phases.measure("update"):
            reports = self.placement.learn(lessons, share)
        for phase, seconds in self.phases.take().items():
            self._count_time(phase, seconds)
        if not reports:  # a death undid it
            return
        self.updates += 1
        for report in reports:
            self._account(report)
        self.quarantines.add([one for report in reports for one in report.quarantined], self.steps)
        self._last = self._means(reports)
        if self._profile is not None:
            spans = [*(report.spans for report in reports), {"driver": self.phases.take_spans()}]
            self._profile.add(spans, sum(report.steps for report in reports))

    def _preferences_learned(self) -> Scorer | None:
        """A new version of HERON's reward, from the play up to the last update."""
        if self.heron is None:
            return None
        with self.phases.measure("reward_model"):
            scorer = self.heron.update()
        if scorer is not None and scorer.version == 1:
            self.folder.event("heron_begins", step=self.steps, margins=self.heron.margins)
        return scorer

    def _tell_dead_factors(self) -> None:
        """Factors that never differ, and those that have begun to."""
        assert self.heron is not None
        dead = set(self.heron.dead_factors)
        for name in sorted(dead - self._dead_factors):
            self.folder.event("factor_dead", step=self.steps, factor=name)
            self.progress.note(f"factor '{name}' has been the same in all segments so far: its level decides nothing")
        for name in sorted(self._dead_factors - dead):
            self.folder.event("factor_alive", step=self.steps, factor=name)
        self._dead_factors = dead

    def _count_time(self, phase: str, seconds: float) -> None:
        self.times[phase] = self.times.get(phase, 0.0) + seconds

    def _account(self, report: UpdateReport) -> None:
        self.steps += report.steps
        self.episodes.add(report.episodes)
        self.part_sums.add(report.part_sums)
        for tally in report.captions:
            self.ledger.add(tally)
        if self.annotation is not None:
            self.annotation.count(report.captions)
        if self.heron is not None:
            for segments in report.segments:
                self.heron.add(segments)

    def _value_of(self, caption: int) -> float | None:
        return None if self.annotation is None else self.annotation.model.value(caption)

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
        if self.annotation is not None:
            known, spoken = (sum(x) for x in zip(*(report.covered for report in reports), strict=True))
            found["labels/coverage"] = known / spoken if spoken else 1.0
        return found

    def _write_line(self) -> None:
        now, updates = time.monotonic(), self.updates - self._line_updates
        metrics = dict(self._last) | self.episodes.metrics()
        metrics |= {f"rewards/{name}/episode_sum": value for name, value in self.part_sums.metrics().items()}
        if self.annotation is not None:
            self.annotation.ask_again()
            metrics |= self.annotation.metrics()
            known = self.annotation.num_known
            metrics["labels/labels_per_s"] = (known - self._line_labels) / max(1e-9, now - self._line_s)
            self._line_labels = known
        if self.judging is not None:
            self.judging.ask_again()
            metrics |= {f"heron/{name}": value for name, value in self.judging.metrics().items()}
            if self.annotation is None:
                metrics |= {f"labels/{name}": value for name, value in self.judging.labeller_metrics().items()}
        if self.heron is not None:
            metrics |= {f"heron/{name}": value for name, value in self.heron.metrics().items()}
            self._tell_dead_factors()
        correlation = return_correlation(self.part_sums, self.episodes)
        if correlation is not None:
            metrics["heron/return_correlation"] = correlation
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
            "annotation": None if self.annotation is None else self.annotation.state_dict(),
            "heron": None if self.heron is None else self.heron.state_dict(),
            "judging": None if self.judging is None else self.judging.state_dict(),
            "dead_factors": sorted(self._dead_factors),
            "quarantines": self.quarantines.state_dict(),
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
        if self.heron is not None:
            report = json.dumps(self.heron.report().as_json(), indent=1)
            write_atomic(self.folder.path / REPORT_FILE, report)
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
        if self.annotation is not None:
            self.annotation.load_state_dict(state["annotation"])
            self._line_labels = self.annotation.num_known
        if self.heron is not None:
            self.heron.load_state_dict(state["heron"])
        if self.judging is not None:
            self.judging.load_state_dict(state["judging"])
        self._dead_factors = set(state["dead_factors"])
        self.quarantines.load_state_dict(state["quarantines"])
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


def return_correlation(sums: RecentSums, episodes: WindowedEpisodes) -> float | None:
    """Spearman's rank correlation of what HERON paid the last episodes with what the environment did.

    Args:
        sums: of the reward parts, over the same episodes.
        episodes: the last ones.

    Returns:
        None without HERON, before the first episode has ended, and while all were paid, or worth, the same.
    """
    paid = sums.of("heron")
    return spearman(np.array(paid), np.array(episodes.returns)) if paid else None


def weights_sha256(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of every weight, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()
