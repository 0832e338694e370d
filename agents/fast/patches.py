"""Two 3x3 convolutions over maps of which few patches differ, each computed once.

What a convolution gives at a place depends on the 3x3 patch of cells around it alone, and games show the same
patches of floor, wall and darkness over and over: of the 41,472 in a minibatch of 512 crops, 100 to 4,000 differ.
So patches are numbered in the order in which they first come, the layer is computed once a number, and the
numbers form the map that the next layer's patches are cut from. A layer at its patches is a sum over the nine
taps of rows of a small table, [cells, 9, channels] = cells times weights.

The loops are compiled (``_patches.cpp``); where that was not built, ``is_compiled`` is False.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_patches: Any
try:
    _patches = importlib.import_module("agents._patches")
except ImportError:  # there was no compiler when this was installed
    _patches = None

_TAPS = 9


def is_compiled() -> bool:
    """Whether this module's functions can be called."""
    return _patches is not None


@dataclass(frozen=True, slots=True)
class Patches:
    """The distinct 3x3 patches of N maps, and where they are."""

    cells: np.ndarray
    """int32 [P, 9]: the cells of each patch, row by row; -1 outside the map."""
    places: np.ndarray
    """int32 [N, H', W']: which patch surrounds a place."""


def find_patches(maps: np.ndarray, stride: int = 1) -> Patches:
    """The 3x3 patches around every cell, or every ``stride``-th, of int32 maps [N, H, W] of cells from 0 on."""
    num, height, width = maps.shape
    places = np.empty((num, -(-height // stride), -(-width // stride)), np.int32)
    cells = np.empty((places.size, _TAPS), np.int32)
    count = _patches.find_patches(np.ascontiguousarray(maps), num, height, width, stride, cells, places)
    return Patches(cells[:count], places)


def convolved(features: Tensor, layer: nn.Conv2d, patches: Patches) -> Tensor:
    """Rectified 3x3 convolution with padding 1, at distinct patches.

    Args:
        features: [U, E] of the cells that the patches consist of.
        layer: E to C channels.
        patches: P of them, of cells below U.

    Returns:
        float32 [P, C].
    """
    assert layer.bias is not None
    table = (features @ layer.weight.permute(1, 2, 3, 0).flatten(1)).float()
    if torch.is_grad_enabled():
        return _Layer.apply(table, layer.bias, patches.cells)  # pyright: ignore[reportReturnType]
    return _layer(table, layer.bias, patches.cells)


def placed(features: Tensor, patches: Patches) -> Tensor:
    """Features of patches [P, C] where the patches are: float32 [N, C * H' * W'], channel by channel."""
    if torch.is_grad_enabled():
        return _Place.apply(features, patches.places)  # pyright: ignore[reportReturnType]
    return _place(features, patches.places)


def _layer(table: Tensor, bias: Tensor, cells: np.ndarray) -> Tensor:
    num, channels = len(cells), len(bias)
    out = torch.empty(num, channels)
    arrays = (table.detach().contiguous().numpy(), cells, bias.detach().numpy())
    _patches.layer(*arrays, len(table), num, channels, out.numpy())
    return out


def _place(features: Tensor, places: np.ndarray) -> Tensor:
    num, (num_features, channels) = len(places), features.shape
    area = places.size // num
    out = torch.empty(num, channels * area)
    _patches.place(features.detach().contiguous().numpy(), places, num_features, num, area, channels, out.numpy())
    return out


class _Layer(torch.autograd.Function):
    """max(0, bias + sum over taps k of table[cells[p, k], k]) for each patch p."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, bias: Tensor, cells: np.ndarray) -> Tensor:
        out = _layer(table, bias, cells)
        ctx.save_for_backward(out)
        ctx.cells, ctx.num_cells = cells, len(table)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (out,) = ctx.saved_tensors
        num, channels = out.shape
        grad_table = torch.zeros(ctx.num_cells, _TAPS * channels)
        grad_bias = torch.zeros(channels)
        arrays = (grad_out.contiguous().numpy(), out.numpy(), ctx.cells)
        _patches.layer_backward(*arrays, ctx.num_cells, num, channels, grad_table.numpy(), grad_bias.numpy())
        return grad_table, grad_bias, None


class _Place(torch.autograd.Function):
    """out[n, c, y, x] = features[places[n, y, x], c]."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, places: np.ndarray) -> Tensor:
        ctx.places, ctx.shape = places, features.shape
        return _place(features, places)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        places, (num_features, channels) = ctx.places, ctx.shape
        grad = torch.zeros(num_features, channels)
        area = places.size // len(places)
        _patches.place_backward(
            grad_out.contiguous().numpy(), places, num_features, len(places), area, channels, grad.numpy()
        )
        return grad, None
