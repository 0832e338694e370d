"""``yendor rewards show SHA|FILE``: a program's source, where it comes from, and what became of it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from launch.arguments import parse
from launch.rewards import words
from launch.rewards.finding import ArchiveFlags, Named, find
from launch.rewards.stored import take_switch
from launch.rewards.terminal import judged, shown, success
from rewards.auto.archive import ArchiveEntry, is_file_name
from rewards.auto.program import SHORT_SHA, sha_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_SHA = re.compile(r"[0-9A-Fa-f]{4,64}")
_BARS = "▁▂▃▄▅▆▇█"
_CHECKPOINTS = 10
_PROMPT_LINES = 12
_OUTCOMES = {"pass": "green", "fail": "red", "undetermined": "yellow"}


class ShowFlags(ArchiveFlags):
    """Show a program: its source, who wrote it and from what, the verdict on it, and what training came to."""

    prompt: bool = False
    """The whole of what its author was told."""


def run(argv: Sequence[str]) -> int:
    """Show a program, or what a run's reward over factors prefers; ``--json`` prints either for programs."""
    name = argv[0]
    if Path(name).is_dir() or not (is_file_name(name) or _SHA.fullmatch(name)):
        from launch.rewards import show

        return show.run(argv)
    as_json, rest = take_switch(argv[1:], "--json")
    flags = parse(ShowFlags(), rest, f"yendor rewards show {name}")
    named = find(name, flags.archive)
    if as_json:
        facts = {"sha": sha_of(named.source)} if named.entry is None else named.entry.as_json()
        sys.stdout.write(json.dumps({**facts, "source": named.source}, indent=1) + "\n")
        return 0
    from rich.console import Console

    _print(Console(highlight=False), named, whole_prompt=flags.prompt)
    return 0


def _print(console: Console, named: Named, *, whole_prompt: bool) -> None:
    from rich.syntax import Syntax
    from rich.text import Text

    console.print(Text(sha_of(named.source), "bold"))
    if named.entry is None:
        console.print("not in the archive: nothing is known of it but its source", style="dim")
    else:
        console.print(_origin(named.entry))
    console.print(Syntax(shown(named.source), "python", line_numbers=True, word_wrap=True, background_color="default"))
    if named.entry is not None:
        _print_facts(console, named.entry, whole_prompt=whole_prompt)


def _origin(entry: ArchiveEntry) -> Text:
    from rich.text import Text

    parents = ", ".join(parent[:SHORT_SHA] for parent in entry.parents) or "nothing earlier"
    facts = [
        f"by {entry.by}, from {parents}",
        f"for {entry.task or 'no task'}, round {entry.round}" + (f" of {entry.search}" if entry.search else ""),
        *([f"made {entry.created_at}"] if entry.created_at else []),
    ]
    return Text(shown("\n".join(facts)))


def _print_facts(console: Console, entry: ArchiveEntry, *, whole_prompt: bool) -> None:
    from rich.text import Text

    console.print(_verdict(entry))
    console.print(_fitness(entry))
    if curves := curves_of(entry):
        console.print(_curves(curves))
    for title, text in (("analysis", str(entry.analysis.get("text", ""))), ("thoughts", entry.thoughts)):
        if text:
            console.print(Text.assemble((f"{title}\n", "bold"), shown(text.strip())))
    if entry.prompt:
        lines = shown(entry.prompt.strip()).splitlines()
        kept = lines if whole_prompt else lines[:_PROMPT_LINES]
        left = f"\n... {len(lines) - len(kept):,} lines more: --prompt" if len(kept) < len(lines) else ""
        console.print(Text.assemble(("prompt\n", "bold"), "\n".join(kept), (left, "dim")))


def _verdict(entry: ArchiveEntry) -> Text:
    from rich.text import Text

    text = Text.assemble(("verdict  ", "bold"), shown(judged(entry.verdict)))
    for finding in entry.verdict.findings if entry.verdict else ():
        place = "" if finding.line is None else f" line {finding.line}"
        code = f"{finding.code}{place}: " if finding.code else ""
        text.append(f"\n  {finding.outcome:<12}", _OUTCOMES.get(finding.outcome, "")).append(
            shown(f" {finding.test}: {code}{finding.reason}")
        )
    return text


def _fitness(entry: ArchiveEntry) -> Text:
    from rich.text import Text

    text = Text.assemble(("fitness  ", "bold"))
    if not entry.fitness:
        return text.append("it was not trained with")
    text.append(f"success {success(entry.fitness)} on the seeds that selection looks at")
    text.append(f"\n         success {success(entry.fitness, 'report')} on seeds that nothing was chosen on")
    if steps := entry.fitness.get("steps"):
        text.append(f"\n         {int(steps):,} steps of training")
    if seeds := entry.fitness.get("seeds"):
        text.append(f", seeds {', '.join(map(str, seeds))}" if isinstance(seeds, (list, tuple)) else f", seeds {seeds}")
    return text


def curves_of(entry: ArchiveEntry) -> dict[str, Sequence[float | None]]:
    """Of each component its curve over training: the analyzer's sums over an episode, or means."""
    components = entry.analysis.get("components", {})
    analysed = {name: report.get("curves", {}) for name, report in components.items()}
    found = {name: curves.get("episode_sum") or curves.get("mean") for name, curves in analysed.items()}
    return {name: curve for name, curve in found.items() if curve}


def _curves(curves: Mapping[str, Sequence[float | None]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("component", "over training", title="components at checkpoints", title_justify="left")
    for name in ("first", "lowest", "highest", "last"):
        table.add_column(name, justify="right")
    for name, values in curves.items():
        known = [value for value in values if value is not None]
        figures = (known[0], min(known), max(known), known[-1]) if known else (None,) * 4
        table.add_row(Text(shown(name)), sparkline(values), *map(words.figure, figures))
    return table


def sparkline(values: Sequence[float | None]) -> str:
    """A curve as at most ten bars, from its lowest value to its highest; a space where there is none."""
    if not values:
        return ""
    at = np.unique(np.linspace(0, len(values) - 1, _CHECKPOINTS).round().astype(int))
    chosen = [values[i] for i in at]
    known = [value for value in chosen if value is not None]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)
    return "".join(
        " " if value is None else _BARS[round((value - low) / span * (len(_BARS) - 1)) if span else 0]
        for value in chosen
    )
