"""Several networks that learn side by side: their opinions, how they are made one, and their gradient steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from envs.protocols import State

Inputs = TypeVar("Inputs", Tensor, Sequence[np.ndarray])
"""N inputs: what ``len`` counts and slices cut."""
_Read = TypeVar("_Read", Tensor, Sequence[np.ndarray], contravariant=True)


class Network(Protocol[_Read]):
    """K members that each give an input one number."""

    def __call__(self, inputs: _Read, /) -> Tensor:
        """float32 [K, N] for N inputs."""
        ...

    def parameters(self) -> Sequence[Tensor]:
        """All weights, always in the same order."""
        ...


AGGREGATES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {
        "mean": lambda opinions: opinions.mean(0),
        "median": lambda opinions: np.median(opinions, 0),
        "mean_minus_std": lambda opinions: opinions.mean(0) - opinions.std(0),
        "min": lambda opinions: opinions.min(0),
    }
)
"""How opinions [K, N] of K members become one [N]."""


def disagreement(opinions: np.ndarray) -> np.ndarray:
    """Standard deviation over the members, [N]; 0 for a single member."""
    return opinions.std(0)


class Ensemble(Generic[Inputs]):
    """K networks and their optimiser (AdamW).

    Args:
        network: the members.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
    """

    _CHUNK = 1024

    def __init__(self, network: Network[Inputs], learning_rate: float, weight_decay: float) -> None:
        self.network = network
        self._parameters = list(network.parameters())
        self._optimiser = torch.optim.AdamW(self._parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)

    def predict(self, inputs: Inputs) -> np.ndarray:
        """float64 [K, N]: each member's number for each of N inputs, N at least 1."""
        with torch.no_grad():
            pieces = [self.network(inputs[start : start + self._CHUNK]) for start in range(0, len(inputs), self._CHUNK)]
        return torch.cat(pieces, 1).numpy().astype(np.float64)

    def step(self, inputs: Inputs, loss: Callable[[Tensor], Tensor]) -> float:
        """One gradient step; returns the loss before it.

        Args:
            inputs: N of them.
            loss: the loss of the members' numbers [K, N].
        """
        self._optimiser.zero_grad()
        value = loss(self.network(inputs))
        value.backward()
        self._optimiser.step()
        return value.item()

    def state_dict(self) -> State:
        """Weights, and AdamW's steps and moments."""
        moments = [self._optimiser.state.get(p, {}) for p in self._parameters]
        return {
            "weights": [_array(p) for p in self._parameters],
            "moments": [{name: _array(x) for name, x in entry.items()} for entry in moments],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``.

        Raises:
            ValueError: the state is that of networks of another shape.
        """
        shapes = [np.shape(weights) for weights in state["weights"]]
        if shapes != [tuple(p.shape) for p in self._parameters]:
            raise ValueError("the saved model has other networks than the configuration asks for")
        with torch.no_grad():
            for parameter, weights in zip(self._parameters, state["weights"], strict=True):
                parameter.copy_(torch.from_numpy(np.array(weights)))
        self._optimiser.state.clear()
        for parameter, entry in zip(self._parameters, state["moments"], strict=True):
            if entry:
                self._optimiser.state[parameter] = {
                    name: torch.from_numpy(np.array(x, np.float32)) for name, x in entry.items()
                }


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().copy()
