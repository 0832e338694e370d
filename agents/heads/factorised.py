"""All action tokens in one pass, none of which sees another: what a chunk without modes needs, and a plain baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agents.config import Decoding
from agents.heads.decoding import DenoisingHead
from agents.heads.plan_head import Denoiser, NetworkDenoiser, PlanCondition, drop_some


class FactorisedHead(DenoisingHead):
    """The product of the marginals of each place. A ``PlanHead``; with a horizon of 1, behaviour cloning.

    Of a decoding it reads temperature and guidance.

    Args:
        config: sizes.
        num_features: F.
        num_actions: A.
    """

    one_pass = True

    def loss(self, condition: PlanCondition, plans: Tensor, generator: np.random.Generator) -> Tensor:
        """-log p(plan) / H, [N]."""
        condition = drop_some(condition, self.config.condition_dropout, generator)
        rows = torch.arange(len(plans), device=plans.device)
        log_probs = _Blind(NetworkDenoiser(self.network, self.network.embed(condition)))(plans, rows)
        return -log_probs.gather(-1, plans[..., None])[..., 0].mean(-1)

    def denoiser(self, condition: PlanCondition, decoding: Decoding) -> Denoiser:
        """Says the same whatever is filled in."""
        return _Blind(NetworkDenoiser(self.network, self.network.embed(condition, decoding)))


@dataclass(frozen=True, slots=True)
class _Blind:
    """Asks a denoiser as if nothing were filled in."""

    denoiser: Denoiser

    @property
    def mask(self) -> int:
        """The token of a free place."""
        return self.denoiser.mask

    def __call__(self, tokens: Tensor, rows: Tensor, places: Tensor | None = None) -> Tensor:
        """Log-probabilities [M, P, A + 1] under the conditions ``rows`` [M]."""
        return self.denoiser(torch.full_like(tokens, self.mask), rows, places)
