"""What a search came to, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agents.statistics import t_interval, wilson_interval
from launch.design import history
from launch.design.history import Proposed
from launch.design.journal import Journal
from launch.design.parts import SearchParts
from launch.design.repeating import command_of
from launch.design.trials import Role, outcome_of
from rewards.auto.search.proposal import verdict_of

_NOTHING: Mapping[str, Any] = {"success": None, "low": None, "high": None, "n": 0, "each": [], "env_return": None}
"""Where no run came to a figure."""


def share_of(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Share of successes in one policy's episodes, with Wilson's interval."""
    return {
        "success": figures["success"],
        "n": figures["episodes"],
        "low": figures["success_low"],
        "high": figures["success_high"],
        "env_return": figures["env_return"],
    }


def pooled(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over training seeds: the mean share of successes, with a t interval over seeds (of one seed: Wilson's)."""
    shares = [row["success"] for row in rows]
    mean = sum(shares) / len(shares)
    n = sum(row["episodes"] for row in rows)
    if len(shares) > 1:
        low, high = t_interval(shares)
    else:
        low, high = wilson_interval(round(mean * n), n)
    return {
        "success": mean,
        "low": low,
        "high": high,
        "n": n,
        "each": shares,
        "env_return": sum(row["env_return"] for row in rows) / len(rows),
    }


def summary(parts: SearchParts) -> dict[str, Any]:
    """Everything that a reader needs to judge the search by; numbers of steps are of the environment.

    ``search_steps`` are those of trials, of the episodes played at their ends, and of random play: the latter two are
    ``evaluation_steps``. Those of the report, and of runs that broke, are in neither.
    """
    journal, config = parts.journal, parts.config
    trials = [trial for _, trial in history.tried(journal)]
    chosen = journal.get("chosen")
    selected = None if chosen is None else history.outcome(journal, chosen)
    play = journal.get("play") or {"steps": 0}
    evaluation_steps = play["steps"] + sum(trial.evaluation_steps for trial in trials)
    return {
        "preset": config.preset,
        "task": parts.train.env.task_ids[0],
        "goal": parts.goal,
        "config": config.model_dump(mode="json"),
        "training": list(parts.training),
        "programs": [_program(journal, one) for one in history.proposed(journal)],
        "chosen": chosen,
        "selection": None if selected is None else share_of(selected.figures),
        "report": measured(journal, "chosen"),
        "sparse": measured(journal, "sparse"),
        "trials": len(trials),
        "failed_trials": broken(journal, "trial"),
        "search_steps": sum(trial.steps for trial in trials) + evaluation_steps,
        "evaluation_steps": evaluation_steps,
        "search_train_s": sum(trial.train_s for trial in trials),
        "costs": dict(journal.costs),
        "use": None if chosen is None else command_of(config.preset, chosen, config.reward, parts.training),
    }


def broken(journal: Journal, role: Role) -> dict[str, str]:
    """Causes of the runs that broke, and never ended otherwise, by their names."""
    ended = {*journal.of_kind("tried"), *journal.of_kind("reported")}
    failed = journal.of_kind("failed")
    return {key: what["cause"] for key, what in failed.items() if what["role"] == role and key not in ended}


def measured(journal: Journal, role: Role) -> dict[str, Any] | None:
    """Runs of the report pooled, those left out whose program was quarantined; None where there are no runs."""
    ended = [outcome_of(one) for one in journal.of_kind("reported").values()]
    runs = sorted((one for one in ended if one.role == role), key=lambda one: one.seed)
    causes = broken(journal, role)
    if not runs and not causes:
        return None
    sound = [one for one in runs if not one.quarantined]
    return {
        **(pooled([one.figures for one in sound]) if sound else _NOTHING),
        "seeds": [one.seed for one in sound],
        "steps": [one.steps for one in sound],
        "quarantined": {one.key: one.quarantined[0] for one in runs if one.quarantined},
        "broken": causes,
        "runs": {one.key: one.as_json() for one in runs},
    }


def _program(journal: Journal, one: Proposed) -> dict[str, Any]:
    """A proposal, and what became of it."""
    verdict = verdict_of(journal["judged", one.sha]) if ("judged", one.sha) in journal else None
    trial = history.outcome(journal, one.sha)
    return {
        "round": one.round,
        "sha": one.sha or None,
        "by": one.proposal.by,
        "parents": list(one.proposal.parents),
        "attempts": one.proposal.attempts,
        "accepted": verdict is not None and verdict.accepted,
        "reason": one.proposal.problem or (verdict.reasons[0] if verdict and verdict.reasons else ""),
        "same_as": journal.get("screened", one.sha) or None,
        "broke": broken(journal, "trial").get(one.sha),
        "selection": None if trial is None else share_of(trial.figures),
        "quarantined": [] if trial is None else list(trial.quarantined),
        "source": one.proposal.source,
    }
