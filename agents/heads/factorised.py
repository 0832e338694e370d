"""All action tokens in one pass, none of which sees another: what a chunk without modes needs, and a plain baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from agents.config import Decoding, FactorisedConfig, OneStepConfig
from agents.heads.decoding import decode
from agents.heads.plan_head import Denoiser, NetworkDenoiser, PlanCondition, PlanSample, PlanTransformer, drop_some


class FactorisedHead(nn.Module):
    """The product of the marginals of each place. A ``PlanHead``; with a horizon of 1, behaviour cloning.

    Of a decoding it reads temperature and guidance.

    Args:
        config: sizes.
        num_features: F.
        num_actions: A.
    """

    def __init__(self, config: FactorisedConfig | OneStepConfig, num_features: int, num_actions: int) -> None:
        super().__init__()
        self.config = config
        self.horizon, self.num_actions = config.horizon, num_actions
        self.network = PlanTransformer(config, num_features, num_actions)

    def loss(self, condition: PlanCondition, plans: Tensor, generator: np.random.Generator) -> Tensor:
        """-log p(plan) / H, [N]."""
        condition = drop_some(condition, self.config.condition_dropout, generator)
        rows = torch.arange(len(plans), device=plans.device)
        log_probs = _Blind(NetworkDenoiser(self.network, self.network.embed(condition)))(plans, rows)
        return -log_probs.gather(-1, plans[..., None])[..., 0].mean(-1)

    @torch.no_grad()
    def sample(
        self,
        condition: PlanCondition,
        num_candidates: int,
        decoding: Decoding,
        uniform: Tensor,
        given: Tensor | None = None,
    ) -> PlanSample:
        """K candidates for each of N conditions, as ``PlanHead``."""
        shape = (len(condition.hero), num_candidates, self.horizon)
        start = uniform.new_full(shape, self.network.mask, dtype=torch.int64) if given is None else given
        return decode(self.denoiser(condition, decoding), start, _ONE_PASS, uniform)

    def log_prob(
        self,
        condition: PlanCondition,
        plans: Tensor,
        decoding: Decoding,
        uniform: Tensor,
        given: Tensor | None = None,
    ) -> Tensor:
        """[N, K] of plans [N, K, H], as ``PlanHead``."""
        start = torch.full_like(plans, self.network.mask) if given is None else given
        return decode(self.denoiser(condition, decoding), start, _ONE_PASS, uniform, forced=plans).log_prob

    def denoiser(self, condition: PlanCondition, decoding: Decoding) -> Denoiser:
        """Says the same whatever is filled in."""
        return _Blind(NetworkDenoiser(self.network, self.network.embed(condition, decoding)))


_ONE_PASS = Decoding(kind="passes", passes=1)


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
