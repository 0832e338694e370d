"""What a search came to, for people. Texts of authors and programs are shown as they are: no markup, one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rewards.auto.program import SHORT_SHA

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MAX_REASON = 60
"""Characters of why a program was rejected, in the table: the whole of it is in the archive."""


def printable(text: str) -> str:
    """Without what a terminal might obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def interval(low: float, high: float) -> str:
    """An interval of shares: what lies beyond 0 and 1 is cut off."""
    return f"{max(0.0, low):.3f} to {min(1.0, high):.3f}"


def show(found: Mapping[str, Any], console: Console) -> None:
    """Tables: every program of the search, then the chosen one beside no program; what broke; what it took."""
    _show_programs(found, console)
    _show_report(found, console)
    for line in _broken(found):
        _tell(console, line)
    costs = found["costs"]
    tokens = int(costs.get("prompt_tokens", 0) + costs.get("completion_tokens", 0))
    _tell(
        console,
        f"the search took {found['search_steps']:,} environment steps, of which {found['evaluation_steps']:,} in "
        f"evaluation, in {found['trials']} trials, {int(costs.get('requests', 0)):,} requests with {tokens:,} tokens "
        f"of a language model, and {costs.get('seconds', 0.0):,.0f} s",
    )


def _tell(console: Console, text: str) -> None:
    console.print(printable(text), highlight=False, soft_wrap=True, markup=False)


def _table(title: str, *names: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(title), "table.title"), title_justify="left")
    for name in names:
        table.add_column(name, no_wrap=name in ("program", "runs"))
    return table


def _add(table: Table, *cells: str) -> None:
    from rich.text import Text

    table.add_row(*(Text(" ".join(printable(cell).split())) for cell in cells))


def _show_programs(found: Mapping[str, Any], console: Console) -> None:
    title = f"Programs tried on {found['task']}"
    table = _table(title, "round", "program", "by", "from", "success (A)", "95 % interval", "fate")
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
            _fate(row, found["chosen"]),
        )
    console.print(table)


def _fate(row: Mapping[str, Any], chosen: str | None) -> str:
    told = {
        "quarantined: " + "; ".join(row["quarantined"]): row["quarantined"],
        "chosen": row["sha"] is not None and row["sha"] == chosen,
        "trained": row["selection"],
        f"broke: {row['broke']}": row["broke"],
        f"pays the same as {(row['same_as'] or '')[:SHORT_SHA]}": row["same_as"],
        row["reason"]: row["reason"],
    }
    fate = next((words for words, holds in told.items() if holds), "not tried")
    return fate if len(fate) <= _MAX_REASON else fate[: _MAX_REASON - 3] + "..."


def _broken(found: Mapping[str, Any]) -> list[str]:
    causes = {f"the trial of {sha[:SHORT_SHA]}": cause for sha, cause in found["failed_trials"].items()}
    for kind in ("report", "sparse"):
        causes |= {f"the report's run {name}": cause for name, cause in (found[kind] or {}).get("broken", {}).items()}
    return [f"{name} broke: {cause}" for name, cause in causes.items()]


def _show_report(found: Mapping[str, Any], console: Console) -> None:
    if found["chosen"] is None:
        _tell(console, "no program was chosen")
        return
    kinds = {found["chosen"][:SHORT_SHA]: found["report"], "no program": found["sparse"]}
    reported = {label: one for label, one in kinds.items() if one is not None}
    if not any(one["runs"] for one in reported.values()):
        why = "every run of the report broke" if reported else "nothing was to be reported"
        _tell(console, f"chosen: {found['chosen']}; {why}")
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
