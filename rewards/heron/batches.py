"""What a gradient step learns from: labelled pairs among some segments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rewards.heron.segments import Segments


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledPairs:
    """P labelled pairs among N segments."""

    segments: Segments
    first: np.ndarray
    """int64 [P]: rows of the segments."""
    second: np.ndarray
    """int64 [P]."""
    target: np.ndarray
    """float64 [P]: p(the first is better)."""
    margin: np.ndarray
    """float64 [P]: of the loss."""

    def __len__(self) -> int:
        """P."""
        return len(self.first)

    def take(self, which: np.ndarray | slice) -> LabelledPairs:
        """Some of the pairs, with only the segments that are in them."""
        rows, at = np.unique(np.stack([self.first[which], self.second[which]]), return_inverse=True)
        first, second = at.reshape(2, -1)
        return LabelledPairs(
            segments=self.segments.take(rows),
            first=first,
            second=second,
            target=self.target[which],
            margin=self.margin[which],
        )

    def beside(self, other: LabelledPairs) -> LabelledPairs:
        """Both."""
        shift = len(self.segments)
        return LabelledPairs(
            segments=Segments.joined([self.segments, other.segments]),
            first=np.concatenate([self.first, other.first + shift]),
            second=np.concatenate([self.second, other.second + shift]),
            target=np.concatenate([self.target, other.target]),
            margin=np.concatenate([self.margin, other.margin]),
        )
