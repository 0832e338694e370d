"""Pairs of segments that were judged elsewhere: by a language model, by a person, by a rule of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.protocols import State
from rewards.heron.buffer import newest
from rewards.heron.segments import Segments


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PairBatch:
    """P judged pairs.

    Raises:
        ValueError: the sides differ in number, or a target is not a probability.
    """

    first: Segments
    second: Segments
    target: np.ndarray
    """float64 [P]: p(the first is better); 1/2 for a tie."""
    source: str
    """Who judged."""

    def __post_init__(self) -> None:
        if not len(self.first) == len(self.second) == len(self.target):
            raise ValueError(
                f"{self.source} judged {len(self.target)} pairs of {len(self.first)} first and "
                f"{len(self.second)} second segments; there must be as many of each"
            )
        if not ((self.target >= 0) & (self.target <= 1)).all():
            raise ValueError(f"a target of a pair judged by {self.source} is not between 0 and 1")

    def __len__(self) -> int:
        """P."""
        return len(self.target)


class PairStore:
    """The newest judged pairs, whoever judged them.

    Args:
        capacity: pairs that are kept.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.segments: Segments | None = None
        """The first and the second of each pair, one pair after the other: row 2i against row 2i + 1."""
        self.target = np.zeros(0)
        """float64 [P], as in ``PairBatch``."""
        self._sources: list[str] = []

    def __len__(self) -> int:
        """P."""
        return len(self.target)

    def add(self, batch: PairBatch) -> None:
        """Keep these pairs, at least one, and drop the oldest beyond the capacity."""
        by_pair = np.arange(2 * len(batch)).reshape(2, -1).T.ravel()
        both = Segments.joined([batch.first, batch.second]).take(by_pair)
        self.segments = newest(self.segments, both, 2 * self._capacity)
        self.target = np.concatenate([self.target, batch.target.astype(np.float64)])[-self._capacity :]
        self._sources = [*self._sources, *[batch.source] * len(batch)][-self._capacity :]

    def sources(self) -> dict[str, int]:
        """How many of the pairs each source has judged."""
        return {source: self._sources.count(source) for source in sorted(set(self._sources))}

    def state_dict(self) -> State:
        """The pairs."""
        return {
            "segments": None if self.segments is None else self.segments.state_dict(),
            "target": self.target.copy(),
            "sources": list(self._sources),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.segments = None if state["segments"] is None else Segments.from_state(state["segments"])
        self.target = np.array(state["target"], np.float64)
        self._sources = [str(source) for source in state["sources"]]
