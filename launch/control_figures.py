"""The tables of ``yendor study heron_control`` and ``heron_robust``: true returns under each reward."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from envs.statistics import t_interval

CONTROL_STUDIES = ("heron_control", "heron_robust")
"""Folders of their results."""


def control_table(folder: Path) -> str:
    """Mean true return of the last evaluation, with a 95 % Student interval over seeds, as Markdown.

    "over the run" is the mean of all evaluations, which are at equal distances: how soon it was learned.

    Args:
        folder: of one study's results.
    """
    runs: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(folder.glob("*-seed*.json")):
        result = json.loads(path.read_text())
        runs[result["env"], path.stem.rpartition("-seed")[0]].append(result)
    lines = [
        "| environment | runs | policies | steps of each | seeds | true return (each seed) | 95 % interval "
        "| over the run | ended by itself |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (env, label), results in sorted(runs.items()):
        finals = [result["curve"]["env_return"][-1] for result in results]
        over_run = np.mean([np.mean(result["curve"]["env_return"]) for result in results])
        ended = np.mean([result["curve"]["ended"][-1] for result in results])
        each = ", ".join(f"{value:.1f}" for value in finals)
        lines.append(
            f"| {env} | {label} | {results[0]['num_policies']} | {results[0]['curve']['step'][-1]:,} | {len(results)} "
            f"| **{np.mean(finals):.1f}** ({each}) | {_interval(finals)} | {over_run:.1f} | {ended:.0%} |"
        )
    return "\n".join(lines)


def _interval(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "one seed"
    low, high = t_interval(values)
    return f"{low:.1f} to {high:.1f}"
