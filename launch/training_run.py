"""One run's moving parts, update after update: what ``launch.train`` sets up and lets go.

A checkpoint stands between rollouts: everything that was collected has been learned from, so that games,
rewards' memories of them and sums over them agree.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents.policy import weights_of
from agents.ppo import PPOLearner
from agents.rollout import Collected
from envs.data import RewardOutput
from launch import checkpoint as checkpoints
from launch.config import TrainConfig
from launch.durable import write_atomic
from launch.label_feed import LabelFeed
from launch.ledger import CaptionLedger, EpisodeSums
from launch.metrics import MetricsWriter, WindowedEpisodes
from launch.progress import Progress
from launch.run_folder import RunFolder, installed_versions
from launch.stopping import StopRequest
from launch.workers import WorkerPool
from rewards.labels.table import LabelTable
from rewards.mix import RewardMix

CAPTIONS_FILE = "captions.json"
SUMMARY_FILE = "summary.json"
_CAPTION_PART = "oni"


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
    """One run's moving parts, update after update."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        pool: WorkerPool,
        feed: LabelFeed | None,
        table: LabelTable,
        mix: RewardMix,
        learner: PPOLearner,
        writer: MetricsWriter,
        progress: Progress,
    ) -> None:
        self.config, self.folder = config, folder
        self.pool, self.feed, self.table, self.mix, self.learner = pool, feed, table, mix, learner
        self.writer, self.progress = writer, progress
        self.steps = self.updates = 0
        self.episodes = WindowedEpisodes()
        self.ledger, self.part_sums = CaptionLedger(), EpisodeSums()
        self.memories: dict[int, Any] = {}
        """Each worker's reward memory of its running episodes."""
        self._labels: dict[int, float | None] = {}
        self.times = {"collect_s": 0.0, "score_s": 0.0, "learn_s": 0.0, "wait_s": 0.0}
        """Seconds spent in each phase since the last line of metrics."""
        self._elapsed_before_s = 0.0
        self._started_s = self._line_s = self._saved_s = time.monotonic()
        self._line_steps = self._line_updates = self._line_labels = self._saved_updates = 0
        self._last: dict[str, float] = {}

    def until(self, stop: StopRequest) -> TrainSummary:
        """Update after update, until the steps are done or a signal came."""
        if self.feed is not None and self.steps == 0:
            self._apply(self.feed.poll())
        self.pool.publish(weights_of(self.learner.model), self.learner.version)
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

    def update(self) -> None:
        """Collect a batch, score it, learn from it, publish the policy."""
        if self.feed is not None and self.config.labels.mode == "async":
            self._apply(self.feed.poll())
        began = time.perf_counter()
        collected = self.pool.batch()
        self.times["wait_s"] += time.perf_counter() - began
        self._learn_from(collected)

    def _learn_from(self, collected: Sequence[Collected]) -> None:
        began = time.perf_counter()
        self._take_labels(collected)
        outputs = [self._score(c) for c in collected]
        scored = time.perf_counter()
        share = self.steps / self.config.total_steps
        metrics = self.learner.update([c.rollout for c in collected], outputs, share)
        self.pool.publish(weights_of(self.learner.model), self.learner.version)
        learned = time.perf_counter()
        self.updates += 1
        self.steps += sum(c.rollout.env_reward.size for c in collected)
        self._account(collected, outputs, metrics)
        for name, seconds in {
            "score_s": scored - began,
            "learn_s": learned - scored,
            "collect_s": sum(c.collect_s for c in collected) / len(collected),
        }.items():
            self.times[name] += seconds

    def _take_labels(self, collected: Sequence[Collected]) -> None:
        if self.feed is None:
            return
        new = {caption: text for c in collected for caption, text in c.rollout.new_captions.items()}
        if self.config.labels.mode == "barrier":
            self._apply(self.feed.drain(new))
            self.feed.poll()
        else:
            self.feed.submit(new)
            self._apply(self.feed.poll())

    def _ask_again(self) -> None:
        """Captions without an answer (dropped from a full queue, given up in an outage, cut) are asked again."""
        if self.feed is not None and self.config.labels.mode == "async":
            self.feed.submit({c: text for c, text in self.ledger.texts.items() if c not in self._labels})

    def _apply(self, labels: Sequence[tuple[int, float | None]]) -> None:
        self.table.apply(labels)
        self._labels.update(labels)

    def _score(self, collected: Collected) -> RewardOutput:
        worker, rollout = collected.worker, collected.rollout
        memory = self.memories.get(worker)
        if memory is None:
            memory = self.mix.initial_state(rollout.num_games)
        output, self.memories[worker] = self.mix.score(rollout, memory)
        return output

    def _account(
        self, collected: Sequence[Collected], outputs: Sequence[RewardOutput], learned: Mapping[str, float]
    ) -> None:
        paying = _CAPTION_PART if _CAPTION_PART in self.mix.part_names else None
        for c, output in zip(collected, outputs, strict=True):
            self.episodes.add(c.episodes)
            self.ledger.add(c.rollout, output, paying)
            self.part_sums.add(c.worker, c.rollout, output)
        self._last = {f"policy/{name}": value for name, value in learned.items()}
        for name in self.mix.part_names:
            values = np.concatenate([o.parts[name].value[o.parts[name].valid] for o in outputs])
            valid = np.concatenate([o.parts[name].valid.ravel() for o in outputs])
            self._last[f"rewards/{name}/valid"] = float(valid.mean())
            if len(values):
                self._last[f"rewards/{name}/mean"] = float(values.mean())
        if self.feed is not None:
            self._last["labels/coverage"] = self._coverage(collected)

    def _coverage(self, collected: Sequence[Collected]) -> float:
        found = [c.rollout.caption_id for c in collected if c.rollout.caption_id is not None]
        ids = np.concatenate([ids.ravel() for ids in found])
        spoken = ids[ids != 0]
        return float(self.table.lookup(spoken)[1].mean()) if len(spoken) else 1.0

    def _write_line(self) -> None:
        now, updates = time.monotonic(), self.updates - self._line_updates
        metrics = dict(self._last) | self.episodes.metrics()
        metrics |= {f"rewards/{name}/episode_sum": value for name, value in self.part_sums.metrics().items()}
        if self.feed is not None:
            self._ask_again()
            metrics |= {f"labels/{name}": value for name, value in self.feed.metrics().items()}
            metrics["labels/labels_per_s"] = (len(self._labels) - self._line_labels) / max(1e-9, now - self._line_s)
            self._line_labels = len(self._labels)
            metrics["labels/known"] = float(sum(value is not None for value in self._labels.values()))
        metrics |= {f"time/{name}": seconds / max(1, updates) for name, seconds in self.times.items()}
        metrics["time/steps_per_s"] = (self.steps - self._line_steps) / max(1e-9, now - self._line_s)
        metrics["time/elapsed_s"] = self.elapsed_s
        metrics["workers/deaths"] = float(self.pool.deaths)
        metrics["rollout/dropped"] = float(self.pool.dropped_rollouts)
        self.writer.write(self.steps, metrics)
        self.progress.update(self.steps, metrics)
        self.times = dict.fromkeys(self.times, 0.0)
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
        for collected in self.pool.drain():
            self._learn_from(collected)
        if self.feed is not None and self.config.labels.mode == "async":
            self._apply(self.feed.flush())
        state = {
            "steps": self.steps,
            "updates": self.updates,
            "elapsed_s": self.elapsed_s,
            "learner": self.learner.state_dict(),
            "pool": self.pool.state_dict(),
            "mix": self.mix.state_dict(),
            "memories": {str(worker): memory for worker, memory in self.memories.items()},
            "labels": {str(caption): value for caption, value in self._labels.items()},
            "episodes": self.episodes.state_dict(),
            "ledger": self.ledger.state_dict(),
            "part_sums": self.part_sums.state_dict(),
            "metrics": self._last,
            "feed": None if self.feed is None else self.feed.state_dict(),
        }
        path = checkpoints.save(
            self.folder.path,
            self.steps,
            {"model": weights_of(self.learner.model)},
            state,
            keep=self.config.checkpoint.keep,
            versions=installed_versions(),
        )
        captions = json.dumps(self.ledger.most_frequent(self._labels), indent=1)
        write_atomic(self.folder.path / CAPTIONS_FILE, captions)
        self.folder.event("checkpoint", step=self.steps, path=path.name)
        self._saved_s, self._saved_updates = time.monotonic(), self.updates

    def restore(self, saved: checkpoints.Checkpoint) -> None:
        """Go on from a checkpoint; captions that were still unlabelled are asked for again."""
        state = saved.state
        self.steps, self.updates = int(state["steps"]), int(state["updates"])
        self._elapsed_before_s = float(state["elapsed_s"])
        self._line_steps, self._line_updates, self._saved_updates = self.steps, self.updates, self.updates
        weights = {name: torch.from_numpy(x) for name, x in saved.tensors["model"].items()}
        self.learner.model.load_state_dict(weights)
        self.learner.load_state_dict(state["learner"])
        self.mix.load_state_dict(state["mix"])
        self.memories = {int(worker): memory for worker, memory in state["memories"].items()}
        self._labels = {int(caption): value for caption, value in state["labels"].items()}
        self.episodes.load_state_dict(state["episodes"])
        self.ledger.load_state_dict(state["ledger"])
        self.part_sums.load_state_dict(state["part_sums"])
        self.pool.load_state_dict(state["pool"])
        self._last = dict(state["metrics"])
        if self.feed is not None:
            self.feed.load_state_dict(state["feed"])
            self._ask_again()
        self.folder.event("resumed", step=self.steps, checkpoint=saved.path.name)
        self.progress.note(f"resumed at step {self.steps:,} from {saved.path.name}")

    def _finish(self, stop: StopRequest) -> TrainSummary:
        summary = TrainSummary(
            steps=self.steps,
            updates=self.updates,
            elapsed_s=self.elapsed_s,
            weights_sha256=weights_sha256(weights_of(self.learner.model)),
            metrics=self._last,
            stopped_by=None if stop.signal is None else stop.signal.name,
        )
        self.folder.event("stopped" if summary.stopped_by else "finished", step=self.steps)
        text = json.dumps({**summary.__dict__, "metrics": dict(summary.metrics)}, indent=1)
        write_atomic(self.folder.path / SUMMARY_FILE, text)
        return summary


def weights_sha256(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of every weight, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()
