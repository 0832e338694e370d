"""One action token after the other: each sees those before it, whose keys and values are kept."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.config import AutoregressiveConfig, Decoding
from agents.heads.decoding import draw
from agents.heads.plan_head import Context, Denoiser, PlanCondition, PlanSample, PlanTransformer, attention, drop_some


class AutoregressiveHead(nn.Module):
    """Tokens from the first to the last, by the chain rule. A ``PlanHead``.

    MASK stands before the first token. Of a decoding it reads temperature and guidance. A token that was given
    changes what follows it, not what comes before.

    Args:
        config: sizes.
        num_features: F.
        num_actions: A.
    """

    def __init__(self, config: AutoregressiveConfig, num_features: int, num_actions: int) -> None:
        super().__init__()
        self.config = config
        self.horizon, self.num_actions = config.horizon, num_actions
        self.network = PlanTransformer(config, num_features, num_actions)

    def loss(self, condition: PlanCondition, plans: Tensor, generator: np.random.Generator) -> Tensor:
        """-log p(plan) / H, [N]."""
        condition = drop_some(condition, self.config.condition_dropout, generator)
        rows = torch.arange(len(plans), device=plans.device)
        return -self._conditionals(plans, self.network.embed(condition), rows).mean(-1)

    def log_prob(
        self,
        condition: PlanCondition,
        plans: Tensor,
        decoding: Decoding,
        uniform: Tensor,
        given: Tensor | None = None,
    ) -> Tensor:
        """[N, K] of plans [N, K, H] in one pass, as ``PlanHead``."""
        N, K, _ = plans.shape
        rows = torch.arange(N, device=plans.device).repeat_interleave(K)
        context = self.network.embed(condition, decoding)
        found = self._conditionals(plans.flatten(0, 1), context, rows).view_as(plans)
        if given is not None:
            found = found.masked_fill(given != self.network.mask, 0.0)
        return found.sum(-1)

    def _conditionals(self, plans: Tensor, context: Context, rows: Tensor) -> Tensor:
        """Log-probability of each token of plans [M, H], given the condition and the tokens before it: [M, H]."""
        before = functional.pad(plans[:, :-1], (1, 0), value=self.network.mask)
        causal = torch.ones(self.horizon, self.horizon, dtype=torch.bool, device=plans.device).tril()
        seen = functional.pad(causal, (context.keys.shape[-2], 0), value=True)
        log_probs = self.network.log_probs(before, context, rows, mask=seen)
        return log_probs.gather(-1, plans[..., None])[..., 0]

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
        N, K, H = len(condition.hero), num_candidates, self.horizon
        level = uniform[..., 0].flatten(0, 1)
        rows = torch.arange(N, device=level.device).repeat_interleave(K)
        tokens = torch.full((N * K, H), self.network.mask, device=level.device)
        log_prob = torch.zeros(N * K, device=level.device)
        steps = _Steps(self.network, self.network.embed(condition, decoding), rows)
        for place in range(H):
            log_probs = steps.after(tokens[:, place - 1]) if place else steps.first()
            drawn = draw(log_probs, level[:, place])
            chosen = log_probs.gather(-1, drawn[:, None])[:, 0]
            if given is not None:
                asked = given.flatten(0, 1)[:, place]
                free = asked == self.network.mask
                drawn, chosen = torch.where(free, drawn, asked), chosen.masked_fill(~free, 0.0)
            tokens[:, place] = drawn
            log_prob += chosen
        return PlanSample(
            tokens=tokens.view(N, K, H),
            log_prob=log_prob.view(N, K),
            evaluations=torch.full((N, K), H, device=level.device),
        )

    def denoiser(self, condition: PlanCondition, decoding: Decoding) -> Denoiser:
        """There is none.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "the autoregressive head fills in tokens from the first to the last and cannot be steered on the way; "
            "allowed with it: sampling plans and choosing the best"
        )


class _Steps:
    """Log-probabilities token by token, for M plans; keys and values of the tokens before are kept."""

    def __init__(self, network: PlanTransformer, context: Context, rows: Tensor) -> None:
        self._network, self._context, self._rows = network, context, rows
        self._layers = network.layers
        self._kept: list[Tensor] = []
        self._place = 0
        self._seen = context.keys.shape[-2]

    def first(self) -> Tensor:
        """[M, A + 1] of the first token; computed once a condition."""
        network, places = self._network, self._context.places_of(self._rows)
        x = (network.token.weight[network.mask] + network.place[0]).expand(self._context.keys.shape[2], 1, -1)
        for layer, start in zip(self._layers, self._context.keys, strict=True):
            query, own = layer.projected(x)
            keys = torch.cat([start, own], -2)
            x = layer.finished(x, attention(query, keys))
            # Room for the tokens to come.
            self._kept.append(functional.pad(keys, (0, 0, 0, network.horizon - 1)).index_select(1, places))
        return self._log_probs(x.index_select(0, places))

    def after(self, tokens: Tensor) -> Tensor:
        """[M, A + 1] of the token after ``tokens`` int64 [M]."""
        self._place += 1
        seen = self._seen + self._place
        x = (self._network.token(self._context.doubled(tokens)) + self._network.place[self._place])[:, None]
        for layer, kept in zip(self._layers, self._kept, strict=True):
            query, own = layer.projected(x)
            kept[..., seen, :] = own[..., 0, :]
            x = layer.finished(x, attention(query, kept[..., : seen + 1, :]))
        return self._log_probs(x)

    def _log_probs(self, x: Tensor) -> Tensor:
        """[M, A + 1] of [M or 2 M, 1, width]."""
        network, context = self._network, self._context
        logits = context.led(network.logits(network.norm(x)))
        return network.normalised(logits, context, self._rows, network.never[self._place])[:, 0]
