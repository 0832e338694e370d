"""How surely a reward tells successful episodes from failed ones.

The share of all pairs of a success and a failure in which the success is worth more, a tie counting as half: the area
under the ROC curve, or Mann and Whitney's U over the number of pairs. Its interval is method 5 of Newcombe (2006,
Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2, Statistics in Medicine
25:559-573): the variance of Hanley and McNeil (1982, Radiology 143:29-36), solved as a score interval. DeLong's
interval and the bootstrap have no width where all pairs agree, as they often do with few episodes; this one keeps its
width there, and needs no chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rewards.auto.search.proposal import Outcome

Z_95 = 1.959964
"""Of the standard normal distribution, for an interval that holds 95 % of the time."""

_INSIDE = 1e-9
"""Least distance from 0 and 1 at which the interval's ends begin to be looked for: 0 and 1 solve the equation too."""


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
    from scipy.optimize import root_scalar  # takes a third of a second: only where an interval is asked for

    def excess(true: float) -> float:
        """Above 0 where a true share is too far from the one that was found."""
        return (value - true) ** 2 - z**2 * _variance(true, m, n)

    inside = min(max(value, _INSIDE), 1 - _INSIDE)
    low = root_scalar(excess, bracket=(0.0, inside))
    high = root_scalar(excess, bracket=(inside, 1.0))
    return float(low.root), float(high.root)


def _variance(true: float, m: int, n: int) -> float:
    """Hanley and McNeil's, of the share found where the true one is this."""
    spare = (m + n) / 2 - 1
    spread = 1 + spare * (1 - true) / (2 - true) + spare * true / (1 + true)
    return true * (1 - true) * spread / (m * n)
