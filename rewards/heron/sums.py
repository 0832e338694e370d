"""The factors' weighted sum: what reward engineering would do with a ranking, to compare HERON with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs.data import RewardPart, Rollout
from envs.protocols import State
from rewards.heron.factors import FactorTable


class FactorSum:
    """Part ``heron``: pays ``sum_i weight_i * sign_i * factor_i`` at each step, of the factors' values as they are.

    Args:
        table: the factors, the most important first.
        weights: one a factor (``WeightedSumConfig.weights``, ``PowersOfTenConfig.weights``).

    Raises:
        ValueError: there are not as many weights as factors.
    """

    version = 0
    part_names = ("heron",)

    def __init__(self, table: FactorTable, weights: Sequence[float]) -> None:
        if len(weights) != len(table.names):
            raise ValueError(f"{len(weights)} weights for {len(table.names)} factors ({', '.join(table.names)})")
        self._table = table
        self._signed_weights = np.array(weights, np.float64) * table.signs

    def initial_state(self, num_games: int) -> State:
        """Nothing is remembered of an episode."""
        return {}

    def score(self, rollout: Rollout, state: State) -> tuple[Mapping[str, RewardPart], State]:
        """[T, B], valid everywhere.

        Raises:
            ValueError: a factor is not finite.
        """
        value = (self._table.per_step(rollout) @ self._signed_weights).astype(np.float32)
        return {"heron": RewardPart(value=value, valid=np.ones(value.shape, bool))}, state

    def state_dict(self) -> State:
        """Nothing is learned."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to continue from."""
