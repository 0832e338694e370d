"""What a network makes of observations, for others to read: rewards that share its encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from agents.devices import autocast
from agents.model import ActorCritic

_CHUNK = 4096
"""Observations encoded at a time."""


def encoding(model: ActorCritic, precision: str) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """A function from observations ``{key: [N, ...]}`` to float32 [N, W], by the encoder as it is at each call.

    Args:
        model: the network; no gradient flows into it.
        precision: ``auto``, ``fp32`` or ``bf16``.
    """

    @torch.inference_mode()
    def encode(obs: Mapping[str, np.ndarray]) -> np.ndarray:
        where = model.value.weight.device
        num = len(next(iter(obs.values())))
        pieces = []
        for start in range(0, num, _CHUNK):
            chunk = {key: torch.from_numpy(x[start : start + _CHUNK]).to(where) for key, x in obs.items()}
            with autocast(precision, where):
                pieces.append(model.encoder(chunk).float().cpu())
        return torch.cat(pieces).numpy()

    return encode
