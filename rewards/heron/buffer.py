"""The newest segments of play."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envs.protocols import State
from rewards.heron.segments import Segments

_JOINED_AT_ONCE = 8
"""Pieces are joined when they hold this part of the capacity: not at each step of somebody's training loop."""


class SegmentBuffer:
    """Keeps the newest segments, in the order in which they came.

    Args:
        capacity: segments that are kept.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._joined: Segments | None = None
        self._waiting: list[Segments] = []

    def __len__(self) -> int:
        """N."""
        number = sum(map(len, self._waiting)) + (0 if self._joined is None else len(self._joined))
        return min(number, self._capacity)

    def add(self, segments: Segments) -> None:
        """Keep these, and drop the oldest beyond the capacity."""
        if len(segments):
            self._waiting.append(segments)
        if sum(map(len, self._waiting)) * _JOINED_AT_ONCE >= self._capacity:
            self.kept()

    def kept(self) -> Segments | None:
        """All of them; None before the first."""
        if self._waiting:
            self._joined = newest(self._joined, Segments.joined(self._waiting), self._capacity)
            self._waiting = []
        return self._joined

    def state_dict(self) -> State:
        """The segments."""
        kept = self.kept()
        return {"segments": None if kept is None else kept.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._joined = None if state["segments"] is None else Segments.from_state(state["segments"])
        self._waiting = []


def newest(old: Segments | None, new: Segments, capacity: int) -> Segments:
    """The newest segments of old and new ones, in order; as many as the capacity at most."""
    kept = capacity - len(new)
    if old is None or kept <= 0:
        return _last(new, capacity)
    return Segments.joined([_last(old, kept), new])


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
