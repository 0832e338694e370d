"""Were the candidates worth what the critic said? Every one of them is executed in a copy of its game, and counted.

An episode is a function of its seeds and its actions: the game of any decision is rebuilt by replaying the actions
before it. Each candidate's beginning, as much of it as a planner executes and the critic judges, is played in a copy of
its own, and the same planner plays on to the end. What that pays is the candidate's outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.evaluate import EpisodeNoise
from envs.data import EpisodeSeeds
from envs.protocols import Games, Policy
from envs.recording import EpisodeRecord
from envs.seeding import ListedSeeds
from envs.statistics import bootstrap_interval, spearman
from envs.tasks import make
from launch.errors import UserError
from launch.offline.planning import PlannerSource


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AuditedDecision:
    """One decision of an episode, with the true outcome of each candidate."""

    seeds: EpisodeSeeds
    step: int
    scores: np.ndarray
    """float32 [K], the critic's."""
    outcomes: np.ndarray
    """float64 [K]: discounted sum of the environment's own reward from the decision to the episode's end."""
    successes: np.ndarray
    """bool [K]."""
    refused: np.ndarray
    """bool [K]."""
    taken: int


def audited(
    source: PlannerSource, records: Sequence[EpisodeRecord], num_decisions: int, generator: np.random.Generator
) -> list[AuditedDecision]:
    """Decisions drawn from recorded episodes, with all of their candidates executed.

    Args:
        source: the planner that made the records.
        records: episodes with plans.
        num_decisions: how many are drawn; all of them where there are fewer.
        generator: draws.

    Raises:
        UserError: no record holds plans.
    """
    places = [
        (record, place) for record in records if record.plans is not None for place in range(len(record.plans.step))
    ]
    if not places:
        raise UserError("no record holds plans; 'yendor eval RUN --record' of an offline run keeps them")
    chosen = generator.permutation(len(places))[:num_decisions]
    return [_audited(source, *places[i]) for i in sorted(chosen.tolist())]


def _audited(source: PlannerSource, record: EpisodeRecord, place: int) -> AuditedDecision:
    plans = record.plans
    assert plans is not None
    candidates, step = plans.candidates[place].astype(np.int64), int(plans.step[place])
    K = len(candidates)
    noise = EpisodeNoise(K)
    for copy in range(K):
        noise.begin(copy, record.seeds)
    config = source.games.replace(task=record.task)
    games = make(config, K, ListedSeeds([record.seeds] * K))
    try:
        obs = games.reset()
        for action in record.actions[:step].tolist():
            obs = games.step(np.full(K, action)).obs
        if not games.active.all():
            raise UserError(
                f"the episode {'-'.join(map(str, record.seeds))} does not replay: it ended before step {step}; was it "
                "recorded with another version of the games?"
            )
        policy = source.build(games.spec)
        outcomes, successes = _played_out(games, obs, policy, candidates[:, : _executed(source)], noise, source)
    finally:
        games.close()
    return AuditedDecision(
        seeds=record.seeds,
        step=step,
        scores=plans.scores[place],
        outcomes=outcomes,
        successes=successes,
        refused=plans.refused[place],
        taken=int(plans.taken[place]),
    )


def _executed(source: PlannerSource) -> int:
    """Steps of a plan that are executed."""
    return min(source.planner.executed or source.config.critic.chunk_steps, source.config.head.horizon)


def _played_out(
    games: Games, obs: Any, policy: Policy, starts: np.ndarray, noise: EpisodeNoise, source: PlannerSource
) -> tuple[np.ndarray, np.ndarray]:
    """Discounted return [K] and success [K] of beginnings [K, E], with the policy playing on after them."""
    K = len(starts)
    gamma, discount = source.config.critic.gamma, 1.0
    outcomes, successes = np.zeros(K), np.zeros(K, bool)
    fresh = policy.initial_state(K)
    assert fresh is not None, "a planner has a memory"
    memory, place = fresh, 0
    while games.active.any():
        planned = starts[:, place] if place < starts.shape[1] else np.full(K, games.spec.num_actions)
        follows = planned < games.spec.num_actions  # a plan that is over leaves the rest to the policy
        actions = planned
        if not follows[games.active].all():
            acted = policy.act(obs, memory, games.action_mask, noise)
            assert acted.recurrent_state is not None
            actions, memory = np.where(follows, planned, acted.actions), acted.recurrent_state
        memory = np.where(follows[:, None], fresh, memory)
        actions = np.where(games.active, actions, 0)
        playing = games.active.copy()
        played = games.step(actions)
        outcomes += discount * np.where(playing, played.reward, 0)
        for b, result in played.finished.items():
            successes[b] = result.success
        obs, place, discount = played.obs, place + 1, discount * gamma
    return outcomes, successes


def summary(decisions: Sequence[AuditedDecision]) -> dict[str, Any]:
    """How far the critic can be trusted, over decisions.

    Rank correlations are of scores and outcomes within a decision, over decisions in which both differ.
    ``by_candidates`` is what the best by the critic of the first N candidates was worth, for each N: candidates are
    drawn alike, so the first N are any N.
    """
    correlations = [c for d in decisions if (c := spearman(d.scores, d.outcomes)) is not None]
    regrets = [float(d.outcomes.max() - d.outcomes[d.taken]) for d in decisions]
    blind = [float(d.outcomes.max() - d.outcomes.mean()) for d in decisions]
    K = len(decisions[0].scores)
    sizes = [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if n <= K]
    by_candidates = []
    for n in sizes:
        best = [int(d.scores[:n].argmax()) for d in decisions]
        outcomes = [float(d.outcomes[i]) for d, i in zip(decisions, best, strict=True)]
        foreseen = [float(d.scores[i]) for d, i in zip(decisions, best, strict=True)]
        oracle = [float(d.outcomes[:n].max()) for d in decisions]
        low, high = bootstrap_interval(outcomes)
        by_candidates.append(
            {
                "candidates": n,
                "outcome": float(np.mean(outcomes)),
                "outcome_low": low,
                "outcome_high": high,
                "best_possible": float(np.mean(oracle)),
                "score": float(np.mean(foreseen)),
            }
        )
    row: dict[str, Any] = {"decisions": len(decisions), "candidates": K, "rank_correlations": len(correlations)}
    for name, values in (("rank_correlation", correlations), ("regret", regrets), ("regret_at_random", blind)):
        row[name] = float(np.mean(values)) if values else None
        if len(values) > 1:
            row[f"{name}_low"], row[f"{name}_high"] = bootstrap_interval(values)
    return row | {"by_candidates": by_candidates}
