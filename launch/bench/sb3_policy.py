"""The references' network inside Stable-Baselines3's actor-critic policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from agents.config import EncoderConfig
from agents.sb3.vec_env import obs_specs
from launch.bench.reference_network import ReferenceEncoder


class ReferenceExtractor(BaseFeaturesExtractor):
    """``ReferenceEncoder`` as SB3's features extractor.

    Args:
        observation_space: a Dict of Boxes: ``glyphs_crop`` and ``blstats``.
        sizes: fields of ``EncoderConfig``.
    """

    def __init__(self, observation_space: spaces.Space, sizes: Mapping[str, Any]) -> None:
        super().__init__(observation_space, sizes["hidden"])
        shapes = {key: spec.shape for key, spec in obs_specs(observation_space).items()}
        self.encoder = ReferenceEncoder(sizes, shapes)

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Features [N, hidden]."""
        return self.encoder(observations)


def policy_kwargs(config: EncoderConfig) -> dict[str, Any]:
    """One shared encoder, and no layers between it and the two linear heads."""
    return {
        "features_extractor_class": ReferenceExtractor,
        "features_extractor_kwargs": {"sizes": config.model_dump()},
        "net_arch": [],
        "normalize_images": False,
    }
