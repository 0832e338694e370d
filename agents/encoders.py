"""Observations to features: one small module a key, joined by one layer.

Games show the same windows and messages over and over. What such a key adds to the joint layer depends on its
rows alone, so on a CPU it is computed once for each distinct row (``agents.fast.repeats``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain, pairwise
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.config import ENCODED_KEYS, EncoderConfig
from agents.fast import patches
from agents.fast.repeats import DistinctRows, Memo, distinct_rows, joint_shares
from envs.protocols import ObsSpec

NUM_GLYPHS = 5977
"""``nle.nethack.MAX_GLYPH`` + 1 (NLE 1.3)."""
_COLUMNS, _ROWS = 79, 21
"""Of NetHack's map."""


class KeyEncoder(Protocol):
    """Encodes one observation key ``[N, ...]`` to ``[N, width]``."""

    width: int
    repeats: bool
    """Whether equal rows are common."""

    def __call__(self, x: Tensor) -> Tensor:
        """[N, ...] to float [N, width]."""
        ...


class CropEncoder(nn.Module):
    """Glyphs around the hero, int [N, H, W]: embedding, two 3x3 convolutions, flattened."""

    repeats = True

    def __init__(self, config: EncoderConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        channels = config.crop_channels
        self.embedding = nn.Embedding(NUM_GLYPHS, config.glyph_embedding)
        self.convolutions = nn.Sequential(
            nn.Conv2d(config.glyph_embedding, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=config.crop_stride, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        rows, columns = (1 + (side - 1) // config.crop_stride for side in shape)
        self.width = channels * rows * columns

    def forward(self, glyphs: Tensor) -> Tensor:
        """Int [N, H, W] to [N, width]."""
        if glyphs.is_cpu and patches.is_compiled() and len(glyphs):
            return self._of_patches(glyphs.int().numpy())
        return self.convolutions(self.embedding(glyphs.int()).permute(0, 3, 1, 2))

    def _of_patches(self, glyphs: np.ndarray) -> Tensor:
        """The same, each distinct patch computed once."""
        first, _, second, *_ = cast("Iterable[Any]", self.convolutions)
        present, cells = numbered(glyphs)
        inner = patches.find_patches(cells)
        outer = patches.find_patches(inner.places, second.stride[0])
        features = patches.convolved(self.embedding(torch.from_numpy(present)), first, inner)
        return patches.placed(patches.convolved(features, second, outer), outer)


class BlstatsEncoder(nn.Module):
    """Bottom line statistics [N, 27]: signed logarithm, ``blstats_layers`` layers.

    The logarithm keeps score, gold and turns in range while depth and hit points stay visible.
    """

    repeats = False

    def __init__(self, config: EncoderConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.width = config.blstats_hidden
        widths = [shape[0], *[self.width] * config.blstats_layers]
        layers = ((nn.Linear(inner, outer), nn.ReLU()) for inner, outer in pairwise(widths))
        self.layers = nn.Sequential(*chain.from_iterable(layers))

    def forward(self, blstats: Tensor) -> Tensor:
        """Any number type [N, 27] to [N, width]."""
        x = blstats.float()
        return self.layers(torch.copysign(x.abs().log1p_().div_(3.0), x))


class MessageEncoder(nn.Module):
    """The message's first bytes, uint8 [N, 256]: byte embedding, two strided convolutions, maximum."""

    repeats = True

    def __init__(self, config: EncoderConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.num_bytes = min(config.message_bytes, shape[0])
        self.width = config.message_channels
        self.embedding = nn.Embedding(256, 16)
        self.convolutions = nn.Sequential(
            nn.Conv1d(16, self.width, 5, stride=2),
            nn.ReLU(),
            nn.Conv1d(self.width, self.width, 5, stride=2),
            nn.ReLU(),
        )

    def forward(self, message: Tensor) -> Tensor:
        """uint8 [N, 256] to [N, width]."""
        letters = self.embedding(message[:, : self.num_bytes].int()).transpose(1, 2)
        return self.convolutions(letters).amax(-1)


class DenseEncoder(nn.Module):
    """Any numeric array [N, ...], flattened, one layer."""

    repeats = False

    def __init__(self, width: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(int(torch.Size(shape).numel()), width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """[N, ...] to [N, width]."""
        return self.layers(x.flatten(1).float())


_BUILDERS: Mapping[str, Callable[[EncoderConfig, tuple[int, ...]], Any]] = dict(
    zip(
        ENCODED_KEYS,
        (
            CropEncoder,
            BlstatsEncoder,
            MessageEncoder,
            lambda config, shape: DenseEncoder(config.map_hidden, shape),
            lambda config, shape: DenseEncoder(config.vector_hidden, shape),
        ),
        strict=True,
    )
)


class Encoder(nn.Module):
    """All observation keys to one feature vector ``[N, hidden]``.

    Raises:
        ValueError: an observation key has no encoder.
    """

    def __init__(self, config: EncoderConfig, obs_spec: Mapping[str, ObsSpec]) -> None:
        super().__init__()
        unknown = sorted(set(obs_spec) - set(_BUILDERS))
        if unknown:
            raise ValueError(f"no encoder for observation '{unknown[0]}'; known: {', '.join(_BUILDERS)}")
        self.keys = tuple(sorted(obs_spec))
        parts = {key: _BUILDERS[key](config, obs_spec[key].shape) for key in self.keys}
        self.parts = nn.ModuleDict(parts)
        self.width = config.hidden
        joint = sum(part.width for part in parts.values())
        self.joint = nn.Sequential(nn.Linear(joint, self.width), nn.ReLU())
        initialise(self, gain=2**0.5)

    def forward(self, obs: Mapping[str, Tensor], memo: Memo | None = None) -> Tensor:
        """``{key: [N, ...]}`` to float [N, hidden].

        Args:
            obs: the observations.
            memo: results of rows that occurred before, with these weights; without gradients only.
        """
        layer = cast(nn.Linear, self.joint[0])
        if not layer.weight.is_cpu:
            # Looking for repeated rows would make the host wait for the device.
            return self.joint(torch.cat([part(obs[key]) for key, part in self._parts()], dim=1))
        shares = self._shares(obs, layer.weight) if memo is None else [memo.compute(key, obs[key]) for key in self.keys]
        return functional.relu(sum(shares, layer.bias))

    def memo(self) -> Memo:
        """Computes what each key adds to the joint layer, and remembers it; good until the weights change."""
        parts = self._parts()
        weights = cast(nn.Linear, self.joint[0]).weight.detach().split([part.width for _, part in parts], 1)
        functions = {key: partial(_share, part, weight) for (key, part), weight in zip(parts, weights, strict=True)}
        return Memo(functions, forget={key for key, part in parts if not part.repeats})

    def _parts(self) -> list[tuple[str, KeyEncoder]]:
        return [(key, cast(KeyEncoder, self.parts[key])) for key in self.keys]

    def _shares(self, obs: Mapping[str, Tensor], weight: Tensor) -> list[Tensor]:
        """What each key adds to the joint layer: [N, hidden] each."""
        rows = [distinct_rows(obs[key]) if part.repeats else DistinctRows(obs[key]) for key, part in self._parts()]
        features = [part(distinct.rows) for (_, part), distinct in zip(self._parts(), rows, strict=True)]
        shares = joint_shares(weight, features)
        return [distinct.spread(share) for distinct, share in zip(rows, shares, strict=True)]


class CoordinateEmbedding(nn.Module):
    """A square of the map, int64 [N, 2], as the sum of embeddings of its column, its row and itself: [N, width].

    The bottom line's logarithm blurs coordinates, and a plan turns on single squares. Columns and rows alone make
    squares alike that lie on either side of a wall. -1 = no square, which has embeddings of its own.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.columns, self.rows = nn.Embedding(_COLUMNS + 1, width), nn.Embedding(_ROWS + 1, width)
        self.squares = nn.Embedding((_COLUMNS + 1) * (_ROWS + 1), width)
        nn.init.normal_(self.squares.weight, std=0.3)

    def forward(self, square: Tensor) -> Tensor:
        """(column, row) int64 [N, 2] to [N, width]."""
        column, row = (square + 1).unbind(-1)
        return self.columns(column) + self.rows(row) + self.squares(column * (_ROWS + 1) + row)


def _share(part: KeyEncoder, weight: Tensor, x: Tensor) -> Tensor:
    return functional.linear(part(x), weight).float()


def numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of small integers, sorted, and the int32 array of their numbers.

    Faster than ``np.unique``, which sorts them all.

    Raises:
        IndexError: a value is negative.
    """
    if values.min() < 0:
        raise IndexError(f"value {values.min()}, expected 0 or more")
    seen = np.zeros(values.max() + 1, np.bool_)
    seen[values] = True
    present = np.flatnonzero(seen)
    number = np.empty(len(seen), np.int32)
    number[present] = np.arange(len(present), dtype=np.int32)
    return present, number[values]


def initialise(module: nn.Module, gain: float) -> None:
    """Orthogonal weights of the given gain and zero biases, in every linear and convolutional layer."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
