"""``yendor rewards factors``, ``rewards compare`` and a run's preference tree: rewards from ranked factors."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic_settings import CliPositionalArg

from envs.data import Config
from launch.config.flags import AsJson
from launch.config.resolve import saved_config
from launch.errors import UserError
from launch.runs.folder import read_record
from launch.show import figure, share, share_of
from rewards.heron import report as stored
from rewards.heron.config import DEFAULT_RANKING, FactorsConfig, SumConfig, TreeConfig
from rewards.heron.factors import FactorTable, parse_ranking
from rewards.heron.report import direction, margin
from rewards.heron.tree import Level, LevelVerdict, Mode, PreferenceTree

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from envs.recording import EpisodeRecord
    from rewards.config import RewardConfig
    from rewards.heron.factors import Factor
    from rewards.heron.report import HeronReport, LevelReport

EXAMPLE_FILE = "my_factors.py"
EXAMPLE = """\
import numpy as np

from rewards.heron.factors import factor


@factor("obs.message", over="sum")
def kicked(columns):
    "Doors kicked open."
    return np.char.find(columns["obs.message"], "WHAMM") >= 0
"""
"""A module of the user's own, and its file."""

ENTRIES = ("success", "kicked = my_factors:kicked", "doors = sum('door opens' in obs.message)", "-turns@5")
"""A ranking with what every kind of entry looks like."""


class CatalogueFlags(Config):
    """List the factors that a ranking may be made of, and how to write one of one's own."""

    as_json: AsJson = False
    """Print the catalogue for programs."""


def catalogue(flags: CatalogueFlags) -> int:
    """Print the catalogue and how to write one's own."""
    from rewards.heron.factors import CATALOGUE

    if flags.as_json:
        found = [
            {"name": f.name, "columns": f.columns, "over": f.over, "margin": f.margin, "description": f.description}
            for f in CATALOGUE.values()
        ]
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("factor", "over", "reads", "what it is")
    for known in CATALOGUE.values():
        table.add_row(*(Text(cell) for cell in (known.name, known.over, "\n".join(known.columns), known.description)))
    Console().print(table)
    sys.stdout.write(_ADVICE)
    return 0


_ADVICE = f"""\
over: how the steps of a segment become one number. Of success and alive any
difference counts; others take their margin from data, unless one is written
(gold@10). A minus says that less is better.

A ranking, the most important first, with a factor of a module of your own and
one that is written as an expression:

    --reward.heron.ranking {ENTRIES[0]} "{ENTRIES[1]}" \\
        "{ENTRIES[2]}" {ENTRIES[3]}

{EXAMPLE_FILE}, somewhere on PYTHONPATH (columns are arrays [T, B], and so is what a
factor gives):

{indent(EXAMPLE, "    ")}"""


# -- a run's preferences ---------------------------------------------------------------------------


def rewards_of(run: Path) -> RewardConfig:
    """How a run's rewards are configured.

    Raises:
        UserError: there is no run, or its configuration is not one of this version.
    """
    return saved_config(run).reward


def heron_config(run: Path) -> FactorsConfig:
    """How a run's reward over factors is configured.

    Raises:
        UserError: there is no run, or it has no such reward.
    """
    config = rewards_of(run).heron
    if config.weight == 0:
        raise UserError(f"run {run} has no reward over factors: its reward.heron.weight is 0")
    return config


def read_report(run: Path) -> HeronReport:
    """The newest report of a run's preference tree.

    Raises:
        UserError: there is none yet, or it is damaged; the text names the file.
    """
    try:
        return stored.read_report(run)
    except ValueError as error:
        raise UserError(str(error)) from None


def show_run(run: Path, *, as_json: bool) -> int:
    """Print what a run's reward over factors prefers."""
    config = heron_config(run)
    try:
        table = FactorTable.from_ranking(config.ranking)
    except ValueError as error:
        raise UserError(f"the ranking of run {run} cannot be read here: {error}") from None
    if isinstance(config, SumConfig):
        return _show_sum(config, table, as_json=as_json)
    return _show_tree(read_report(run), table, as_json=as_json)


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
        shown.add_row(Text(one.name), figure(one.sign * weight), Text(one.description))
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
    branch.add(Text.assemble(("tie", "bold"), f"  no level decides: {share(report.tie_share)} of all pairs"))
    return root


