"""Stretches of play that preferences are about: consecutive steps of one episode, joined over rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.protocols import State


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
    """float64 [N, F]: what each factor comes to over the segment, as it is (no sign applied)."""
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
