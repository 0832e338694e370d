"""Running statistics that survive a resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.protocols import State


class RunningMoments:
    """Count, mean and variance of a stream of numbers.

    Batches are merged by the parallel update of Chan, Golub and LeVeque (1979), in float64.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._sum_of_squares = 0.0

    def update(self, values: np.ndarray) -> None:
        """Take in a batch of any shape; an empty one changes nothing."""
        self.merge(moments(values))

    def merge(self, batch: np.ndarray) -> None:
        """Take in a batch by its ``moments``."""
        count, mean, sum_of_squares = int(batch[0]), float(batch[1]), float(batch[2])
        if count == 0:
            return
        delta, total = mean - self.mean, self.count + count
        self._sum_of_squares += sum_of_squares + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count = total

    @property
    def std(self) -> float:
        """Population standard deviation; 1 until two different values were seen."""
        if self.count < 2 or self._sum_of_squares == 0.0:
            return 1.0
        return float(np.sqrt(self._sum_of_squares / self.count))

    def state_dict(self) -> State:
        """Count, mean and sum of squared deviations."""
        return {"count": self.count, "mean": float(self.mean), "sum_of_squares": float(self._sum_of_squares)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.count, self.mean = int(state["count"]), float(state["mean"])
        self._sum_of_squares = float(state["sum_of_squares"])


def moments(values: np.ndarray) -> np.ndarray:
    """float64 [3]: count, mean and sum of squared deviations of numbers of any shape; zeros for none."""
    if values.size == 0:
        return np.zeros(3)
    batch = values.astype(np.float64).ravel()
    mean = batch.mean()
    return np.array([batch.size, mean, ((batch - mean) ** 2).sum()])
