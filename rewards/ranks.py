"""How well two rows of numbers agree on an order."""

from __future__ import annotations

import numpy as np


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's rank correlation of x [N] and y [N], equal values sharing their mean rank; None where one is constant.

    Args:
        x: at least one number.
        y: as many.
    """
    both = np.stack([ranks(x), ranks(y)])
    return None if both.std(1).min() == 0 else float(np.corrcoef(both)[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    """float64 [N]: mean rank from 0 of each value among those equal to it."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts + 1) / 2)[where]
