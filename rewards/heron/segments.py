"""Stretches of play that preferences are about: consecutive steps of one episode, joined over rollouts.

Kept are the newest, and of what has become rare, older ones; learned from are labelled pairs among some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.protocols import State
from rewards.heron.pairs import equal_shares

_JOINED_AT_ONCE = 8
"""Pieces are joined when they hold this part of the capacity: not at each step of a training loop."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Segments:
    """N segments, M steps in all, flat over steps.

    Raises:
        ValueError: shapes do not fit; the message names the field.
    """

    inputs: np.ndarray
    """float32 [M, D]: what a reward model reads of each step."""
    lengths: np.ndarray
    """int64 [N]: steps of each segment, in the order of ``inputs``; they sum up to M."""
    factors: np.ndarray
    """float64 [N, F]: the value of each factor over the segment, as it is (no sign applied)."""
    episode_id: np.ndarray
    """int64 [N]."""
    first_step: np.ndarray
    """int64 [N]: step of the episode at which the segment begins."""
    ended: np.ndarray
    """bool [N]: the segment holds the last step of its episode."""
    task: np.ndarray
    """int64 [N]: number of the task; only segments of one task are compared."""
    caption_id: np.ndarray
    """int64 [M]: message of each step; 0 = none."""

    def __post_init__(self) -> None:
        N, M = len(self.lengths), int(self.lengths.sum())
        for name in ("factors", "episode_id", "first_step", "ended", "task"):
            if len(getattr(self, name)) != N:
                raise ValueError(f"Segments.{name} has {len(getattr(self, name))} rows, expected {N}")
        for name in ("inputs", "caption_id"):
            if len(getattr(self, name)) != M:
                raise ValueError(f"Segments.{name} has {len(getattr(self, name))} rows, expected {M} steps")

    def __len__(self) -> int:
        """N."""
        return len(self.lengths)

    @property
    def offsets(self) -> np.ndarray:
        """int64 [N]: where each segment's steps begin."""
        return np.cumsum(self.lengths) - self.lengths

    def rows(self, which: np.ndarray) -> np.ndarray:
        """int64: positions of the steps of some segments, one segment after the other."""
        lengths = self.lengths[which]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return np.repeat(self.offsets[which], lengths) + within

    def take(self, which: np.ndarray) -> Segments:
        """Some segments, int [P], in that order."""
        rows = self.rows(which)
        return Segments(
            inputs=self.inputs[rows],
            lengths=self.lengths[which],
            factors=self.factors[which],
            episode_id=self.episode_id[which],
            first_step=self.first_step[which],
            ended=self.ended[which],
            task=self.task[which],
            caption_id=self.caption_id[rows],
        )

    @classmethod
    def joined(cls, pieces: Sequence[Segments]) -> Segments:
        """All segments of several, in order; at least one piece."""
        return cls(**{name: np.concatenate([getattr(p, name) for p in pieces]) for name in cls.__slots__})

    def state_dict(self) -> State:
        """Every array by its name."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Segments:
        """What ``state_dict`` described."""
        return cls(**{name: np.array(state[name]) for name in cls.__slots__})


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
