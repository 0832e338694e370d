"""Absorbing diffusion over action tokens: a network that fills in any places, given any others."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from agents.config import Decoding, MaskedConfig
from agents.heads.decoding import DenoisingHead
from agents.heads.plan_head import Denoiser, NetworkDenoiser, PlanCondition, drop_some


class MaskedHead(DenoisingHead):
    """Masked diffusion (Sahoo et al. 2024; Shi et al. 2024) without a time input. A ``PlanHead``.

    With absorbing noise the best denoiser does not depend on time, and the likelihood bound is that of an
    any-order autoregressive model: with the number m of masked places uniform in 1 to H, and the places uniform,
    -log p(plan) <= H E[mean cross-entropy of the masked places]. The loss is that over H.

    Args:
        config: sizes; maskings of each plan in one update.
        num_features: F.
        num_actions: A.
    """

    def __init__(self, config: MaskedConfig, num_features: int, num_actions: int) -> None:
        super().__init__(config, num_features, num_actions)
        self._maskings = config.maskings

    def loss(self, condition: PlanCondition, plans: Tensor, generator: np.random.Generator) -> Tensor:
        """Cross-entropy [N], the mean over masked places, in nats a token."""
        maskings = self._maskings
        condition = drop_some(condition, self.config.condition_dropout, generator)
        masked = torch.from_numpy(draw_maskings(len(plans) * maskings, self.horizon, generator)).to(plans.device)
        plans = plans.repeat(maskings, 1)
        rows = torch.arange(len(condition.hero), device=plans.device).repeat(maskings)
        partial = plans.masked_fill(masked, self.network.mask)
        log_probs = self.network.log_probs(partial, self.network.embed(condition), rows)
        loss = functional.nll_loss(log_probs.transpose(1, 2), plans, reduction="none")
        loss = loss.masked_fill(~masked, 0.0).sum(-1) / masked.sum(-1)
        return loss.unflatten(0, (maskings, -1)).mean(0)

    def denoiser(self, condition: PlanCondition, decoding: Decoding) -> Denoiser:
        """Asks the network about partly filled plans."""
        return NetworkDenoiser(self.network, self.network.embed(condition, decoding))


def draw_maskings(num: int, horizon: int, generator: np.random.Generator) -> np.ndarray:
    """Which places are masked, bool [num, horizon]: first how many, uniform in 1 to ``horizon``, then which.

    The numbers are spread evenly over the batch (one offset, equal steps), each being uniform by itself: less noise
    in the loss than with independent numbers.
    """
    level = (generator.random() + np.arange(num) / num) % 1.0
    count = 1 + (level * horizon).astype(np.int64)
    turn = generator.random((num, horizon), dtype=np.float32).argsort(-1).argsort(-1)
    return turn < count[:, None]
