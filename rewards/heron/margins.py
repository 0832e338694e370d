"""Margins from data: how much two segments' factors usually differ, in whatever unit a factor has.

They are taken from play and frozen; those of factors that begin to vary later are taken when they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs.protocols import State
from rewards.heron.config import ComparisonConfig
from rewards.heron.factors import FactorTable
from rewards.heron.pairs import random_tuples
from rewards.heron.tree import Level, PreferenceTree

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
    alike. Where no larger one was seen, it lies midway below the quantile: a varying factor always decides some pairs.
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


class GrowingTree:
    """Holds the tree of the present margins.

    A factor that was the same in all segments when margins were taken counts any difference, until segments differ so
    much that their quantile is above 0: then it takes its margin, once.

    Args:
        config: how it compares, and where margins come from.
        table: the ranked factors.
        rng: of a stage's margins.
        aside_rng: of late margins.

    Attributes:
        tree: None before the first margins.
    """

    def __init__(
        self, config: ComparisonConfig, table: FactorTable, rng: np.random.Generator, aside_rng: np.random.Generator
    ) -> None:
        self._config, self._table = config, table
        self._rng, self._aside_rng = rng, aside_rng
        self.tree: PreferenceTree | None = None
        self._late = np.zeros(len(table.names), bool)
        """Factors that were dead when margins were taken, and are to have one taken from data."""

    def begin_stage(self, factors: np.ndarray, task: np.ndarray) -> None:
        """Take margins anew; where no two segments are of one task, all stays as it is.

        Args:
            factors: float64 [N, F] of N segments.
            task: int [N].
        """
        if len(np.unique(task)) == len(task):
            return
        given = [factor.margin for factor in self._table.factors]
        margins = self._margins(factors, given, task, self._rng)
        self._late = dead_factors(factors, task) & np.array([margin is None for margin in given])
        self._grow(margins)

    def take_late_margins(self, factors: np.ndarray, task: np.ndarray) -> None:
        """Of factors that were dead before, and whose quantile is above 0 by now; all others keep theirs."""
        if self.tree is None or not self._late.any():
            return
        varies = self._late & ~dead_factors(factors, task)
        if not varies.any():
            return
        levels = zip(self.tree.levels, varies.tolist(), strict=True)
        margins = self._margins(
            factors, [None if late else level.margin for level, late in levels], task, self._aside_rng
        )
        found = varies & (margins > 0)
        if found.any():
            self._late &= ~found
            self._grow(margins)

    def _margins(
        self, factors: np.ndarray, given: Sequence[float | None], task: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        return quantile_margins(factors, given, self._config.margin_quantile, rng, task)

    def _grow(self, margins: np.ndarray) -> None:
        levels = [
            Level(name=name, sign=int(sign), margin=float(margin))
            for name, sign, margin in zip(self._table.names, self._table.signs, margins, strict=True)
        ]
        self.tree = PreferenceTree(levels, self._config.mode)

    def state_dict(self) -> State:
        """Margins, and which are still to come."""
        margins = None if self.tree is None else np.array([level.margin for level in self.tree.levels])
        return {"margins": margins, "late": self._late.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.tree = None
        if state["margins"] is not None:
            self._grow(np.array(state["margins"], np.float64))
        self._late = np.array(state["late"], bool)
