"""Yendor's network inside a Stable-Baselines3 actor-critic policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from agents.config import EncoderConfig, ModelConfig
from agents.encoders import Encoder
from agents.sb3.spaces import obs_specs

_RENAMED = {"features_extractor.encoder.": "encoder.", "action_net.": "head.logits.", "value_net.": "value."}
"""Beginnings of names in an SB3 policy, and what they are called in an ``ActorCritic``."""


class EncoderExtractor(BaseFeaturesExtractor):
    """``agents.encoders.Encoder`` as SB3's features extractor.

    Args:
        observation_space: a Dict of Boxes, or a Box (which becomes the key ``vector``).
        config: the encoder's sizes, as ``EncoderConfig.model_dump`` gives them.
    """

    def __init__(self, observation_space: spaces.Space, config: Mapping[str, Any]) -> None:
        sizes = EncoderConfig(**config)
        super().__init__(observation_space, sizes.hidden)
        self.encoder = Encoder(sizes, obs_specs(observation_space))

    def forward(self, observations: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Features [N, hidden]."""
        if isinstance(observations, Tensor):
            observations = {"vector": observations}
        return self.encoder(observations)


def network_kwargs(config: ModelConfig) -> dict[str, Any]:
    """``policy_kwargs`` that make SB3's actor-critic exactly our ``ActorCritic`` with one stream.

    One shared encoder, no layers between it and the two linear heads. SB3 itself then initialises as we do
    (orthogonal, gain sqrt 2 in the encoder, 0.01 in the policy head, 1 in the value head) and uses Adam with
    an epsilon of 1e-5.

    Raises:
        ValueError: the network has a recurrent core, which SB3's policies have not.
    """
    if config.core != "none":
        raise ValueError(f"model.core is '{config.core}', but Stable-Baselines3 policies have no memory; allowed: none")
    return {
        "features_extractor_class": EncoderExtractor,
        "features_extractor_kwargs": {"config": config.encoder.model_dump()},
        "net_arch": [],
        "normalize_images": False,
    }


def actor_critic_weights(policy: ActorCriticPolicy) -> dict[str, np.ndarray]:
    """Weights of a policy built with ``network_kwargs``, under an ``ActorCritic``'s names."""
    weights = {}
    for name, tensor in policy.state_dict().items():
        for theirs, ours in _RENAMED.items():
            if name.startswith(theirs):
                weights[ours + name.removeprefix(theirs)] = _array(tensor)
    return weights


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
