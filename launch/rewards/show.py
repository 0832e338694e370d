"""``yendor rewards show RUN``: the preference tree of a run, or the weights of a weighted sum."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launch.arguments import parse
from launch.errors import UserError
from launch.rewards import words
from launch.rewards.stored import heron_config, read_report, take_switch
from rewards.heron.config import SumConfig

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from rewards.heron.factors import Factor, FactorTable
    from rewards.heron.report import HeronReport, LevelReport


def run(argv: Sequence[str]) -> int:
    """Print what a run's reward over factors prefers; ``--json`` prints it for programs."""
    from envs.data import Config

    path = Path(argv[0])
    as_json, rest = take_switch(argv[1:], "--json")
    parse(Config(), rest, f"yendor rewards show {path}")
    config = heron_config(path)
    try:
        table = FactorTable.from_ranking(config.ranking)
    except ValueError as error:
        raise UserError(f"the ranking of run {path} cannot be read here: {error}") from None
    if isinstance(config, SumConfig):
        return _show_sum(config, table, as_json=as_json)
    return _show_tree(read_report(path), table, as_json=as_json)


def _show_sum(config: SumConfig, table: FactorTable, *, as_json: bool) -> int:
    weights = config.weights(len(table.names))
    if as_json:
        levels = [
            {"name": f.name, "sign": f.sign, "weight": w, "columns": f.columns, "description": f.description}
            for f, w in zip(table.factors, weights, strict=True)
        ]
        sys.stdout.write(json.dumps({"mode": "sum", "levels": levels}, indent=1) + "\n")
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(title="Each step pays the sum of its factors, weighted", title_justify="left")
    shown.add_column("factor")
    shown.add_column("weight", justify="right")
    shown.add_column("what it is")
    for one, weight in zip(table.factors, weights, strict=True):
        shown.add_row(Text(one.name), words.figure(one.sign * weight), Text(one.description))
    Console().print(shown)
    return 0


def _show_tree(report: HeronReport, table: FactorTable, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(report.as_json(), indent=1) + "\n")
        return 0
    from rich.console import Console

    console = Console()
    if report.uses_tree:
        console.print(drawn(report, {factor.name: factor for factor in table.factors}))
    console.print(totals(report), highlight=False, markup=False)
    return 0


def drawn(report: HeronReport, factors: dict[str, Factor]) -> Tree:
    """The tree: each level hangs from the one before it.

    Args:
        report: what is known of it.
        factors: those of the run's ranking, by name.
    """
    from rich.text import Text
    from rich.tree import Tree

    pairs = report.levels[0].compared if report.levels else 0
    root = Tree(Text(f"two segments of play ({pairs:,} random pairs of held-out ones)", style="dim"))
    branch = root
    for number, level in enumerate(report.levels, 1):
        branch = branch.add(_level(number, level, report.mode, pairs, factors.get(level.name)))
    branch.add(Text.assemble(("tie", "bold"), f"  no level decides: {words.share(report.tie_share)} of all pairs"))
    return root


def _level(number: int, level: LevelReport, mode: str, pairs: int, factor: Factor | None) -> Text:
    from rich.text import Text

    lines = Text.assemble(
        (f"{number} {level.name}", "bold dim" if level.dead else "bold"),
        f"  {words.direction(level.sign)} is better, {words.margin(level.margin, mode)}",
    )
    lines.append(f"\ndecides {level.decided:,} of {level.compared:,} pairs that reach it")
    lines.append(f" ({words.share(level.decided, pairs)} of all), passes on {level.ties:,}")
    if level.accuracy is not None:
        told = words.accuracy(level.accuracy, level.accuracy_low, level.accuracy_high, level.independent_pairs)
        lines.append(f"\nthe model agrees on {told}")
    if level.description:
        lines.append(f"\n{level.description}", style="dim")
    if factor is not None:
        lines.append(f"\nreads {', '.join(factor.columns)}; {factor.over} over the segment", style="dim")
    if level.dead:
        lines.append("\ndead: it tells no two kept segments apart, so it never decides", style="yellow")
    return lines


def totals(report: HeronReport) -> str:
    """What is known of the tree and its model as a whole."""
    sources = ", ".join(f"{count:,} by {source}" for source, count in report.sources.items()) or "none yet"
    known = [
        f"version {report.version} of the reward, segments kept {report.segments:,}"
        f" (held out {report.held_out_segments:,})",
        f"pairs judged: {sources}",
    ]
    judged = f"{words.share(report.judged_accuracy)} of held-out pairs that others have judged"
    if not report.uses_tree:
        return "\n".join(["no preference tree: others judge", *known, f"the model agrees on {judged}"])
    cycles = "not measured yet" if report.cycle_share is None else f"{words.share(report.cycle_share)} of triples"
    lines = [
        f"mode {report.mode}; preferred in a circle: {cycles}",
        *known,
        f"the model agrees on {words.share(report.accuracy)} of decided held-out pairs;"
        f" rank correlation {words.figure(report.rank_correlation)}",
    ]
    if report.judged_accuracy is not None:
        lines.append(f"... and on {judged}")
    return "\n".join(lines)
