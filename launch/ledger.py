"""What was said and paid in a run: captions with their counts, reward parts with their episode sums."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.data import RewardOutput, Rollout
from envs.protocols import State


class CaptionLedger:
    """Every caption of a run: its text, how often it came, what it was paid in each reward part."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self._counts: dict[int, int] = {}
        self._paid: dict[int, float] = {}

    def add(self, rollout: Rollout, output: RewardOutput, part: str | None) -> None:
        """Take in a rollout; ``part`` names the reward that pays captions."""
        self.texts.update(rollout.new_captions)
        if rollout.caption_id is None:
            return
        ids, where, counts = np.unique(rollout.caption_id, return_inverse=True, return_counts=True)
        paid = np.zeros(len(ids))
        if part is not None:
            paid = np.bincount(where.ravel(), weights=output.parts[part].value.ravel(), minlength=len(ids))
        for caption, count, sum_paid in zip(ids.tolist(), counts.tolist(), paid.tolist(), strict=True):
            self._counts[caption] = self._counts.get(caption, 0) + count
            self._paid[caption] = self._paid.get(caption, 0.0) + sum_paid

    def most_frequent(self, labels: Mapping[int, float | None], num: int = 200) -> list[dict[str, Any]]:
        """Rows ``{text, count, label, paid}``: the most frequent captions and the most paid ones."""
        counts = {caption: count for caption, count in self._counts.items() if caption in self.texts}
        chosen = set(sorted(counts, key=counts.__getitem__, reverse=True)[:num])
        chosen |= set(sorted(counts, key=lambda c: self._paid[c], reverse=True)[:num])
        return [
            {"text": self.texts[c], "count": counts[c], "label": labels.get(c), "paid": self._paid[c]}
            for c in sorted(chosen, key=counts.__getitem__, reverse=True)
        ]

    def state_dict(self) -> State:
        """Texts, counts and payments."""
        ids = list(self._counts)
        return {
            "texts": {str(caption): text for caption, text in self.texts.items()},
            "ids": np.array(ids, np.int64),
            "counts": np.array([self._counts[c] for c in ids], np.int64),
            "paid": np.array([self._paid[c] for c in ids], np.float64),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.texts = {int(caption): text for caption, text in state["texts"].items()}
        ids = state["ids"].tolist()
        self._counts = dict(zip(ids, state["counts"].tolist(), strict=True))
        self._paid = dict(zip(ids, state["paid"].tolist(), strict=True))


class EpisodeSums:
    """Sum of each reward part over each episode, followed over rollouts; means of the last 100."""

    def __init__(self, window: int = 100) -> None:
        self._window = window
        self._running: dict[str, dict[int, np.ndarray]] = {}
        self._ended: dict[str, deque[float]] = {}

    def add(self, worker: int, rollout: Rollout, output: RewardOutput) -> None:
        """Take in a worker's next rollout."""
        for name, part in output.parts.items():
            value = np.where(part.valid, part.value, 0.0)
            ended = self._ended.setdefault(name, deque(maxlen=self._window))
            sums = self._running.setdefault(name, {}).get(worker)
            sums = np.zeros(rollout.num_games) if sums is None else sums
            for t in range(rollout.num_steps):
                sums = sums + value[t]
                done = rollout.done[t]
                if done.any():
                    ended.extend(sums[done].tolist())
                    sums = np.where(done, 0.0, sums)
            self._running[name][worker] = sums

    def metrics(self) -> dict[str, float]:
        """``{part: mean sum}`` of the parts that saw an episode end."""
        return {name: sum(ended) / len(ended) for name, ended in self._ended.items() if ended}

    def state_dict(self) -> State:
        """Sums of running and of recent episodes."""
        return {
            "running": {name: {str(w): sums for w, sums in workers.items()} for name, workers in self._running.items()},
            "ended": {name: list(ended) for name, ended in self._ended.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._running = {
            name: {int(w): sums for w, sums in workers.items()} for name, workers in state["running"].items()
        }
        self._ended = {name: deque(ended, maxlen=self._window) for name, ended in state["ended"].items()}
