"""Segments of play to compare: the newest, and of what has become rare, older ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from envs.protocols import State
from rewards.heron.pairs import equal_shares
from rewards.heron.segments import Segments

_JOINED_AT_ONCE = 8
"""Pieces are joined when they hold this part of the capacity: not at each step of somebody's training loop."""


class SegmentBuffer:
    """Keeps segments in the order in which they came.

    Half of them are the newest. The other half are older ones, the classes among them represented as evenly as there
    are segments: a policy that has stopped to succeed, or to die, plays nothing that would remind the model of it.

    Args:
        capacity: segments that are kept.
        classes: int [N]: which class each of N segments is in.
    """

    def __init__(self, capacity: int, classes: Callable[[Segments], np.ndarray]) -> None:
        self._capacity, self._classes = capacity, classes
        self._joined: Segments | None = None
        self._waiting: list[Segments] = []

    def __len__(self) -> int:
        """N."""
        number = sum(map(len, self._waiting)) + (0 if self._joined is None else len(self._joined))
        return min(number, self._capacity)

    def add(self, segments: Segments) -> None:
        """Keep these, and drop others beyond the capacity."""
        if len(segments):
            self._waiting.append(segments)
        if sum(map(len, self._waiting)) * _JOINED_AT_ONCE >= self._capacity:
            self.kept()

    def kept(self) -> Segments | None:
        """All of them; None before the first."""
        if self._waiting:
            pieces = self._waiting if self._joined is None else [self._joined, *self._waiting]
            joined, self._waiting = Segments.joined(pieces), []
            if len(joined) > self._capacity:
                joined = joined.take(retained(self._classes(joined), self._capacity))
            self._joined = joined
        return self._joined

    def recent(self) -> Segments | None:
        """The newest ones alone, half of the capacity at most; None before the first."""
        kept = self.kept()
        return None if kept is None else _last(kept, num_newest(self._capacity))

    def state_dict(self) -> State:
        """The segments."""
        kept = self.kept()
        return {"segments": None if kept is None else kept.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._joined = None if state["segments"] is None else Segments.from_state(state["segments"])
        self._waiting = []


def num_newest(capacity: int) -> int:
    """Segments of a full buffer that are there because they are the newest."""
    return (capacity + 1) // 2


def retained(classes: np.ndarray, capacity: int) -> np.ndarray:
    """Rows to keep of more segments than there is room for, int64 [capacity], in order.

    Args:
        classes: int [N], the oldest segment first.
        capacity: at most N.
    """
    newest_rows = np.arange(len(classes) - num_newest(capacity), len(classes))
    older = classes[: newest_rows[0]]
    _, member, available = np.unique(older, return_inverse=True, return_counts=True)
    quotas = equal_shares(available, capacity - len(newest_rows))
    order = np.argsort(member, kind="stable")  # class by class, each from its oldest to its newest
    from_newest = np.cumsum(available)[member[order]] - np.arange(len(order)) - 1
    return np.concatenate([np.sort(order[from_newest < quotas[member[order]]]), newest_rows])


def _last(segments: Segments, number: int) -> Segments:
    """Views of the last ones."""
    start = max(0, len(segments) - number)
    if start == 0:
        return segments
    steps = int(segments.offsets[start])
    per_step = ("inputs", "caption_id")
    return Segments(
        **{name: getattr(segments, name)[steps if name in per_step else start :] for name in Segments.__slots__}
    )
