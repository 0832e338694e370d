"""The results of a search, as JSON and as tables. Texts of authors and programs are shown as they are: no markup."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.statistics import t_interval, wilson_interval
from launch.design.config import DesignConfig
from launch.design.journal import Journal, Proposed, proposals, trained, trial_outcome
from launch.design.trials import Role, outcome_of
from launch.runs.folder import flatten
from rewards.auto.config import ProgramConfig
from rewards.auto.program import SHORT_SHA
from rewards.auto.search.proposal import verdict_of

_NOTHING: Mapping[str, Any] = {"success": None, "low": None, "high": None, "n": 0, "each": [], "env_return": None}
"""Where no run has a result."""


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


def summary(journal: Journal, config: DesignConfig, *, task: str, goal: str, training: Sequence[str]) -> dict[str, Any]:
    """Everything that a reader needs to judge the search by; numbers of steps are of the environment.

    ``search_steps`` are those of trials, of the episodes played at their ends, and of random play: the latter two are
    ``evaluation_steps``. Those of the report, and of runs that broke, are in neither.

    Args:
        journal: the search's.
        config: the search's.
        task: task id.
        goal: the task in words.
        training: flags for training, as they were typed.
    """
    trials = [trial for _, trial in trained(journal)]
    chosen = journal.get("chosen")
    selected = None if chosen is None else trial_outcome(journal, chosen)
    play = journal.get("play") or {"steps": 0}
    evaluation_steps = play["steps"] + sum(trial.evaluation_steps for trial in trials)
    return {
        "preset": config.preset,
        "task": task,
        "goal": goal,
        "config": config.model_dump(mode="json"),
        "training": list(training),
        "programs": [_program(journal, one) for one in proposals(journal)],
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
        "use": None if chosen is None else command_of(config.preset, chosen, config.reward, training),
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
    """A proposal and its results."""
    verdict = verdict_of(journal["judged", one.sha]) if ("judged", one.sha) in journal else None
    trial = trial_outcome(journal, one.sha)
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


# ---- the command that trains with a reward as a search has found it


def command_of(preset: str, sha: str, reward: ProgramConfig, training: Sequence[str]) -> str:
    """``yendor train PRESET --reward.program.code SHA ...`` with whatever differs from the defaults.

    Args:
        preset: what was searched with.
        sha: the program.
        reward: how it was composed, contained and weighed; its archive may be an absolute path.
        training: flags for training, as they were typed.
    """
    usual = flatten(_with_absolute_archive(ProgramConfig()).model_dump(mode="json"))
    ours = flatten(_with_absolute_archive(reward).model_dump(mode="json"))
    flags = ["--reward.program.code", sha[:SHORT_SHA]]
    for name, value in ours.items():
        if value != usual[name]:
            flags += [f"--reward.program.{name.replace('_', '-')}", *_words(value)]
    return shlex.join(["yendor", "train", preset, *flags, *training])


def _with_absolute_archive(reward: ProgramConfig) -> ProgramConfig:
    return reward.replace(archive=reward.archive.absolute())


def _words(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


# ---- tables

_MAX_REASON = 60
"""Characters of why a program was rejected, in the table: the whole of it is in the archive."""


def printable(text: str) -> str:
    """Without what a terminal might obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def interval(low: float, high: float) -> str:
    """An interval of shares: what lies beyond 0 and 1 is cut off."""
    return f"{max(0.0, low):.3f} to {min(1.0, high):.3f}"


def print_summary(found: Mapping[str, Any], console: Console) -> None:
    """Print tables: every program of the search, then the chosen one beside no program; what broke; what it took."""
    _show_programs(found, console)
    _show_report(found, console)
    for line in _broken(found):
        _print(console, line)
    costs = found["costs"]
    tokens = int(costs.get("prompt_tokens", 0) + costs.get("completion_tokens", 0))
    _print(
        console,
        f"the search took {found['search_steps']:,} environment steps, of which {found['evaluation_steps']:,} in "
        f"evaluation, in {found['trials']} trials, {int(costs.get('requests', 0)):,} requests with {tokens:,} tokens "
        f"of a language model, and {costs.get('seconds', 0.0):,.0f} s",
    )


