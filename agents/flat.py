"""A network's parameters in one stretch of memory: one pass to average, clip and step them all."""

from __future__ import annotations

import torch
from torch import nn

_ALIGNED = 16
"""Floats to which each parameter's start is rounded up: 64 bytes, a cache line and a vector register."""


class FlatParameters:
    """Makes every parameter of a network, and its gradient, a view of one tensor.

    Names, shapes and values stay; the network trains and is saved as before. Call it after the network was
    moved to its device.

    Attributes:
        values: float32 [N], a leaf that an optimiser can step; padding between parameters stays 0.
        gradient: float32 [N], ``values.grad``.
    """

    def __init__(self, model: nn.Module) -> None:
        parameters = list(model.parameters())
        starts = [0]
        for parameter in parameters:
            starts.append(starts[-1] + -(-parameter.numel() // _ALIGNED) * _ALIGNED)
        device = parameters[0].device
        self.values = nn.Parameter(torch.zeros(starts[-1], device=device))
        self.gradient = torch.zeros(starts[-1], device=device)
        self.values.grad = self.gradient
        for parameter, start in zip(parameters, starts, strict=False):
            rows = slice(start, start + parameter.numel())
            view = self.values.data[rows].view_as(parameter)
            view.copy_(parameter.data)
            parameter.data = view
            parameter.grad = self.gradient[rows].view_as(parameter)

    def clip(self, max_norm: float) -> torch.Tensor:
        """Scale the gradient down to ``max_norm``; returns its norm before."""
        norm = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm
