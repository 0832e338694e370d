"""Intervals for the figures that people compare."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z_95 = 1.959963984540054


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927): sound at 0, at 1 and for few trials.

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


def bootstrap_interval(values: Sequence[float], seed: int = 0, samples: int = 10_000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean.

    Raises:
        ValueError: there are no values.
    """
    if len(values) == 0:
        raise ValueError("the interval of nothing is not defined")
    drawn = np.random.default_rng(seed).choice(np.asarray(values, float), (samples, len(values)))
    low, high = np.quantile(drawn.mean(1), [0.025, 0.975])
    return float(low), float(high)


_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


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
    # Welch-Satterthwaite: the degrees of freedom that the two variances together are worth.
    freedom = variance**2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (values, others), strict=True))
    half = _t_quantile(int(freedom)) * math.sqrt(variance)
    return difference - half, difference + half


def _t_quantile(freedom: int) -> float:
    """97.5 % quantile of Student's distribution; the normal one beyond ten degrees of freedom."""
    return _T_975[max(1, freedom) - 1] if freedom <= len(_T_975) else Z_95
