"""What was observed and paid in a run: captions with their counts, reward parts with their episode sums."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.data import RewardOutput, RewardPart, Rollout
from envs.protocols import State


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionTally:
    """The captions of one rollout: how often each was observed, and what it was paid."""

    ids: np.ndarray
    """int64 [N], distinct."""
    counts: np.ndarray
    """int64 [N]."""
    paid: np.ndarray
    """float64 [N], in the reward parts that pay captions; zeros without one."""

    @classmethod
    def of(cls, rollout: Rollout, output: RewardOutput, parts: Sequence[str]) -> CaptionTally | None:
        """The tally of a scored rollout, None if it has no captions.

        Args:
            rollout: what was played.
            output: what it was worth.
            parts: names of the rewards that pay captions.
        """
        if rollout.caption_id is None:
            return None
        ids, where, counts = np.unique(rollout.caption_id, return_inverse=True, return_counts=True)
        paid = np.zeros(len(ids))
        for part in parts:
            paid += np.bincount(where.ravel(), weights=output.parts[part].value.ravel(), minlength=len(ids))
        return cls(ids=ids, counts=counts, paid=paid)


class CaptionLedger:
    """Every caption of a run: its text, how often it was observed, what it was paid."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        """``{caption_id: text}``; teachers hold this very object, so it is never replaced."""
        self._counts: dict[int, int] = {}
        self._paid: dict[int, float] = {}

    def add(self, tally: CaptionTally) -> None:
        """Take in a rollout's tally."""
        rows = zip(tally.ids.tolist(), tally.counts.tolist(), tally.paid.tolist(), strict=True)
        for caption, count, paid in rows:
            self._counts[caption] = self._counts.get(caption, 0) + count
            self._paid[caption] = self._paid.get(caption, 0.0) + paid

    def most_frequent(self, value: Callable[[int], float | None], num: int = 200) -> list[dict[str, Any]]:
        """Rows ``{text, count, label, paid}``: the most frequent captions and the most paid ones.

        Args:
            value: what a caption is worth (its label, or what a model made of labels), None where no reward can say.
            num: how many of each.
        """
        counts = {caption: count for caption, count in self._counts.items() if caption in self.texts}
        chosen = set(sorted(counts, key=counts.__getitem__, reverse=True)[:num])
        chosen |= set(sorted(counts, key=lambda c: self._paid[c], reverse=True)[:num])
        return [
            {"text": self.texts[c], "count": counts[c], "label": value(c), "paid": self._paid[c]}
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
        self.texts.clear()  # in place: see ``texts``
        self.texts.update({int(caption): text for caption, text in state["texts"].items()})
        ids = state["ids"].tolist()
        self._counts = dict(zip(ids, state["counts"].tolist(), strict=True))
        self._paid = dict(zip(ids, state["paid"].tolist(), strict=True))


class RunningSums:
    """Sum of each reward part over the running episodes of some workers, followed over rollouts."""

    def __init__(self) -> None:
        self._running: dict[str, dict[int, np.ndarray]] = {}

    def add(self, worker: int, rollout: Rollout, output: RewardOutput) -> dict[str, list[float]]:
        """Take in a worker's next rollout; returns the sums of the episodes that ended in it, by part."""
        return {name: self._follow(name, worker, rollout, part) for name, part in output.parts.items()}

    def _follow(self, name: str, worker: int, rollout: Rollout, part: RewardPart) -> list[float]:
        value = np.where(part.valid, part.value, 0.0).astype(np.float64)
        sums = self._running.setdefault(name, {}).get(worker)
        total = value.cumsum(0) + (0.0 if sums is None else sums)
        left = total[-1].copy()
        # What a game's sum stood at when its episode before ended is no part of the next one.
        ended, before = [], np.zeros(rollout.num_games)
        for t, b in np.argwhere(rollout.done).tolist():
            ended.append(total[t, b] - before[b])
            before[b] = total[t, b]
        self._running[name][worker] = left - before
        return [float(x) for x in ended]

    def state_dict(self) -> State:
        """Sums of the running episodes."""
        return {name: {str(w): sums for w, sums in workers.items()} for name, workers in self._running.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._running = {name: {int(w): sums for w, sums in workers.items()} for name, workers in state.items()}


class RecentSums:
    """Each reward part's sums over the last episodes.

    Args:
        window: how many.
    """

    def __init__(self, window: int = 100) -> None:
        self._window = window
        self._ended: dict[str, deque[float]] = {}

    def add(self, ended: Mapping[str, Sequence[float]]) -> None:
        """Remember sums of ended episodes, by part."""
        for name, sums in ended.items():
            self._ended.setdefault(name, deque(maxlen=self._window)).extend(sums)

    def of(self, part: str) -> list[float]:
        """The sums of a part over the last episodes, the oldest first; none of a part that there is not."""
        return list(self._ended.get(part, ()))

    def metrics(self) -> dict[str, float]:
        """``{part: mean sum}`` of the parts that saw an episode end."""
        return {name: sum(ended) / len(ended) for name, ended in self._ended.items() if ended}

    def state_dict(self) -> State:
        """The remembered sums."""
        return {name: list(ended) for name, ended in self._ended.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._ended = {name: deque(ended, maxlen=self._window) for name, ended in state.items()}
