"""The reward model's networks, K members in one, and the loss that they learn by.

A step is worth one number; a segment is worth the sum over its steps, not the mean: what is compared is then what an
agent that is paid the steps collects. Sums grow with the length, so outputs begin small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_OUTPUT_STD = 0.1
"""Of a unit's share of the first outputs: sums over a few dozen steps begin where a sigmoid is not flat."""


class RewardNetwork:
    """K networks of two hidden layers (ReLU) that share nothing but the matrix products they are computed in.

    Args:
        members: K.
        num_inputs: D.
        hidden: units H of each hidden layer of each member.
        generator: where the initial weights come from; torch's global generator is never drawn from.
    """

    def __init__(self, members: int, num_inputs: int, hidden: int, generator: torch.Generator) -> None:
        self._weights = [
            _normal((members, num_inputs, hidden), math.sqrt(2 / num_inputs), generator),
            _normal((members, 1, hidden), 0.0, generator),
            _normal((members, hidden, hidden), math.sqrt(2 / hidden), generator),
            _normal((members, 1, hidden), 0.0, generator),
            _normal((members, hidden, 1), _OUTPUT_STD / math.sqrt(hidden), generator),
            _normal((members, 1, 1), 0.0, generator),
        ]

    def __call__(self, inputs: Tensor) -> Tensor:
        """float32 [K, M] for M steps, float32 [M, D]."""
        first, bias, second, bias_2, out, bias_3 = self._weights
        x = torch.relu_(torch.bmm(inputs.expand(len(first), *inputs.shape), first).add_(bias))
        x = torch.relu_(torch.bmm(x, second).add_(bias_2))
        return (x * out.mT).sum(2) + bias_3[:, 0]

    def parameters(self) -> Sequence[Tensor]:
        """Weights and biases of the three layers: [K, D, H], [K, 1, H], [K, H, H], [K, 1, H], [K, H, 1], [K, 1, 1]."""
        return self._weights


def segment_sums(rewards: Tensor, lengths: np.ndarray) -> Tensor:
    """Sum over the steps of each segment.

    Args:
        rewards: float [K, M], the segments one after the other.
        lengths: int64 [N], which sum up to M.

    Returns:
        float [K, N]; an empty segment is worth 0.
    """
    segment = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    return rewards.new_zeros(len(rewards), len(lengths)).index_add(1, segment, rewards)


def preference_loss(
    first: Tensor, second: Tensor, targets: np.ndarray, margins: np.ndarray, weights: np.ndarray, pin: float
) -> Tensor:
    """Cross-entropy of Bradley and Terry with an adaptive margin, and a pin for the constant that it leaves open.

    Of each pair ``-t log p - (1 - t) log(1 - p)`` with ``p = sigmoid(first - second - margin (2t - 1))``: the side that
    is better has to be so by the margin (Wang et al. 2024, arXiv 2401.06080, section 2.2.5), which a tie, t = 1/2,
    leaves as it is. To it comes ``pin (first + second)^2`` (Eisenstein et al. 2023, arXiv 2312.09244, section 2):
    a constant added to all rewards changes no comparison.

    Args:
        first: float [K, P]: worth of the first segment of each pair, to each member.
        second: of the second one.
        targets: float [P] in [0, 1], p(the first is better).
        margins: float [P], at least 0.
        weights: float [K, P]; a member whose weights are all 0 has no loss.
        pin: weight of the second term.

    Returns:
        The sum over members of their weighted means.
    """
    target, margin, weight = (torch.from_numpy(x.astype(np.float32)) for x in (targets, margins, weights))
    logits = first - second - margin * (2 * target - 1)
    losses = functional.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    losses = weight * (losses + pin * (first + second).square())
    return (losses.sum(1) / weight.sum(1).clamp(min=1e-6)).sum()


def _normal(shape: tuple[int, ...], std: float, generator: torch.Generator) -> Tensor:
    return nn.Parameter(torch.randn(shape, generator=generator) * std)
