"""How the steps of a segment become one number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Reduction(Protocol):
    """Reduces N segments at once."""

    def __call__(self, steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """float64 [N, ...] of float64 [M, ...], one segment after the other, and int64 [N], all at least 1."""
        ...


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.cumsum(lengths) - lengths


def _sum(steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.add.reduceat(steps, _starts(lengths), axis=0)


def _mean(steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return _sum(steps, lengths) / lengths.reshape(-1, *(1,) * (steps.ndim - 1))


def _last(steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return steps[np.cumsum(lengths) - 1]


def _max(steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.maximum.reduceat(steps, _starts(lengths), axis=0)


def _min(steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.minimum.reduceat(steps, _starts(lengths), axis=0)


REDUCTIONS: Mapping[str, Reduction] = {"sum": _sum, "mean": _mean, "last": _last, "max": _max, "min": _min}
