"""How surely a reward tells successful episodes from failed ones.

The share of all pairs of a success and a failure in which the success is worth more, a tie counting as half: the area
under the ROC curve, or Mann and Whitney's U over the number of pairs. Its interval is method 5 of Newcombe (2006,
Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2, Statistics in Medicine
25:559-573): the variance of Hanley and McNeil (1982, Radiology 143:29-36), solved as a score interval. DeLong's
interval and the bootstrap have no width where all pairs agree, which good and bad rewards alike come to with few
episodes; this one keeps its width there, and needs no chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rewards.auto.search.verdict import Outcome

Z_95 = 1.959964
"""Of the standard normal distribution, for an interval that holds 95 % of the time."""

_HALVINGS = 60


@dataclass(frozen=True)
class Auc:
    """A share of pairs in right order, and where it may truly be."""

    value: float
    low: float
    high: float
    successes: int
    failures: int

    @property
    def outcome(self) -> Outcome:
        """Whether the interval lies below 0.5 (fail), above it (pass), or holds it (undetermined)."""
        if self.high < 0.5:
            return "fail"
        return "pass" if self.low > 0.5 else "undetermined"

    def __str__(self) -> str:
        """``0.83 (0.61 to 0.94)``."""
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def auc_of(success: np.ndarray, failure: np.ndarray, z: float = Z_95) -> Auc:
    """Compare all pairs.

    Args:
        success: float64 [m], what each successful episode is worth; at least one.
        failure: float64 [n], what each failed one is worth; at least one.
        z: width of the interval in standard errors.

    Raises:
        ValueError: one of the two is empty.
    """
    m, n = len(success), len(failure)
    value = share_in_order(success, failure)
    return Auc(value, *interval(value, m, n, z), successes=m, failures=n)


def share_in_order(success: np.ndarray, failure: np.ndarray) -> float:
    """Share of all pairs of a success [m] and a failure [n] in which the success is worth more; ties count half.

    Raises:
        ValueError: one of the two is empty.
    """
    m, n = len(success), len(failure)
    if not m or not n:
        raise ValueError(f"nothing to compare: {m} successes and {n} failures")
    ordered = np.sort(failure)
    below = np.searchsorted(ordered, success, side="left")
    not_above = np.searchsorted(ordered, success, side="right")
    return float((below + not_above).sum() / (2 * m * n))


def interval(value: float, m: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Both ends of Newcombe's interval (method 5), of a share found with m successes and n failures."""

    def excess(true: float) -> float:
        """Above 0 where a true share is too far from the one that was found."""
        return (value - true) ** 2 - z**2 * _variance(true, m, n)

    return _root(excess, value, 0.0), _root(excess, value, 1.0)


def _variance(true: float, m: int, n: int) -> float:
    spare = (m + n) / 2 - 1
    spread = 1 + spare * (1 - true) / (2 - true) + spare * true / (1 + true)
    return true * (1 - true) * spread / (m * n)


def _root(excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Where a function rises above 0 on the way from ``inside`` to ``outside``."""
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if excess(middle) <= 0:
            inside = middle
        else:
            outside = middle
    return outside
