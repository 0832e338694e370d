"""What a search came to: for people, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agents.statistics import t_interval, wilson_interval
from launch.config import TrainConfig
from launch.design.config import DesignConfig
from launch.design.journal import Journal
from rewards.auto.program import SHORT_SHA, sha_of
from rewards.auto.verdict import verdict_of

if TYPE_CHECKING:
    from rich.console import Console


_MAX_REASON = 60
"""Characters of why a program was rejected, in the table."""


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


def summary(config: DesignConfig, train: TrainConfig, journal: Journal) -> dict[str, Any]:
    """Everything that a reader needs to judge the search by; numbers of steps are of the environment."""
    tried, reported = journal.of_kind("tried"), journal.of_kind("reported")
    chosen = journal.get("chosen")
    costs = list(journal.of_kind("costs").values())
    return {
        "preset": config.preset,
        "task": train.env.task_ids[0],
        "config": config.model_dump(mode="json"),
        "programs": _programs(journal),
        "chosen": chosen,
        "selection": None if chosen is None else share_of(tried[chosen]["figures"]),
        "report": _runs(reported, "chosen"),
        "sparse": _runs(reported, "sparse"),
        "trials": len(tried),
        "failed_trials": dict(journal.of_kind("failed")),
        "search_steps": sum(outcome["steps"] for outcome in tried.values()),
        "search_train_s": sum(outcome["train_s"] for outcome in tried.values()),
        "costs": {name: sum(one[name] for one in costs) for name in (costs[0] if costs else {})},
    }


def _runs(reported: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    runs = {name: one for name, one in reported.items() if name.startswith(kind)}
    if not runs:
        return None
    rows = [one["figures"] for one in runs.values()]
    return pooled(rows) | {"steps": [one["steps"] for one in runs.values()], "runs": runs}


def _programs(journal: Journal) -> list[dict[str, Any]]:
    """Every proposal of every round, in order."""
    verdicts, tried = journal.of_kind("judged"), journal.of_kind("tried")
    found = []
    for number, proposals in journal.of_kind("proposed").items():
        for proposal in proposals:
            sha = sha_of(proposal["source"])
            verdict = verdict_of(verdicts[sha]) if sha in verdicts else None
            row = {
                "round": int(number),
                "sha": sha if proposal["source"] else None,
                "by": proposal["by"],
                "parents": list(proposal["parents"]),
                "attempts": proposal["attempts"],
                "accepted": verdict is not None and verdict.accepted,
                "reason": proposal["problem"] or (verdict.reasons[0] if verdict and verdict.reasons else ""),
                "selection": share_of(tried[sha]["figures"]) if sha in tried else None,
                "quarantined": tried[sha]["quarantined"] if sha in tried else [],
                "source": proposal["source"],
            }
            found.append(row)
    return found


def show(found: Mapping[str, Any], console: Console) -> None:
    """Tables: every program of the search, then the chosen one beside no program."""
    from rich.table import Table

    table = Table(title=f"Programs tried on {found['task']}", title_justify="left")
    for name in ("round", "program", "by", "from", "success (A)", "95 % interval", "fate"):
        table.add_column(name, no_wrap=name == "program")
    for row in found["programs"]:
        share = row["selection"]
        fate = "chosen" if row["sha"] == found["chosen"] else "trained" if share else _cut(row["reason"]) or "not tried"
        table.add_row(
            str(row["round"]),
            (row["sha"] or "-")[:SHORT_SHA],
            row["by"],
            " ".join(parent[:6] for parent in row["parents"]),
            f"{share['success']:.3f}" if share else "",
            f"{share['low']:.3f} to {share['high']:.3f}" if share else "",
            "quarantined: " + row["quarantined"][0] if row["quarantined"] else fate,
        )
    console.print(table)
    _show_report(found, console)
    costs = found["costs"]
    tokens = costs.get("prompt_tokens", 0) + costs.get("completion_tokens", 0)
    console.print(
        f"the search took {found['search_steps']:,} environment steps in {found['trials']} trials, "
        f"{costs.get('requests', 0):,} requests with {tokens:,} tokens of a language model, and "
        f"{costs.get('seconds', 0.0):,.0f} s",
        highlight=False,
        soft_wrap=True,
    )


def _cut(reason: str) -> str:
    """The whole of it is in the archive."""
    return reason if len(reason) <= _MAX_REASON else reason[: _MAX_REASON - 3] + "..."


def _show_report(found: Mapping[str, Any], console: Console) -> None:
    from rich.table import Table

    if found["report"] is None:
        console.print("no program was chosen" if found["chosen"] is None else f"chosen: {found['chosen']}")
        return
    table = Table(title="On fresh training seeds and episodes (seeds B)", title_justify="left")
    for name in ("runs", "steps of each", "success", "each seed", "95 % interval over seeds", "true return"):
        table.add_column(name, no_wrap=name == "runs")
    for label, kind in ((found["chosen"][:SHORT_SHA], "report"), ("no program", "sparse")):
        one = found[kind]
        if one is not None:
            table.add_row(
                label,
                f"{max(one['steps']):,}",
                f"{one['success']:.3f}",
                ", ".join(f"{share:.3f}" for share in one["each"]),
                f"{one['low']:.3f} to {one['high']:.3f}",
                f"{one['env_return']:.3f}",
            )
    console.print(table)