def _level(number: int, level: LevelReport, mode: str, pairs: int, factor: Factor | None) -> Text:
    from rich.text import Text

    lines = Text.assemble(
        (f"{number} {level.name}", "bold dim" if level.dead else "bold"),
        f"  {direction(level.sign)} is better, {margin(level.margin, mode)}",
    )
    lines.append(f"\ndecides {level.decided:,} of {level.compared:,} pairs that reach it")
    lines.append(f" ({share(level.decided, pairs)} of all), passes on {level.ties:,}")
    if level.accuracy is not None:
        agreed = share_of(level.accuracy, level.accuracy_low, level.accuracy_high, level.independent_pairs)
        lines.append(f"\nthe model agrees on {agreed}")
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
    judged = f"{share(report.judged_accuracy)} of held-out pairs that others have judged"
    if not report.uses_tree:
        return "\n".join(["no preference tree: others judge", *known, f"the model agrees on {judged}"])
    cycles = "not measured yet" if report.cycle_share is None else f"{share(report.cycle_share)} of triples"
    lines = [
        f"mode {report.mode}; preferred in a circle: {cycles}",
        *known,
        f"the model agrees on {share(report.accuracy)} of decided held-out pairs;"
        f" rank correlation {figure(report.rank_correlation)}",
    ]
    if report.judged_accuracy is not None:
        lines.append(f"... and on {judged}")
    return "\n".join(lines)


# -- compare -----------------------------------------------------------------------------------------


_SIDES = {1: "A", -1: "B", 0: "neither"}
_WIDTHS: Mapping[Mode, str] = {"bins": "bin width", "margin": "margin"}
"""What a level's margin is, by mode."""


class CompareFlags(Config):
    """Compare two recorded episodes (yendor eval --record), factor by factor, the most important first."""

    first: Annotated[CliPositionalArg[Path], Field(alias="episode_a")]
    """Two recorded episodes: yendor rewards compare EPISODE_A EPISODE_B"""
    second: Annotated[CliPositionalArg[Path], Field(alias="episode_b")]
    """Two recorded episodes: yendor rewards compare EPISODE_A EPISODE_B"""
    run: Path | None = None
    """Use the preference tree of this run, with the margins that it has taken from its own play."""
    ranking: tuple[str, ...] = ()
    """Or this ranking, each as [-]NAME[=EXPRESSION][@MARGIN]; without a margin any difference counts. A margin is the
    width of a bin, or in margin mode the difference that must be exceeded."""
    mode: Literal["margin", "bins"] | None = None
    """With --ranking: how values compare, see reward.heron.comparison.mode; none = bins."""
    as_json: AsJson = False
    """Print it for programs."""


@dataclass(frozen=True)
class Judge:
    """A tree, and the factors that it compares."""

    table: FactorTable
    tree: PreferenceTree
    note: str = ""
    """What a reader of its verdicts must know."""

    def values(self, record: EpisodeRecord) -> np.ndarray:
        """float64 [F]: the factors over a whole episode.

        Raises:
            ValueError: the record lacks a column, or a factor is not finite.
        """
        steps = self.table.per_step(record.as_rollout())[:, 0]
        return self.table.over_segments(steps, np.array([record.num_steps]))[0]


def compare(flags: CompareFlags) -> int:
    """Say which episode is better and what decided."""
    paths = [flags.first, flags.second]
    judge = of_flags(flags)
    records = [read_record(path) for path in paths]
    if records[0].task != records[1].task:
        raise UserError(
            f"only episodes of one task compare: {paths[0]} is of {records[0].task}, {paths[1]} of {records[1].task}"
        )
    verdicts = judge.tree.explain(*(_values(judge, record, at) for record, at in zip(records, paths, strict=True)))
    if flags.as_json:
        sys.stdout.write(json.dumps(_compared_json(paths, records, judge, verdicts), indent=1) + "\n")
    else:
        _print_compared(paths, records, judge, verdicts)
    return 0


def of_flags(flags: CompareFlags) -> Judge:
    """The tree of a run, or of a ranking.

    Raises:
        UserError: both are given, the run has none, or the ranking cannot be read.
    """
    if flags.run is None:
        return _of_ranking(flags.ranking or DEFAULT_RANKING, flags.mode or "bins")
    if flags.ranking or flags.mode:
        raise UserError("give --run, or --ranking and --mode, not both: a run has a ranking and a mode of its own")
    return _of_run(flags.run)


def _of_ranking(ranking: Sequence[str], mode: Mode) -> Judge:
    try:
        table = FactorTable(parse_ranking(ranking))
    except ValueError as error:
        raise UserError(f"--ranking: {error}") from None
    levels = [Level(name=f.name, sign=f.sign, margin=f.margin or 0.0) for f in table.factors]
    return Judge(table, PreferenceTree(levels, mode))


