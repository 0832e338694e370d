"""Observations to features: one small module a key, joined by one layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from agents.config import ENCODED_KEYS, EncoderConfig
from envs.protocols import ObsSpec

NUM_GLYPHS = 5977
"""``nle.nethack.MAX_GLYPH`` + 1 (NLE 1.3)."""


class KeyEncoder(Protocol):
    """Encodes one observation key ``[N, ...]`` to ``[N, width]``."""

    width: int

    def __call__(self, x: Tensor) -> Tensor:
        """[N, ...] to float [N, width]."""
        ...


class CropEncoder(nn.Module):
    """Glyphs around the hero, int [N, H, W]: embedding, two 3x3 convolutions, flattened."""

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
        return self.convolutions(self.embedding(glyphs.int()).permute(0, 3, 1, 2))


class BlstatsEncoder(nn.Module):
    """Bottom line statistics [N, 27]: signed logarithm, one layer.

    The logarithm keeps score, gold and turns in range while depth and hit points stay visible.
    """

    def __init__(self, config: EncoderConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.width = config.blstats_hidden
        self.layers = nn.Sequential(nn.Linear(shape[0], self.width), nn.ReLU())

    def forward(self, blstats: Tensor) -> Tensor:
        """Any number type [N, 27] to [N, width]."""
        x = blstats.float()
        return self.layers(torch.sign(x) * torch.log1p(x.abs()) / 3.0)


class MessageEncoder(nn.Module):
    """The message's first bytes, uint8 [N, 256]: byte embedding, two strided convolutions, maximum."""

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

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """``{key: [N, ...]}`` to float [N, hidden]."""
        return self.joint(torch.cat([self.parts[key](obs[key]) for key in self.keys], dim=1))


def initialise(module: nn.Module, gain: float) -> None:
    """Orthogonal weights of the given gain and zero biases, in every linear and convolutional layer."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
