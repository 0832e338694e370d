"""Filling in plans: which places each pass over the network fills in, and with which tokens.

Every number that chance decides comes from ``uniform``, by plan and place, and complete plans leave the batch, so
that a plan does not depend on what is planned beside it.

Shape letters: N conditions, K candidates of each, M plans side by side, H tokens, P places, A actions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.config import Decoding, PlanHeadConfig
from agents.heads.plan_head import Denoiser, PlanCondition, PlanSample, PlanTransformer


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
    N, K, _ = start.shape
    level, turn = uniform.flatten(0, 1).unbind(-1)
    number = torch.arange(N * K, device=start.device)
    plans = _Plans(
        number=number,
        tokens=start.flatten(0, 1),
        turn=turn,
        wanted=level if forced is None else forced.flatten(0, 1),
        log_prob=torch.zeros_like(level[:, 0]),
        evaluations=torch.zeros_like(number),
    )
    num_free = (plans.tokens == denoiser.mask).sum(-1)
    most, alike = int(num_free.max()), num_alike(start)
    if _looks_first(decoding) or most > int(num_free.min()):
        plans = _in_any_order(denoiser, plans, decoding, K, alike, forced is not None)
    else:
        plans = _in_known_order(denoiser, plans, decoding, K, alike, forced is not None, most)
    return PlanSample(
        tokens=plans.tokens.view_as(start),
        log_prob=plans.log_prob.view(N, K),
        evaluations=plans.evaluations.view(N, K),
    )


class _Plans(NamedTuple):
    """M plans in the making."""

    number: Tensor
    """int64 [M], which of all plans each is."""
    tokens: Tensor
    """int64 [M, H]."""
    turn: Tensor
    """float32 [M, H]."""
    wanted: Tensor
    """[M, H]: levels to draw the tokens with, or the tokens themselves."""
    log_prob: Tensor
    """float32 [M] of the tokens filled in so far."""
    evaluations: Tensor
    """int64 [M]."""

    def among(self, which: Tensor) -> _Plans:
        """Those that ``which`` (bool [M], or their places) names."""
        return _Plans(*(x[which] for x in self))


def _in_any_order(denoiser: Denoiser, plans: _Plans, decoding: Decoding, K: int, alike: int, is_forced: bool) -> _Plans:
    """Fill in plans pass by pass; those that are complete leave."""
    complete: list[_Plans] = []
    for passes in range(plans.tokens.shape[1] + 1):
        free = (plans.tokens == denoiser.mask).any(-1)
        if not bool(free.all()):
            complete.append(plans.among(~free))
            plans = plans.among(free)
        if not len(plans.number):
            break
        rows = plans.number // K
        filling = fill(denoiser, plans.tokens, rows, plans.turn, decoding, passes, 1 if passes else alike)
        chosen = plans.wanted.gather(1, filling.places)
        drawn = chosen if is_forced else draw(filling.log_probs, chosen)
        plans = plans._replace(
            tokens=placed(plans.tokens, filling, drawn),
            log_prob=plans.log_prob + log_prob_of(filling, drawn),
            evaluations=plans.evaluations + 1,
        )
    if len(complete) == 1:
        return complete[0]
    plans = _Plans(*(torch.cat(parts) for parts in zip(*complete, strict=True)))
    return plans.among(plans.number.argsort())


def _in_known_order(
    denoiser: Denoiser, plans: _Plans, decoding: Decoding, K: int, alike: int, is_forced: bool, num_free: int
) -> _Plans:
    """The same as ``_in_any_order``, faster, where all have as many free places and the network no say in the order."""
    order = _free_first(_turns(decoding, plans.turn), plans.tokens == denoiser.mask)
    wanted, rows = plans.wanted.gather(1, order), plans.number // K
    tokens, log_prob = plans.tokens, plans.log_prob
    passes = end = 0
    while end < num_free:
        share = 1 if decoding.kind == "left_to_right" else (num_free - end) // max(decoding.passes - passes, 1)
        begin, end = end, end + max(share, 1)
        places, chosen = order[:, begin:end], wanted[:, begin:end]
        log_probs = _ask(denoiser, tokens, rows, places, 1 if passes else alike)
        drawn = chosen if is_forced else draw(log_probs, chosen)
        tokens = tokens.scatter(1, places, drawn)
        log_prob = log_prob + log_probs.gather(-1, drawn[..., None]).sum((1, 2))
        passes += 1
    return plans._replace(tokens=tokens, log_prob=log_prob, evaluations=plans.evaluations + passes)


def num_alike(start: Tensor) -> int:
    """K where the candidates of each game start alike, so that the first pass is the same for them; else 1."""
    return start.shape[1] if bool((start == start[:, :1]).all()) else 1


class Filling(NamedTuple):
    """What one pass over the network lets be filled in, for M plans."""

    places: Tensor
    """int64 [M, P], no place twice in a plan."""
    valid: Tensor
    """bool [M, P]; False where a plan fills in fewer than P."""
    log_probs: Tensor
    """float32 [M, P, A + 1] of the tokens there."""


def fill(
    denoiser: Denoiser,
    tokens: Tensor,
    rows: Tensor,
    turn: Tensor,
    decoding: Decoding,
    passes: int,
    alike: int = 1,
    *,
    whole: bool = False,
) -> Filling:
    """One pass over the network.

    Args:
        denoiser: says what belongs in a free place.
        tokens: int64 [M, H] of plans with free places.
        rows: int64 [M], their conditions.
        turn: float32 [M, H]; with a random order, places with lower numbers come first.
        decoding: how.
        passes: number of passes before this one.
        alike: so many plans in a row are the same, and asked about once.
        whole: return all free places, not only those to be filled in now (``valid``).
    """
    free = tokens == denoiser.mask
    if decoding.kind == "left_to_right":
        count = torch.ones_like(rows)
    else:
        count = (free.sum(-1) // max(decoding.passes - passes, 1)).clamp(min=1)
    everywhere = _ask(denoiser, tokens, rows, None, alike) if _looks_first(decoding) else None
    if everywhere is None:
        order = _free_first(_turns(decoding, turn), free)
    elif decoding.kind == "entropy":
        order, count = _surest(everywhere, free, decoding.entropy_bound)
    else:
        order = _free_first(-everywhere.amax(-1), free)
    P = int((free.sum(-1) if whole else count).max())
    places, valid = order[:, :P], torch.arange(P, device=order.device) < count[:, None]
    found = _ask(denoiser, tokens, rows, places, alike) if everywhere is None else _at(everywhere, places)
    return Filling(places, valid, found)


def _looks_first(decoding: Decoding) -> bool:
    """Whether the order depends on what the network says."""
    return decoding.kind == "entropy" or (decoding.kind == "passes" and decoding.order == "confidence")


def _turns(decoding: Decoding, turn: Tensor) -> Tensor:
    """What places are sorted by where the network has no say: [M, H], or [H] for all plans."""
    if decoding.kind == "left_to_right":
        return torch.arange(float(turn.shape[1]), device=turn.device)
    return turn


def _ask(denoiser: Denoiser, tokens: Tensor, rows: Tensor, places: Tensor | None, alike: int) -> Tensor:
    """Log-probabilities [M, P, A + 1], computed once for plans that are alike."""
    if alike == 1:
        return denoiser(tokens, rows, places)
    everywhere = denoiser(tokens[::alike], rows[::alike]).repeat_interleave(alike, 0)
    return everywhere if places is None else _at(everywhere, places)


def _at(everywhere: Tensor, places: Tensor) -> Tensor:
    """[M, P, A + 1] at ``places`` [M, P] of [M, H, A + 1]."""
    return everywhere.gather(1, places[..., None].expand(-1, -1, everywhere.shape[-1]))


def _free_first(turn: Tensor, free: Tensor) -> Tensor:
    """Places [M, H]: those that are free, by their turn, then the others."""
    return turn.masked_fill(~free, torch.inf).argsort(dim=-1, stable=True)


def _surest(log_probs: Tensor, free: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Free places by rising entropy, then the others, [M, H]; and how many the bound lets be filled in, [M]."""
    entropy = torch.special.entr(log_probs.exp()).sum(-1).masked_fill(~free, torch.inf)
    ascending, order = entropy.sort(dim=-1, stable=True)
    # The sum without the largest, for each number of places: that of the places before the last of them.
    before = functional.pad(ascending.cumsum(-1)[:, :-1], (1, 0))
    return order, ((before <= bound) & ascending.isfinite()).sum(-1)


