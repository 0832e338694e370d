"""Margins from data: how much two segments' factors usually differ, in whatever unit a factor has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewards.heron.pairs import random_tuples

_ROUNDING = 1e-12
"""Of a factor's largest value: numbers no further apart are the same one, rounded differently."""


def quantile_margins(
    values: np.ndarray,
    given: Sequence[float | None],
    quantile: float,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
    num_pairs: int = 4096,
) -> np.ndarray:
    """The margin of each factor: the given one, else so large that this share of random pairs does not exceed it.

    A margin lies midway between the quantile of the differences and the next larger one that was seen, so that no
    difference sits on it and a factor in another unit (scaled by a number) gets a margin that treats every pair
    alike. Where no larger one was seen, it lies midway below the quantile: a factor that varies always has a say.
    Where the quantile is 0 (a rare or binary factor), so is the margin: any difference decides.

    Args:
        values: float64 [N, F] over segments.
        given: F margins, none where it is to be taken from the values.
        quantile: in [0, 1).
        rng: where chance comes from; it is not touched where all margins are given.
        groups: int [N]; only segments of one group make a pair. None: all are of one group.
        num_pairs: pairs drawn.

    Returns:
        float64 [F].

    Raises:
        ValueError: shapes do not fit, a factor is not finite, the quantile is outside [0, 1), or no two segments are
            of one group.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] != len(given):
        raise ValueError(f"values of {len(given)} factors were expected, not an array {values.shape}")
    if not 0 <= quantile < 1:
        raise ValueError(f"the quantile of margins is {quantile}, it must be at least 0 and below 1")
    open_factors = [number for number, margin in enumerate(given) if margin is None]
    margins = np.array([0.0 if margin is None else margin for margin in given], np.float64)
    if not open_factors:
        return margins
    first, second = random_tuples(_groups(values, groups), 2, num_pairs, rng)
    if not len(first):
        raise ValueError("margins are taken from pairs of segments, and no two segments are of one group")
    for number in open_factors:
        factor = values[:, number]
        if not np.isfinite(factor).all():
            raise ValueError(f"factor {number + 1} of the ranking has a value that is not finite")
        same = _ROUNDING * float(np.abs(factor).max())
        margins[number] = _between(np.sort(np.abs(factor[first] - factor[second])), quantile, same)
    return margins


def dead_factors(values: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Factors that tell no two segments apart: constant, up to rounding (1e-12 of the largest value).

    Args:
        values: float64 [N, F] over segments.
        groups: int [N]; a factor that only differs from group to group is dead. None: all are of one group.

    Returns:
        bool [F]; of no segments, all.
    """
    values = np.asarray(values, np.float64)
    _, member, inverse = np.unique(_groups(values, groups), return_index=True, return_inverse=True)
    spread = np.abs(values - values[member][inverse]).max(axis=0, initial=0)
    return spread <= _ROUNDING * np.abs(values).max(axis=0, initial=0)


def _groups(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    if groups is None:
        return np.zeros(len(values), np.int64)
    if len(groups) != len(values):
        raise ValueError(f"{len(groups)} groups do not fit {len(values)} segments")
    return groups


def _between(differences: np.ndarray, quantile: float, same: float) -> float:
    """The margin of sorted differences [P]: midway between two neighbours that are further apart than ``same``."""
    at = int(quantile * (len(differences) - 1))
    gaps = np.diff(differences, prepend=0.0) > same
    if not gaps[: at + 1].any():
        return 0.0
    above = np.flatnonzero(gaps[at + 1 :])
    upper = at + 1 + above[0] if len(above) else np.flatnonzero(gaps)[-1]
    below = differences[upper - 1] if upper else 0.0
    return float(below + differences[upper]) / 2
