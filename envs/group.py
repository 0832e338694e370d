"""Processes that learn one thing together: what they must exchange, whatever carries it."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Group(Protocol):
    """Members that call the same methods in the same order, each from its own process.

    The conformance suite (``tests/launch/processes/test_groups.py``) holds every implementation to this: all members
    get bit-equal answers, and a group of one changes nothing.
    """

    size: int
    """Number of members."""
    rank: int
    """Which member this is: 0 .. size - 1."""

    def average(self, values: np.ndarray) -> None:
        """Replace float32 [N], contiguous, by its mean over the members."""
        ...

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Every member's array, of the same shape and dtype everywhere: [size, ...] in the order of ranks."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class Alone:
    """A group of one."""

    size = 1
    rank = 0

    def average(self, values: np.ndarray) -> None:
        """The mean of one is itself."""

    def gather(self, values: np.ndarray) -> np.ndarray:
        """[1, ...]."""
        return values[None]

    def close(self) -> None:
        """Nothing to leave."""