def draw(log_probs: Tensor, level: Tensor) -> Tensor:
    """Tokens int64 [...] by inverting the distribution functions of log-probabilities [..., A + 1] at levels [...]."""
    cumulative = log_probs.exp().cumsum(-1, dtype=torch.float64)
    reached = level[..., None] * cumulative[..., -1:]
    return (cumulative <= reached).sum(-1).clamp(max=log_probs.shape[-1] - 1)


def placed(tokens: Tensor, filling: Filling, drawn: Tensor) -> Tensor:
    """Tokens int64 [M, H] with those drawn [M, P] in their places, where they count."""
    return tokens.scatter(1, filling.places, torch.where(filling.valid, drawn, tokens.gather(1, filling.places)))


def log_prob_of(filling: Filling, drawn: Tensor) -> Tensor:
    """float32 [M]: the sum over what counts of the tokens drawn [M, P]."""
    return filling.log_probs.gather(-1, drawn[..., None])[..., 0].masked_fill(~filling.valid, 0.0).sum(-1)


_ONE_PASS = Decoding(kind="passes", passes=1)


class DenoisingHead(nn.Module):
    """A head whose plans are filled in by asking its denoiser.

    Args:
        config: sizes.
        num_features: F.
        num_actions: A.
    """

    one_pass = False
    """Fill in everything at once, whatever a decoding says."""

    def __init__(self, config: PlanHeadConfig, num_features: int, num_actions: int) -> None:
        super().__init__()
        self.config = config
        self.horizon, self.num_actions = config.horizon, num_actions
        self.network = PlanTransformer(config, num_features, num_actions)

    def _way(self, decoding: Decoding) -> Decoding:
        return _ONE_PASS if self.one_pass else decoding

    def denoiser(self, condition: PlanCondition, decoding: Decoding) -> Denoiser:
        """As ``PlanHead``."""
        raise NotImplementedError

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
        return decode(self.denoiser(condition, decoding), start, self._way(decoding), uniform)

    def log_prob(
        self,
        condition: PlanCondition,
        plans: Tensor,
        decoding: Decoding,
        uniform: Tensor,
        given: Tensor | None = None,
    ) -> Tensor:
        """[N, K] of plans [N, K, H], in the order that ``uniform`` gives, as ``PlanHead``."""
        start = torch.full_like(plans, self.network.mask) if given is None else given
        return decode(self.denoiser(condition, decoding), start, self._way(decoding), uniform, forced=plans).log_prob
