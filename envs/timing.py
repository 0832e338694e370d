"""Where a process's time goes: seconds by phase, and on request every span of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Span(NamedTuple):
    """One stretch of work."""

    phase: str
    began_s: float
    """On the clock of ``time.perf_counter``, which all processes of a machine share."""
    seconds: float


class PhaseTimer:
    """A stopwatch with named laps.

    A lap within another is named by its path: ``learn/backward`` is part of ``learn``.

    Attributes:
        spans_left: how many more laps are kept one by one; 0 keeps only the sums.
    """

    def __init__(self) -> None:
        self.spans_left = 0
        self._seconds: dict[str, float] = {}
        self._spans: list[Span] = []

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Time the block as part of ``phase``."""
        began_s = time.perf_counter()
        yield
        seconds = time.perf_counter() - began_s
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds
        if self.spans_left:
            self.spans_left -= 1
            self._spans.append(Span(phase, began_s, seconds))

    def take(self) -> dict[str, float]:
        """Seconds by phase since the last call."""
        taken, self._seconds = self._seconds, {}
        return taken

    def take_spans(self) -> list[Span]:
        """Laps kept since the last call."""
        taken, self._spans = self._spans, []
        return taken
