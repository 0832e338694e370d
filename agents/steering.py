"""Steering plans towards what a score likes: pure functions over a denoiser and a score.

``best_of_n`` chooses among finished plans. The others aim at p(plan) exp(scale score(plan)), where p is what the
decoding gives without a score: ``fk`` (Feynman-Kac steering, Singhal et al. 2025) weighs plans by how they would be
completed now, and resamples them; ``svdd`` (Li et al. 2024) lets each plan choose among proposals of its next tokens;
``svdd_r`` does both. ``fk`` and ``svdd_r`` are right for many candidates, whatever the score of plans in the making.

At a checkpoint all free places are drawn at once, given those filled in so far; that completion is scored, and
the tokens that the pass fills in are taken from it. So no network evaluations are added, and at the last checkpoint
the completion is the plan.

Shape letters: N games, K candidates (particles) of each, H tokens, J proposals, C checkpoints, A actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from agents.config import Decoding
from agents.heads.decoding import Filling, draw, fill, log_prob_of, num_alike
from agents.heads.plan_head import Denoiser, PlanSample

Score = Callable[[Tensor, Tensor], Tensor]
"""Scores float32 [n, J] of plans int64 [n, J, H] for some of the games, int64 [n]; greater is better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Steered:
    """K plans for each of N games."""

    tokens: Tensor
    """int64 [N, K, H]."""
    scores: Tensor
    """float32 [N, K]."""
    log_prob: Tensor
    """float32 [N, K], nats: of the tokens chosen, without a score."""
    weights: Tensor
    """float32 [N, K], rows sum to 1: a plan drawn with these probabilities is a plan of the distribution aimed at."""
    log_normaliser: Tensor
    """float32 [N]: the logarithm of an unbiased estimate of the mean of exp(scale score) over plans without a score;
    games averaged in proportion to that estimate have the distribution aimed at, however few the particles. 0 where
    no weights are carried."""
    chosen: Tensor
    """int64 [N], the plan with the highest score."""
    evaluations: Tensor
    """int64 [N, K]: passes that the plan took; with guidance, each asks the network twice."""


def best_of_n(sample: PlanSample, score: Score) -> Steered:
    """The best of finished plans; any head gives these. Their weights are equal: they are plans without a score."""
    N, K, _ = sample.tokens.shape
    scores = score(sample.tokens, torch.arange(N, device=sample.tokens.device))
    return Steered(
        tokens=sample.tokens,
        scores=scores,
        log_prob=sample.log_prob,
        weights=torch.full_like(scores, 1.0 / K),
        log_normaliser=torch.zeros_like(scores[:, 0]),
        chosen=scores.argmax(-1),
        evaluations=sample.evaluations,
    )


def num_uniforms(num_candidates: int, horizon: int, checkpoints: int, proposals: int = 1) -> int:
    """How many random numbers ``fk`` (with one proposal), ``svdd`` and ``svdd_r`` need for one game.

    Two for each token (as every decoding), and at each checkpoint one for each token of each proposal, one for each
    candidate's choice, and one for resampling.
    """
    tokens = num_candidates * horizon
    return 2 * tokens + checkpoints * (proposals * tokens + num_candidates + 1)


def fk(
    denoiser: Denoiser,
    score: Score,
    start: Tensor,
    decoding: Decoding,
    uniform: Tensor,
    *,
    scale: float,
    checkpoints: int = 3,
    partial: bool = False,
) -> Steered:
    """Particles weighed by the growth of exp(scale score), resampled when their weights have become unequal.

    Resampling is systematic, where the effective sample size is below K / 2; elsewhere weights are carried.

    Args:
        denoiser: says what belongs in a free place.
        score: of completed plans.
        start: int64 [N, K, H], MASK where free.
        decoding: how places are filled in.
        uniform: float32 [N, ``num_uniforms(K, H, checkpoints)``] in [0, 1), all the randomness there is.
        scale: of the score, in nats.
        checkpoints: C, how often plans are scored, evenly over the places filled in, at the end for the last time;
            fewer where there are fewer passes.
        partial: score plans in which later tokens are still MASK (a soft value), not their completions.
    """
    return _steered(denoiser, score, start, decoding, uniform, _How(scale, checkpoints, 1, True, partial))


def svdd(
    denoiser: Denoiser,
    score: Score,
    start: Tensor,
    decoding: Decoding,
    uniform: Tensor,
    *,
    scale: float,
    proposals: int,
    checkpoints: int = 3,
    partial: bool = False,
) -> Steered:
    """Each particle for itself: at a checkpoint it chooses among J proposals with probability ~ exp(scale score).

    Exact for many proposals at every pass if ``score`` is the soft value of plans in the making (``partial``).

    Args:
        denoiser: says what belongs in a free place.
        score: of completed plans.
        start: int64 [N, K, H], MASK where free.
        decoding: how places are filled in.
        uniform: float32 [N, ``num_uniforms(K, H, checkpoints, proposals)``] in [0, 1).
        scale: of the score, in nats (1 / alpha in the paper).
        proposals: J.
        checkpoints: as in ``fk``; H = every pass.
        partial: as in ``fk``.
    """
    return _steered(denoiser, score, start, decoding, uniform, _How(scale, checkpoints, proposals, False, partial))


