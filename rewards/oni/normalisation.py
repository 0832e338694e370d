"""Scores made comparable: standardised over what is heard in play, and cut below a quantile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.protocols import State


def weighted_moments(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation over the last axis.

    Args:
        values: float [..., N].
        weights: float [N], not all 0.

    Returns:
        Two arrays [...]; a standard deviation of 0 (all alike) is given as 1.
    """
    mean = np.average(values, axis=-1, weights=weights)
    variance = np.average((values - mean[..., None]) ** 2, axis=-1, weights=weights)
    # What rounding leaves of the variance of equal numbers is no spread.
    degenerate = variance <= (1e-6 * np.maximum(np.abs(mean), 1e-6)) ** 2
    return mean, np.where(degenerate, 1.0, np.sqrt(variance))


def weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    """The least of the values below or at which lies a share of at least ``q`` of the weight.

    Args:
        values: float [N], N at least 1.
        weights: float [N], none negative, not all 0.
        q: in [0, 1].
    """
    order = np.argsort(values, kind="stable")
    heaped = np.cumsum(weights[order])
    at = np.searchsorted(heaped, q * heaped[-1] * (1 - 1e-12), side="left")
    return float(values[order][min(at, len(values) - 1)])


@dataclass(frozen=True)
class Normalisation:
    """``z = (score - mean) / std``, and 0 where ``z`` does not exceed a threshold.

    The threshold is a quantile, but never below the mean: else a caption between the two would be fined, while worse
    ones pay 0.
    """

    mean: float
    std: float
    threshold: float
    """In units of z."""

    @classmethod
    def of(cls, scores: np.ndarray, weights: np.ndarray, quantile: float) -> Normalisation:
        """Moments and quantile of scores [N] that occur with weights [N]."""
        mean, std = (float(x) for x in weighted_moments(scores, weights))
        return cls(mean, std, max(weighted_quantile((scores - mean) / std, weights, quantile), 0.0))

    def values(self, scores: np.ndarray) -> np.ndarray:
        """What scores are worth."""
        z = (scores - self.mean) / self.std
        return np.where(z > self.threshold, z, 0.0)

    def state_dict(self) -> State:
        """The three numbers."""
        return {"mean": self.mean, "std": self.std, "threshold": self.threshold}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Normalisation:
        """The one that was saved."""
        return cls(float(state["mean"]), float(state["std"]), float(state["threshold"]))