def _of_run(path: Path) -> Judge:
    config = heron_config(path)
    if not isinstance(config, TreeConfig):
        raise UserError(f"run {path} adds its factors up, it has no preference tree; give --ranking instead")
    report = read_report(path)
    if not report.uses_tree:
        raise UserError(
            f"run {path} has no preference tree: its model learns from pairs that others judged; give --ranking instead"
        )
    try:
        table = FactorTable.from_ranking(config.ranking)
    except ValueError as error:
        raise UserError(f"the ranking of run {path} cannot be read here: {error}") from None
    if tuple(level.name for level in report.levels) != table.names:
        raise UserError(f"run {path} is configured for {', '.join(table.names)}, which is not what its tree ranks")
    levels = []
    for level in report.levels:
        if level.margin is None:
            raise UserError(f"run {path} has taken no margins yet: it has seen too little play")
        levels.append(Level(name=level.name, sign=level.sign, margin=level.margin))
    note = ""
    if config.segment_steps is not None:
        note = f"The run's margins are of segments of {config.segment_steps} steps; these are whole episodes."
    return Judge(table, PreferenceTree(levels, config.comparison.mode), note)


def _values(judge: Judge, record: EpisodeRecord, path: Path) -> np.ndarray:
    try:
        return judge.values(record)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def deciding(verdicts: Sequence[LevelVerdict]) -> LevelVerdict | None:
    """The first level that decides between the two; None of a tie."""
    return next((verdict for verdict in verdicts if verdict.outcome), None)


def _compared_json(
    paths: Sequence[Path], records: Sequence[EpisodeRecord], judge: Judge, verdicts: Sequence[LevelVerdict]
) -> dict[str, Any]:
    decider = deciding(verdicts)
    return {
        "episodes": {
            side: {"file": str(path), "seeds": list(record.seeds), "steps": record.num_steps, "ending": record.ending}
            for side, path, record in zip("AB", paths, records, strict=True)
        },
        "task": records[0].task,
        "mode": judge.tree.mode,
        "better": _SIDES[decider.outcome if decider else 0],
        "decided_by": decider.level.name if decider else None,
        "levels": [
            {
                "name": v.level.name,
                "sign": v.level.sign,
                "margin": v.level.margin,
                "A": v.first,
                "B": v.second,
                "better": _SIDES[v.outcome],
                "strength": v.strength,
                "reached": v.reached,
            }
            for v in verdicts
        ],
    }


def _print_compared(
    paths: Sequence[Path], records: Sequence[EpisodeRecord], judge: Judge, verdicts: Sequence[LevelVerdict]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for side, path, record in zip("AB", paths, records, strict=True):
        length = f"{record.num_steps:,} step{'s' * (record.num_steps != 1)}"
        console.print(f"{side}  {path}: {length}, {record.ending}", highlight=False, markup=False, soft_wrap=True)
    decider = deciding(verdicts)
    table = Table(title=f"{records[0].task}, mode {judge.tree.mode}", title_justify="left")
    width = _WIDTHS[judge.tree.mode]
    for name in ("", "factor", "better is", "A", "B", width, "verdict"):
        table.add_column(name, justify="right" if name in ("A", "B", width) else "left")
    for number, v in enumerate(verdicts, 1):
        cells = (
            str(number),
            v.level.name,
            direction(v.level.sign),
            figure(v.first),
            figure(v.second),
            figure(v.level.margin),
            _verdict(v),
        )
        style = "bold" if v is decider else "" if v.reached else "dim"
        table.add_row(*(Text(cell, style=style) for cell in cells))
    console.print(table)
    console.print(_sentence(decider, judge.tree.mode), highlight=False, markup=False)
    if judge.note:
        console.print(judge.note, highlight=False, markup=False)


def _verdict(verdict: LevelVerdict) -> str:
    if not verdict.outcome:
        return "undecided" if verdict.reached else "not reached"
    said = f"{_SIDES[verdict.outcome]} is better"
    return said if verdict.reached else f"not reached ({said})"


def _sentence(decider: LevelVerdict | None, mode: Mode) -> str:
    if decider is None:
        return "A tie: no factor tells the two apart."
    better, other = (decider.first, decider.second) if decider.outcome > 0 else (decider.second, decider.first)
    by = ""
    if decider.level.margin:
        unit = "bin" if mode == "bins" else "margin"
        by = f", {figure(decider.strength)} {unit}{'s' * (decider.strength != 1)} apart"
    return (
        f"{_SIDES[decider.outcome]} is better, decided by {decider.level.name}: "
        f"{figure(better)} against {figure(other)}{by}."
    )