def svdd_r(
    denoiser: Denoiser,
    score: Score,
    start: Tensor,
    decoding: Decoding,
    uniform: Tensor,
    *,
    scale: float,
    proposals: int,
    checkpoints: int = 3,
    partial: bool = False,
) -> Steered:
    """``svdd`` whose particles carry the weights that make up for having few proposals, and are resampled as in ``fk``.

    A particle's weight grows by the mean of exp(scale score) over its proposals, relative to the proposal that it
    chose last. Arguments as in ``svdd``.
    """
    return _steered(denoiser, score, start, decoding, uniform, _How(scale, checkpoints, proposals, True, partial))


def resample(log_weights: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Systematic resampling of n games whose effective sample size is below K / 2; the others are left as they are.

    Args:
        log_weights: float32 [n, K].
        level: float32 [n] in [0, 1).

    Returns:
        Which particle each becomes, int64 [n, K], and the log-weights after that: where resampled, the mean for all.
    """
    K = log_weights.shape[-1]
    share = log_weights.log_softmax(-1)
    unequal = (share.exp().square().sum(-1).reciprocal() < K / 2)[:, None]
    each = torch.arange(K, device=log_weights.device)
    parents = draw(share[:, None], (each + level[:, None]) / K)
    mean = log_weights.logsumexp(-1, keepdim=True) - math.log(K)
    return torch.where(unequal, parents, each), torch.where(unequal, mean, log_weights)


class _How(NamedTuple):
    scale: float
    checkpoints: int
    proposals: int
    weighed: bool
    partial: bool


class _Chance(NamedTuple):
    """The uniform numbers by use."""

    level: Tensor
    """[N, K, 1, H] for tokens where nothing is scored."""
    turn: Tensor
    """[N, K, H]."""
    proposal: Tensor
    """[N, C, K, J, H] for the tokens of proposals."""
    choice: Tensor
    """[N, C, K]."""
    resampling: Tensor
    """[N, C]."""

    @classmethod
    def of(cls, uniform: Tensor, K: int, H: int, how: _How) -> _Chance:
        """Of uniform [N, ``num_uniforms``]."""
        C, J = how.checkpoints, how.proposals
        level, turn, proposal, choice, resampling = uniform.split([K * H, K * H, C * K * J * H, C * K, C], 1)
        return cls(
            level=level.unflatten(1, (K, 1, H)),
            turn=turn.unflatten(1, (K, H)),
            proposal=proposal.unflatten(1, (C, K, J, H)),
            choice=choice.unflatten(1, (C, K)),
            resampling=resampling,
        )

    def levels(self, due: Tensor, checkpoint: Tensor) -> Tensor:
        """For tokens of all games: [N, K, J, H], or [N, K, 1, H] where none is scored.

        Args:
            due: int64 [n], the games that are scored.
            checkpoint: int64 [N], which time it is.
        """
        if not len(due):
            return self.level
        levels = self.level.repeat(1, 1, self.proposal.shape[3], 1)
        levels[due] = self.proposal[due, checkpoint[due]]
        return levels


class _Particles(NamedTuple):
    """K plans in the making for each of N games."""

    tokens: Tensor
    """int64 [N, K, H]."""
    turn: Tensor
    """float32 [N, K, H], for the order in which places are filled in."""
    log_prob: Tensor
    """float32 [N, K]."""
    scores: Tensor
    """float32 [N, K], of the last checkpoint; 0 before the first."""
    log_weight: Tensor
    """float32 [N, K]."""
    evaluations: Tensor
    """int64 [N, K]."""

    def resampled(self, games: Tensor, parents: Tensor, log_weight: Tensor) -> _Particles:
        """With those of ``games`` [n] replaced by copies of ``parents`` [n, K], which have log-weights [n, K]."""
        changed = [x.index_put((games,), x[games[:, None], parents]) for x in self]
        return _Particles(*changed)._replace(log_weight=self.log_weight.index_put((games,), log_weight))


@torch.no_grad()
def _steered(
    denoiser: Denoiser, score: Score, start: Tensor, decoding: Decoding, uniform: Tensor, how: _How
) -> Steered:
    K, H = start.shape[1:]
    chance = _Chance.of(uniform, K, H, how)
    zeros = torch.zeros(start.shape[:2], device=start.device)
    particles = _Particles(start, chance.turn, zeros, zeros, zeros, zeros.long())
    num_free = left = (start == denoiser.mask).sum((1, 2))
    if not bool(num_free.all()):
        raise ValueError("plans without a free place cannot be steered")
    alike = num_alike(start)
    for passes in range(H):
        active = (particles.tokens == denoiser.mask).any(-1).flatten().nonzero()[:, 0]
        if not len(active):
            break
        tokens, turn = particles.tokens.flatten(0, 1)[active], particles.turn.flatten(0, 1)[active]
        once = 1 if passes else alike
        filling = fill(denoiser, tokens, active // K, turn, decoding, passes, once, whole=True)
        before, left = left, left.index_add(0, active // K, -filling.valid.sum(-1))
        reached, stage = (how.checkpoints * (num_free - x) // num_free for x in (before, left))
        due = (stage > reached).nonzero()[:, 0]
        levels = chance.levels(due, stage - 1).flatten(0, 1)[active]
        states, completions = _proposed(tokens, filling, levels, denoiser.mask)
        picked = torch.zeros_like(particles.evaluations)
        if len(due):
            asked = _among_all(particles.tokens, active, states if how.partial else completions)
            scores = score(asked[due].flatten(1, 2), due).float().unflatten(1, (K, -1))
            particles, picked[due] = _judged(particles, due, scores, chance.choice[due, stage[due] - 1], how)
        chosen = states[torch.arange(len(active), device=active.device), picked.flatten()[active]]
        particles = _filled(particles, active, filling, chosen)
        due = due[left[due] > 0]
        if how.weighed and len(due):
            particles = particles.resampled(
                due, *resample(particles.log_weight[due], chance.resampling[due, stage[due] - 1])
            )
    return Steered(
        tokens=particles.tokens,
        scores=particles.scores,
        log_prob=particles.log_prob,
        weights=particles.log_weight.softmax(-1),
        log_normaliser=particles.log_weight.logsumexp(-1) - math.log(K),
        chosen=particles.scores.argmax(-1),
        evaluations=particles.evaluations,
    )


def _proposed(tokens: Tensor, filling: Filling, levels: Tensor, mask: int) -> tuple[Tensor, Tensor]:
    """J ways to go on from M plans.

    Args:
        tokens: int64 [M, H].
        filling: of their free places, all of them.
        levels: float32 [M, J, H], to draw tokens with.
        mask: the token of a free place.

    Returns:
        int64 [M, J, H] with the tokens that this pass fills in, and with those of all free places.
    """
    places = filling.places[:, None].expand(-1, levels.shape[1], -1)
    drawn = draw(filling.log_probs[:, None], levels.gather(2, places))
    current = tokens[:, None].expand(-1, levels.shape[1], -1)
    before = current.gather(2, places)
    states = current.scatter(2, places, torch.where(filling.valid[:, None], drawn, before))
    return states, current.scatter(2, places, torch.where(before == mask, drawn, before))


def _among_all(tokens: Tensor, active: Tensor, proposals: Tensor) -> Tensor:
    """int64 [N, K, J, H]: proposals [M, J, H] of the active plans; complete ones [N, K, H] have themselves."""
    plans = tokens.flatten(0, 1)[:, None].repeat(1, proposals.shape[1], 1)
    plans[active] = proposals
    return plans.unflatten(0, tokens.shape[:2])


def _judged(
    particles: _Particles, games: Tensor, scores: Tensor, choice: Tensor, how: _How
) -> tuple[_Particles, Tensor]:
    """Particles with new scores and weights, and which proposals they chose.

    Args:
        particles: before.
        games: int64 [n], those that were scored.
        scores: float32 [n, K, J] of proposals.
        choice: float32 [n, K] in [0, 1).
        how: scale, and whether weights are carried.

    Returns:
        Particles, and int64 [n, K].
    """
    scaled = how.scale * scores
    picked = draw(scaled.log_softmax(-1), choice)
    log_weight = particles.log_weight
    if how.weighed:
        gain = scaled.logsumexp(-1) - math.log(scores.shape[-1]) - how.scale * particles.scores[games]
        log_weight = log_weight.index_put((games,), log_weight[games] + gain)
    new = scores.gather(-1, picked[..., None])[..., 0]
    return particles._replace(log_weight=log_weight, scores=particles.scores.index_put((games,), new)), picked


def _filled(particles: _Particles, active: Tensor, filling: Filling, chosen: Tensor) -> _Particles:
    """Particles of which the active ones (int64 [M]) now have the tokens ``chosen`` [M, H]."""
    shape = particles.tokens.shape[:2]
    drawn = chosen.gather(1, filling.places).masked_fill(~filling.valid, 0)
    log_prob = log_prob_of(filling, drawn).float()
    return particles._replace(
        tokens=particles.tokens.flatten(0, 1).index_put((active,), chosen).unflatten(0, shape),
        log_prob=particles.log_prob.flatten().index_add(0, active, log_prob).view(shape),
        evaluations=particles.evaluations.flatten().index_add(0, active, torch.ones_like(active)).view(shape),
    )
