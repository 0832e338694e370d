"""``yendor compare RUN RUN ... [--json OUT]``: the evaluations of several runs side by side."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from envs.data import Config
from envs.files import write_atomic
from launch.config.flags import JsonOut, result_path
from launch.errors import UserError

_FIGURES = ("success", "env_return", "episode_steps", "score", "max_depth", "max_xp_level", "progression")


class CompareFlags(Config):
    """Put the evaluations of runs side by side; runs of the same preset are also averaged over their seeds."""

    runs: Annotated[CliPositionalArg[tuple[Path, ...]], Field(min_length=1)]
    """Run folders that 'yendor eval' was run on."""
    out: JsonOut = None
    """A file that keeps the figures."""


def run(flags: CompareFlags) -> int:
    """Print one row for each run and task, and the means over seeds."""
    rows = [row for folder in flags.runs for row in evaluations(folder)]
    path = result_path(flags.out)
    _print(rows)
    if path is not None:
        write_atomic(path, json.dumps({"rows": rows, "means": means(rows)}, indent=1))
    return 0


def evaluations(run: Path) -> list[dict[str, Any]]:
    """Every row of figures that was evaluated of a run, with its preset and seed.

    Raises:
        UserError: there is no run, or it was not evaluated.
    """
    from launch.runs.folder import read_config

    config = read_config(run)
    rows = []
    for path in sorted((run / "eval").glob("*.json")):
        summary = json.loads(path.read_text())
        about = {"run": run.name, "preset": config["preset"], "seed": config["seed"], "policy": path.stem}
        rows += [about | row for row in summary["tasks"]]
    if not rows:
        raise UserError(f"run {run} has not been evaluated; 'yendor eval {run}' does that")
    return rows


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over seeds, with its 95 % Student interval, for each preset, task and policy."""
    from agents.statistics import t_interval

    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["preset"], row["task"], row["policy"]].append(row)
    found = []
    for (preset, task, policy), same in groups.items():
        mean: dict[str, Any] = {"preset": preset, "task": task, "policy": policy, "seeds": len(same)}
        for figure in _FIGURES:
            values = [row[figure] for row in same if row.get(figure) is not None]
            if values:
                mean[figure] = sum(values) / len(values)
            if len(values) > 1:
                mean[f"{figure}_low"], mean[f"{figure}_high"] = t_interval(values)
        found.append(mean)
    return found


def _print(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = [figure for figure in _FIGURES if any(row.get(figure) is not None for row in rows)]
    table = Table("run", "task", "policy", *shown)
    for row in rows:
        table.add_row(row["run"], row["task"], row["policy"], *(_cell(row, figure) for figure in shown))
    table.add_section()
    for mean in means(rows):
        if mean["seeds"] > 1:
            name = f"{mean['preset']}, mean of {mean['seeds']}"
            table.add_row(name, mean["task"], mean["policy"], *(_cell(mean, figure) for figure in shown))
    Console().print(table)


def _cell(row: dict[str, Any], figure: str) -> str:
    if row.get(figure) is None:
        return ""
    interval = f" [{row[figure + '_low']:.2f}, {row[figure + '_high']:.2f}]" if f"{figure}_low" in row else ""
    return f"{row[figure]:.3f}{interval}"
