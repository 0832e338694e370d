"""Filling in plans: which places each pass over the network fills in, and with which tokens.

Every number that chance decides comes from ``uniform``, by plan and place, and plans that are complete leave the
batch, so that a plan does not depend on what is planned beside it.

Shape letters: N conditions, K candidates of each, M plans side by side, H tokens, P places, A actions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from agents.config import Decoding
from agents.heads.plan_head import Denoiser, PlanSample


class Filling(NamedTuple):
    """What one pass over the network lets be filled in, for M plans."""

    places: Tensor
    """int64 [M, P], no place twice in a plan."""
    valid: Tensor
    """bool [M, P]; False where a plan fills in fewer than P."""
    log_probs: Tensor
    """float32 [M, P, A + 1] of the tokens there."""


def decode(
    denoiser: Denoiser, start: Tensor, decoding: Decoding, uniform: Tensor, forced: Tensor | None = None
) -> PlanSample:
    """Fill in plans.

    Args:
        denoiser: says what belongs in a free place.
        start: int64 [N, K, H], MASK where free.
        decoding: how.
        uniform: float32 [N, K, H, 2] in [0, 1): for the token of each place, and for its turn in the order.
        forced: int64 [N, K, H], tokens to fill in instead of drawing them; None = draw.
    """
    tokens = start.flatten(0, 1).clone()
    level, turn = uniform.flatten(0, 1).unbind(-1)
    log_prob = torch.zeros(len(tokens), device=start.device)
    evaluations = torch.zeros(len(tokens), dtype=torch.int64, device=start.device)
    number = 0
    while len(plans := unfinished(tokens, denoiser.mask)):
        places, valid, log_probs = fill(denoiser, tokens.view_as(start), plans, turn, decoding, number)
        if forced is None:
            drawn = draw(log_probs, level[plans].gather(1, places))
        else:
            drawn = forced.flatten(0, 1)[plans].gather(1, places)
        filled = log_probs.gather(-1, drawn[..., None])[..., 0].masked_fill(~valid, 0.0)
        log_prob = log_prob.index_add(0, plans, filled.sum(-1))
        tokens[plans] = placed(tokens[plans], places, valid, drawn)
        evaluations[plans] += 1
        number += 1
    return PlanSample(
        tokens=tokens.view_as(start),
        log_prob=log_prob.view(start.shape[:2]),
        evaluations=evaluations.view(start.shape[:2]),
    )


def unfinished(tokens: Tensor, mask: int) -> Tensor:
    """Which of the plans int64 [M, H] have free places: int64 [m]."""
    return (tokens == mask).any(-1).nonzero()[:, 0]


def fill(denoiser: Denoiser, tokens: Tensor, plans: Tensor, turn: Tensor, decoding: Decoding, number: int) -> Filling:
    """One pass over the network.

    Args:
        denoiser: says what belongs in a free place.
        tokens: int64 [N, K, H] of all plans.
        plans: int64 [M], those with free places.
        turn: float32 [N * K, H]; with a random order, places with lower numbers come first.
        decoding: how.
        number: of the pass, from 0.
    """
    partial = tokens.flatten(0, 1)[plans]
    free = partial == denoiser.mask
    if decoding.kind == "entropy" or (decoding.kind == "passes" and decoding.order == "confidence"):
        everywhere = _ask(denoiser, tokens, plans, None, number)
        places, valid = _surest(everywhere, free, decoding, number)
        chosen = places[..., None].expand(-1, -1, everywhere.shape[-1])
        return Filling(places, valid, everywhere.gather(1, chosen))
    if decoding.kind == "left_to_right":
        first = torch.arange(free.shape[-1], device=free.device, dtype=turn.dtype).expand(free.shape)
        count = torch.ones_like(plans)
    else:
        first, count = turn[plans], _share(free, decoding.passes - number)
    order = first.masked_fill(~free, torch.inf).argsort(dim=-1, stable=True)
    places, valid = _first(order, count)
    return Filling(places, valid, _ask(denoiser, tokens, plans, places, number))


def _ask(denoiser: Denoiser, tokens: Tensor, plans: Tensor, places: Tensor | None, number: int) -> Tensor:
    """Log-probabilities for some of the plans; once a condition where its candidates are still the same."""
    N, K, _ = tokens.shape
    rows = plans // K
    if number or K == 1 or not bool((tokens == tokens[:, :1]).all()):
        return denoiser(tokens.flatten(0, 1)[plans], rows, places)
    everywhere = denoiser(tokens[:, 0], torch.arange(N, device=tokens.device))
    return everywhere[rows] if places is None else everywhere[rows[:, None], places]


def _surest(log_probs: Tensor, free: Tensor, decoding: Decoding, number: int) -> tuple[Tensor, Tensor]:
    """Places and which of them count, [M, P] both, by what the network says of all places [M, H, A + 1]."""
    if decoding.kind == "passes":
        doubt = -log_probs.amax(-1)
        count = _share(free, decoding.passes - number)
        return _first(doubt.masked_fill(~free, torch.inf).argsort(dim=-1, stable=True), count)
    entropy = torch.special.entr(log_probs.exp()).sum(-1).masked_fill(~free, torch.inf)
    ascending, order = entropy.sort(dim=-1, stable=True)
    # The sum without the largest, for each number of places: what comes before the last of them.
    before = torch.nn.functional.pad(ascending.cumsum(-1)[:, :-1], (1, 0))
    count = ((before <= decoding.entropy_bound) & ascending.isfinite()).sum(-1)
    return _first(order, count)


def _share(free: Tensor, passes_left: int) -> Tensor:
    """How many places [M] the next pass fills in so that all are filled in the passes left."""
    return (free.sum(-1) // max(passes_left, 1)).clamp(min=1)


def _first(order: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The first ``count`` [M] places of each order [M, H]: places, and which count, both [M, P]."""
    P = int(count.max())
    return order[:, :P], torch.arange(P, device=order.device) < count[:, None]


def draw(log_probs: Tensor, level: Tensor) -> Tensor:
    """Tokens int64 [...] by inverting the distribution functions of log-probabilities [..., A + 1] at levels [...]."""
    cumulative = log_probs.exp().cumsum(-1, dtype=torch.float64)
    reached = level[..., None] * cumulative[..., -1:]
    return (cumulative <= reached).sum(-1).clamp(max=log_probs.shape[-1] - 1)


def placed(tokens: Tensor, places: Tensor, valid: Tensor, drawn: Tensor) -> Tensor:
    """Tokens [M, H] with those drawn [M, P] in their places, where they count."""
    return tokens.scatter(1, places, torch.where(valid, drawn, tokens.gather(1, places)))
