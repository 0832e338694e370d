"""One version of the reward: what is published to those who score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.protocols import State
from rewards.ensemble import AGGREGATES
from rewards.heron.inputs import InputScale

_CHUNK = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorer:
    """Weights and scales, frozen when it was published.

    Members' outputs have a zero and a unit of their own; each is standardised by its mean and spread over recent
    steps, as they came out of the network, before they become one. All is computed in float64, so that a step is
    worth the same to the last digit that is kept whoever is scored beside it.
    """

    weights: tuple[np.ndarray, ...]
    """float32, as in :meth:`~rewards.heron.network.RewardNetwork.parameters`."""
    scale: InputScale
    """Of the inputs."""
    output_mean: np.ndarray
    """float64 [K]."""
    output_std: np.ndarray
    """float64 [K], above 0."""
    aggregate: str
    """Key of ``AGGREGATES``."""
    version: int
    """1 for the first."""

    def opinions(self, inputs: np.ndarray) -> np.ndarray:
        """float64 [K, M]: each member's standardised reward of each step, float32 [M, D]."""
        outputs = np.empty((len(self.output_mean), len(inputs)))
        for start in range(0, len(inputs), _CHUNK):
            rows = slice(start, start + _CHUNK)
            outputs[:, rows] = self._outputs(self.scale(inputs[rows]).astype(np.float64))
        return (outputs - self.output_mean[:, None]) / self.output_std[:, None]

    def _outputs(self, scaled: np.ndarray) -> np.ndarray:
        """float64 [K, M], as they come."""
        found = []
        for first, bias, second, bias_2, out, bias_3 in zip(*self.weights, strict=True):
            hidden = np.maximum(scaled @ first.astype(np.float64) + bias, 0)
            hidden = np.maximum(hidden @ second.astype(np.float64) + bias_2, 0)
            found.append((hidden @ out.astype(np.float64) + bias_3)[:, 0])
        return np.stack(found)

    def score(self, inputs: np.ndarray) -> np.ndarray:
        """The reward of each step.

        Args:
            inputs: float32 [..., D].

        Returns:
            The members' rewards as one, float32 [...].

        Raises:
            ValueError: D is not that of the inputs that the model has learned from.
        """
        if inputs.shape[-1] != len(self.scale.mean):
            raise ValueError(f"the reward model reads {len(self.scale.mean)} inputs a step, got {inputs.shape[-1]}")
        opinions = self.opinions(inputs.reshape(-1, inputs.shape[-1]))
        opinions = opinions.reshape(len(opinions), *inputs.shape[:-1])
        return AGGREGATES[self.aggregate](opinions).astype(np.float32)

    def state(self) -> State:
        """Everything."""
        return {
            "weights": [weights.copy() for weights in self.weights],
            "input_mean": self.scale.mean.copy(),
            "input_std": self.scale.std.copy(),
            "output_mean": self.output_mean.copy(),
            "output_std": self.output_std.copy(),
            "aggregate": self.aggregate,
            "version": self.version,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Scorer:
        """What ``state`` described."""
        return cls(
            weights=tuple(np.array(weights, np.float32) for weights in state["weights"]),
            scale=InputScale(
                mean=np.array(state["input_mean"], np.float32), std=np.array(state["input_std"], np.float32)
            ),
            output_mean=np.array(state["output_mean"], np.float64),
            output_std=np.array(state["output_std"], np.float64),
            aggregate=str(state["aggregate"]),
            version=int(state["version"]),
        )
