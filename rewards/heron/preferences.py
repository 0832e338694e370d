"""Pairs of segments that were judged elsewhere: by a language model, by a person, by a rule of the user's own."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.protocols import State
from rewards.heron.config import TreeConfig
from rewards.heron.pairs import held_out
from rewards.heron.segments import Segments

MIN_JUDGED = 8
"""Judged pairs to learn from, where there is no tree to learn from."""


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

    def by_pair(self) -> Segments:
        """All 2P segments, one pair after the other: row 2i against row 2i + 1."""
        return Segments.joined([self.first, self.second]).take(np.arange(2 * len(self)).reshape(2, -1).T.ravel())


class PairStore:
    """Judged pairs, the newest of each source: those of one never push out those of another.

    Args:
        capacity: pairs of one source that are kept.
        kept_whole: sources all of whose pairs are kept.
    """

    def __init__(self, capacity: int, kept_whole: Container[str] = ()) -> None:
        self._capacity, self._kept_whole = capacity, kept_whole
        self.segments: Segments | None = None
        """As of ``PairBatch.by_pair``; None before the first."""
        self.target = np.zeros(0)
        """float64 [P], as in ``PairBatch``."""
        self._sources: list[str] = []

    def __len__(self) -> int:
        """P."""
        return len(self.target)

    def add(self, batch: PairBatch) -> None:
        """Keep these pairs, at least one, and drop the oldest of their source beyond the capacity."""
        new = batch.by_pair()
        self.segments = new if self.segments is None else Segments.joined([self.segments, new])
        self.target = np.concatenate([self.target, batch.target.astype(np.float64)])
        self._sources += [batch.source] * len(batch)
        if batch.source not in self._kept_whole:
            self._drop_oldest(batch.source)

    def _drop_oldest(self, source: str) -> None:
        own = [row for row, other in enumerate(self._sources) if other == source]
        if len(own) <= self._capacity:
            return
        assert self.segments is not None, "there are pairs"
        kept = np.delete(np.arange(len(self)), own[: -self._capacity])
        self.segments = self.segments.take(np.stack([2 * kept, 2 * kept + 1], axis=1).ravel())
        self.target = self.target[kept]
        self._sources = [self._sources[row] for row in kept.tolist()]

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


def learnable(segments: Segments, target: np.ndarray, config: TreeConfig, seed: int) -> np.ndarray:
    """Rows of the judged pairs that are learned from, int64: none of a held-out episode, no ties if these are dropped.

    Args:
        segments: row 2i against row 2i + 1.
        target: float64 [P], as in ``PairBatch``.
        config: says what share of the episodes is held out, and what becomes of ties.
        seed: of the trainer.
    """
    learned = ~held_out(segments.episode_id, config.model.held_out_share, seed).reshape(-1, 2).any(1)
    if config.comparison.ties == "drop":
        learned &= target != 0.5
    return np.flatnonzero(learned)


def check_learnable(pairs: PairBatch, config: TreeConfig, seed: int) -> None:
    """Refuse too few pairs, where nobody but people judges.

    Args:
        pairs: theirs.
        config: of the trainer.
        seed: likewise.

    Raises:
        ValueError: the trainer would never learn; one sentence with both numbers.
    """
    if set(config.judges.sources) != {"human"}:
        return
    number = len(learnable(pairs.by_pair(), pairs.target, config, seed))
    if number < MIN_JUDGED:
        raise ValueError(
            f"{number} of the {len(pairs)} pairs can be learned from (held-out episodes, and ties where they are "
            f"dropped, aside), and without another judge there must be {MIN_JUDGED}"
        )
