"""The plots of the README: success against steps or seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tests.benchmarks.studies.curves import SECONDS, STEPS, Axis, Runs, success_on_grid


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One plot: some variants of one task, success against steps or seconds."""

    title: str
    variants: Mapping[str, str]
    """``{label in the legend: name of the runs without -seedN}``."""
    against: Axis = STEPS


def _placements(title: str, task: str) -> Panel:
    variants = {"one process, fp32": "synchronous", "two peers, fp32": "symmetric", "two peers, bf16": "symmetric_bf16"}
    return Panel(title=title, variants={label: f"{task}_{name}" for label, name in variants.items()})


def _clocks(title: str, task: str) -> Panel:
    variants = {"SB3 PPO over our games": f"{task}_sb3", "two peers, fp32": f"{task}_symmetric"}
    return Panel(title=title, variants=variants, against=SECONDS)


def _rewards(title: str, task: str) -> Panel:
    variants = {"retrieval": "oni", "classification": "classification", "ranking": "ranking"}
    return Panel(title=title, variants={"PPO": task} | {f"PPO + ONI {x}": f"{task}_{y}" for x, y in variants.items()})


def _rankings(title: str, task: str, sparse: str) -> Panel:
    variants = {"PPO": sparse, "PPO + HERON": f"{task}_heron", "PPO + weighted sum": f"{task}_weighted_sum"}
    return Panel(title=title, variants=variants)


FIGURES: Mapping[str, tuple[Panel, ...]] = {
    "reference": (Panel(title="KeyRoom-S5", variants={"Yendor PPO": "keyroom", "SB3 PPO": "keyroom_reference"}),),
    "soundness": (
        Panel(title="Room-Random-5x5", variants={"PPO": "room"}),
        Panel(title="KeyRoom-S5", variants={"PPO": "keyroom"}),
        Panel(title="River-Narrow", variants={"PPO": "river_narrow"}),
    ),
    "placement": (
        _placements("Room-Random-5x5", "room"),
        _placements("KeyRoom-S5", "keyroom"),
        _placements("River-Narrow", "river_narrow"),
    ),
    "wall_clock": (
        _clocks("Room-Random-5x5", "room"),
        _clocks("KeyRoom-S5", "keyroom"),
        _clocks("River-Narrow", "river_narrow"),
    ),
    "oni": (
        Panel(title="KeyRoom-S5", variants={"PPO": "keyroom", "PPO + ONI retrieval": "keyroom_oni"}),
        _rewards("LockedDoor", "locked_door"),
        _rewards("Corridor-R5", "corridor"),
    ),
    "heron": (
        _rankings("LockedDoor", "locked_door", "locked_door"),
        _rankings("River-Narrow", "river_narrow", "river_narrow_sparse"),
        _rankings("WoD-Easy-Restricted", "wod_easy", "wod_easy_sparse"),
    ),
}
"""``{file name: panels}``."""


def draw(runs: Runs, figure: str, out: Path) -> bool:
    """Draw one of ``FIGURES`` as PNG; False if it has no runs yet. Thin lines are seeds, thick ones means."""
    panels = [panel for panel in FIGURES[figure] if any(name in runs for name in panel.variants.values())]
    if not panels:
        return False
    drawing = Figure(figsize=(4.2 * len(panels), 3.1), layout="constrained")
    axes = drawing.subplots(1, len(panels), squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        _draw_panel(panel, runs, axis)
    axes[0].set_ylabel("success, last 100 training episodes")
    out.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(out, dpi=130)
    return True


def _seeds(num: int) -> str:
    return "1 seed" if num == 1 else f"{num} seeds"


_COLOURS = ("#1f5f8b", "#b5532a", "#4c8c4a", "#7b5ea7")


def _draw_panel(panel: Panel, runs: Runs, axis: Any) -> None:
    for (label, name), colour in zip(panel.variants.items(), _COLOURS, strict=False):
        results = runs.get(name, ())
        if not results:
            continue
        against = panel.against
        grid = np.linspace(0, min(result["curve"][against.column][-1] for result in results), 301)
        curves = np.stack([success_on_grid(result, grid, against) for result in results])
        shown = grid / against.unit
        axis.plot(shown, curves.T, color=colour, alpha=0.35, linewidth=0.8)
        axis.plot(shown, curves.mean(0), color=colour, linewidth=2, label=f"{label}, {_seeds(len(results))}")
    axis.set(title=panel.title, xlabel=panel.against.label, ylim=(-0.03, 1.03))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="best")
