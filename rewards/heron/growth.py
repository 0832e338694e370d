"""A preference tree as it comes to its margins: taken from play, frozen, and late for factors that vary late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs.protocols import State
from rewards.heron.config import ComparisonConfig
from rewards.heron.factors import FactorTable
from rewards.heron.margins import dead_factors, quantile_margins
from rewards.heron.tree import Level, PreferenceTree


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
