"""Intervals and orders of the figures that people compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Z_95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution: a two-sided interval of 95 %."""

_HALVINGS = 60


# ---- proportions and means


def wilson_interval(successes: float, trials: int, z: float = Z_95) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927): sound at 0, at 1 and for few trials.

    Args:
        successes: not a whole number where trials that depend on each other count as fewer.
        trials: at least one.
        z: half its width in standard errors.

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials is no proportion")
    p, n = successes / trials, trials
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == trials else (centre + half) / scale
    return low, high


def interquartile_mean(values: Sequence[float]) -> float:
    """Mean of the middle half (Agarwal et al. 2021), fractional at the edges.

    Raises:
        ValueError: there are no values.
    """
    if len(values) == 0:
        raise ValueError("the interquartile mean of nothing is not defined")
    ordered, n = np.sort(np.asarray(values, float)), len(values)
    # Weight of the i-th value: how much of [i, i+1] lies within the middle half of [0, n].
    left, right = np.arange(n), np.arange(1, n + 1)
    weights = np.clip(np.minimum(right, 0.75 * n) - np.maximum(left, 0.25 * n), 0.0, None)
    return float((ordered * weights).sum() / weights.sum())


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    seed: int = 0,
    samples: int = 10_000,
    statistic: Callable[..., np.ndarray] = np.mean,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval (Efron 1979) of the mean, or of another statistic.

    Args:
        values: [N].
        seed: of the samples that are drawn.
        samples: how many.
        statistic: called with ``[samples, N]`` and ``axis=1``.

    Raises:
        ValueError: there are no values.
    """
    if len(values) == 0:
        raise ValueError("the interval of nothing is not defined")
    drawn = np.random.default_rng(seed).choice(np.asarray(values, float), (samples, len(values)))
    low, high = np.quantile(statistic(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % Student interval of the mean of a few seeds.

    Raises:
        ValueError: fewer than two values have no spread.
    """
    n = len(values)
    if n < 2:
        raise ValueError("an interval over seeds needs at least two of them")
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = _t_quantile(n - 1) * deviation / math.sqrt(n)
    return mean - half, mean + half


def difference_interval(values: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """95 % Welch interval of the difference of two means (``values`` minus ``others``), variances unequal.

    Raises:
        ValueError: fewer than two values on a side.
    """
    if min(len(values), len(others)) < 2:
        raise ValueError("an interval over seeds needs at least two of them on each side")
    parts = [float(np.var(x, ddof=1)) / len(x) for x in (values, others)]
    difference, variance = float(np.mean(values) - np.mean(others)), sum(parts)
    if variance == 0.0:
        return difference, difference
    # Welch-Satterthwaite: the degrees of freedom that the two variances together are worth, rounded down.
    freedom = variance**2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (values, others), strict=True))
    half = _t_quantile(max(1, int(freedom))) * math.sqrt(variance)
    return difference - half, difference + half


def _t_quantile(freedom: int) -> float:
    """97.5 % quantile of Student's distribution."""
    from scipy.special import stdtrit  # 0.2 s, and only what prints figures of several seeds needs it

    return float(stdtrit(freedom, 0.975))


# ---- orders


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


def share_in_order(success: np.ndarray, failure: np.ndarray) -> float:
    """Share of all pairs of a success [m] and a failure [n] in which the success is worth more; ties count half.

    The area under the ROC curve, or Mann and Whitney's U over the number of pairs.

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


@dataclass(frozen=True)
class Auc:
    """How surely a figure tells successes from failures: a share of pairs in right order, and where it may truly be."""

    value: float
    low: float
    high: float
    successes: int
    failures: int

    @property
    def outcome(self) -> Literal["pass", "fail", "undetermined"]:
        """Whether the interval lies below 0.5 (fail), above it (pass), or holds it (undetermined)."""
        if self.high < 0.5:
            return "fail"
        return "pass" if self.low > 0.5 else "undetermined"

    def __str__(self) -> str:
        """``0.83 (0.61 to 0.94)``."""
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def auc_of(success: np.ndarray, failure: np.ndarray) -> Auc:
    """``share_in_order`` with its 95 % interval.

    Args:
        success: float64 [m], what each successful episode is worth; at least one.
        failure: float64 [n], what each failed one is worth; at least one.

    Raises:
        ValueError: one of the two is empty.
    """
    m, n = len(success), len(failure)
    value = share_in_order(success, failure)
    return Auc(value, *auc_interval(value, m, n), successes=m, failures=n)


def auc_interval(value: float, m: int, n: int) -> tuple[float, float]:
    """95 % interval of a share of pairs that was found with m successes and n failures.

    Method 5 of Newcombe (2006, Statistics in Medicine 25:559-573): the variance of Hanley and McNeil (1982, Radiology
    143:29-36), solved as a score interval. DeLong's interval and the bootstrap have no width where all pairs agree,
    as they often do with few episodes, whether a reward is good or bad; this one keeps its width there, and is not
    random.
    """

    def excess(true: float) -> float:
        """Above 0 where a true share is too far from the one that was found."""
        spare = (m + n) / 2 - 1
        spread = 1 + spare * (1 - true) / (2 - true) + spare * true / (1 + true)
        return (value - true) ** 2 - Z_95**2 * true * (1 - true) * spread / (m * n)

    return _root(excess, value, 0.0), _root(excess, value, 1.0)


def _root(excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Where a function rises above 0 on the way from ``inside`` to ``outside`` (at ``inside`` it may be 0 too)."""
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if excess(middle) <= 0:
            inside = middle
        else:
            outside = middle
    return outside