def _print(console: Console, text: str) -> None:
    console.print(printable(text), highlight=False, soft_wrap=True, markup=False)


def _table(title: str, *names: str) -> Table:
    table = Table(title=Text(printable(title), "table.title"), title_justify="left")
    for name in names:
        table.add_column(name, no_wrap=name in ("program", "runs"))
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(" ".join(printable(cell).split())) for cell in cells))


def _show_programs(found: Mapping[str, Any], console: Console) -> None:
    title = f"Programs tried on {found['task']}"
    table = _table(title, "round", "program", "by", "from", "success (A)", "95 % interval", "result")
    for row in found["programs"]:
        share = row["selection"]
        _add(
            table,
            str(row["round"]),
            (row["sha"] or "-")[:SHORT_SHA],
            row["by"],
            " ".join(parent[:6] for parent in row["parents"]),
            f"{share['success']:.3f}" if share else "",
            interval(share["low"], share["high"]) if share else "",
            _result(row, found["chosen"]),
        )
    console.print(table)


def _result(row: Mapping[str, Any], chosen: str | None) -> str:
    words = {
        "quarantined: " + "; ".join(row["quarantined"]): row["quarantined"],
        "chosen": row["sha"] is not None and row["sha"] == chosen,
        "trained": row["selection"],
        f"broke: {row['broke']}": row["broke"],
        f"pays the same as {(row['same_as'] or '')[:SHORT_SHA]}": row["same_as"],
        row["reason"]: row["reason"],
    }
    result = next((text for text, holds in words.items() if holds), "not tried")
    return result if len(result) <= _MAX_REASON else result[: _MAX_REASON - 3] + "..."


def _broken(found: Mapping[str, Any]) -> list[str]:
    causes = {f"the trial of {sha[:SHORT_SHA]}": cause for sha, cause in found["failed_trials"].items()}
    for kind in ("report", "sparse"):
        causes |= {f"the report's run {name}": cause for name, cause in (found[kind] or {}).get("broken", {}).items()}
    return [f"{name} broke: {cause}" for name, cause in causes.items()]


def _show_report(found: Mapping[str, Any], console: Console) -> None:
    if found["chosen"] is None:
        _print(console, "no program was chosen")
        return
    kinds = {found["chosen"][:SHORT_SHA]: found["report"], "no program": found["sparse"]}
    reported = {label: one for label, one in kinds.items() if one is not None}
    if not any(one["runs"] for one in reported.values()):
        why = "every run of the report broke" if reported else "nothing was to be reported"
        _print(console, f"chosen: {found['chosen']}; {why}")
        return
    title = "On fresh training seeds and episodes (seeds B)"
    names = ("runs", "steps of each", "success", "each seed", "95 % interval over seeds", "true return", "left out")
    table = _table(title, *names)
    for label, one in reported.items():
        _add(table, label, *_measured(one))
    console.print(table)


def _measured(one: Mapping[str, Any]) -> tuple[str, ...]:
    out = left_out(one)
    if one["success"] is None:
        return ("", "", "", "", "", out)
    return (
        f"{max(one['steps']):,}",
        f"{one['success']:.3f}",
        ", ".join(f"seed {seed}: {share:.3f}" for seed, share in zip(one["seeds"], one["each"], strict=True)),
        interval(one["low"], one["high"]),
        f"{one['env_return']:.3f}",
        out,
    )


def left_out(one: Mapping[str, Any]) -> str:
    """Runs of the report that are in no figure: 'quarantined in 1 of 3'; empty where there are none."""
    total = len(one["runs"]) + len(one["broken"])
    counts = {"quarantined in": len(one["quarantined"]), "broke:": len(one["broken"])}
    return ", ".join(f"{words} {count} of {total}" for words, count in counts.items() if count)
