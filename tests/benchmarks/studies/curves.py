"""The runs of all studies and their curves: what tables and figures are made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.store import studies

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""``{name without -seedN: results of its seeds}``."""
CONTROL_STUDIES = ("heron_control", "heron_robust")
"""Studies of classic control."""
_TABLES_OF_THEIR_OWN = ("captions", "coverage", *CONTROL_STUDIES)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What a curve is drawn against."""

    column: str
    """Of a result's ``curve``."""
    unit: float
    """What one unit of the axis is, in the column's."""
    label: str


STEPS = Axis(column="step", unit=1e3, label="environment steps, thousands")
SECONDS = Axis(column="time/elapsed_s", unit=1.0, label="seconds of training")


def load(folder: Path) -> Runs:
    """Every finished run in a folder's studies; where two studies hold the same run, the longer one counts."""
    longest: dict[str, dict[str, Any]] = {}
    for study, results in studies(folder).items():
        if study in _TABLES_OF_THEIR_OWN or study.startswith("offline"):
            continue
        for name, result in sorted(results.read().items()):
            if "-seed" not in name:
                continue
            steps = max(map(int, result["evaluations"]))
            known = longest.get(name)
            if known is None or steps > max(map(int, known["evaluations"])):
                longest[name] = result
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name in sorted(longest):
        runs[name.rpartition("-seed")[0]].append(longest[name])
    return runs


def success_on_grid(result: Mapping[str, Any], grid: np.ndarray, against: Axis = STEPS) -> np.ndarray:
    """Training success (last 100 episodes) at each point of the axis; 0 before the first episode ended."""
    curve = result["curve"]
    pairs = zip(curve[against.column], curve["rollout/success"], strict=True)
    points = [(step, value) for step, value in pairs if value is not None]
    steps, values = np.array(points, float).T
    return np.interp(grid, steps, values, left=0.0)


def area_under_curve(result: Mapping[str, Any], steps: int) -> float:
    """Mean training success from 0 to ``steps``: 1 is solved from the first step on."""
    return float(success_on_grid(result, np.linspace(0, steps, 501)).mean())
