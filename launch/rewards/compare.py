"""``yendor rewards compare EPISODE_A EPISODE_B``: which of two recorded episodes a preference tree prefers, and why."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from envs.data import Config
from launch.arguments import parse
from launch.errors import UserError
from launch.rewards import words
from launch.rewards.finding import read_record
from launch.rewards.stored import heron_config, read_report, take_switch
from rewards.heron.config import DEFAULT_RANKING, TreeConfig
from rewards.heron.factors import FactorTable, parse_ranking
from rewards.heron.tree import Level, LevelVerdict, Mode, PreferenceTree

if TYPE_CHECKING:
    from envs.recording import EpisodeRecord

_SIDES = {1: "A", -1: "B", 0: "neither"}
_WIDTHS: Mapping[Mode, str] = {"bins": "bin width", "margin": "margin"}
"""What a level's margin is, by mode."""


class CompareFlags(Config):
    """Compare two recorded episodes (yendor eval --record), factor by factor, the most important first."""

    run: Path | None = None
    """Use the preference tree of this run, with the margins that it has taken from its own play."""
    ranking: tuple[str, ...] = ()
    """Or this ranking, each as [-]NAME[=EXPRESSION][@MARGIN]; without a margin any difference counts. A margin is the
    width of a bin, or in margin mode the difference that must be exceeded."""
    mode: Literal["margin", "bins"] | None = None
    """With --ranking: how values compare, see reward.heron.comparison.mode; none = bins."""


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


def run(argv: Sequence[str]) -> int:
    """Say which episode is better and what decided; ``--json`` prints it for programs."""
    if len(argv) < 2 or argv[1].startswith("-"):
        raise UserError("rewards compare needs two recorded episodes: yendor rewards compare EPISODE_A EPISODE_B")
    paths = [Path(word) for word in argv[:2]]
    as_json, rest = take_switch(argv[2:], "--json")
    flags = parse(CompareFlags(), rest, f"yendor rewards compare {paths[0]} {paths[1]}")
    judge = of_flags(flags)
    records = [read_record(path) for path in paths]
    if records[0].task != records[1].task:
        raise UserError(
            f"only episodes of one task compare: {paths[0]} is of {records[0].task}, {paths[1]} of {records[1].task}"
        )
    verdicts = judge.tree.explain(*(_values(judge, record, at) for record, at in zip(records, paths, strict=True)))
    if as_json:
        sys.stdout.write(json.dumps(_as_json(paths, records, judge, verdicts), indent=1) + "\n")
    else:
        _print(paths, records, judge, verdicts)
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
    """The first level that tells the two apart; None of a tie."""
    return next((verdict for verdict in verdicts if verdict.outcome), None)


def _as_json(
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


def _print(
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
            words.direction(v.level.sign),
            words.figure(v.first),
            words.figure(v.second),
            words.figure(v.level.margin),
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
        by = f", {words.figure(decider.strength)} {unit}{'s' * (decider.strength != 1)} apart"
    return (
        f"{_SIDES[decider.outcome]} is better, decided by {decider.level.name}: "
        f"{words.figure(better)} against {words.figure(other)}{by}."
    )
