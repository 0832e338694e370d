"""Tables and plots from the JSON files of studies: what the README shows is made here and nowhere else."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.statistics import difference_interval, t_interval
from launch.control_figures import CONTROL_STUDIES
from launch.design.summary import interval, left_out


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

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""``{name without -seedN: results of its seeds}``."""

_TABLES_OF_THEIR_OWN = ("captions", "coverage", *CONTROL_STUDIES)


def load(folder: Path) -> Runs:
    """Every finished job below a folder; where two studies hold the same job, the longer run counts."""
    longest: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*/*-seed*.json")):
        if path.parent.name in _TABLES_OF_THEIR_OWN:
            continue
        result = json.loads(path.read_text())
        steps = max(map(int, result["evaluations"]))
        known = longest.get(path.stem)
        if known is None or steps > max(map(int, known["evaluations"])):
            longest[path.stem] = result
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


def rows(runs: Runs) -> list[dict[str, Any]]:
    """One row for each variant and milestone: evaluated success and true return, means over seeds."""
    found = []
    for name, results in runs.items():
        for steps in sorted({int(s) for r in results for s in r["evaluations"]}):
            summaries = [r["evaluations"][str(steps)]["summary"] for r in results if str(steps) in r["evaluations"]]
            row: dict[str, Any] = {"runs": name, "steps": steps, "seeds": len(summaries)}
            areas = [area_under_curve(r, steps) for r in results if str(steps) in r["evaluations"]]
            figures = {"success": [s["success"] for s in summaries], "area": areas}
            figures["env_return"] = [s["env_return"] for s in summaries]
            for figure, values in figures.items():
                row[figure] = float(np.mean(values))
                row[f"{figure}_each"] = values
                if len(values) > 1:
                    row[f"{figure}_low"], row[f"{figure}_high"] = t_interval(values)
            found.append(row)
    return found


def table(runs: Runs) -> str:
    """The rows as Markdown."""
    lines = [
        "| runs | steps | seeds | success (each seed) | 95 % interval | true return | area under curve |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows(runs):
        each = ", ".join(f"{value:.3f}" for value in row["success_each"])
        interval = f"{row['success_low']:.3f} to {row['success_high']:.3f}" if row["seeds"] > 1 else "one seed"
        lines.append(
            f"| {row['runs']} | {row['steps']:,} | {row['seeds']} | **{row['success']:.3f}** ({each}) | {interval} "
            f"| {row['env_return']:.3f} | {row['area']:.3f} |"
        )
    return "\n".join(lines)


def differences(runs: Runs) -> str:
    """Each panel's other variants minus its first, with 95 % Welch intervals over seeds.

    Success at the milestones that both have; area under the curve up to where the shorter one ends.
    """
    lines = ["| task | compared | steps | figure | difference | 95 % interval |", "|---|---|---|---|---|---|"]
    for panel in (panel for panels in FIGURES.values() for panel in panels if panel.against is STEPS):
        (first_label, first), *others = panel.variants.items()
        for label, name in others:
            for steps, figure, one, other in _compared(runs.get(first, ()), runs.get(name, ())):
                low, high = difference_interval(other, one)
                lines.append(
                    f"| {panel.title} | {label} - {first_label} | {steps:,} | {figure} "
                    f"| {np.mean(other) - np.mean(one):+.3f} | {low:+.3f} to {high:+.3f} |"
                )
    return "\n".join(lines)


def _compared(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[int, str, list[float], list[float]]]:
    """(steps, figure, values of the first, values of the second) wherever both have at least two seeds."""
    if min(len(first), len(second)) < 2:
        return
    milestones = [{int(steps) for result in side for steps in result["evaluations"]} for side in (first, second)]
    for steps in sorted(milestones[0] & milestones[1]):
        success = [
            [r["evaluations"][str(steps)]["summary"]["success"] for r in side if str(steps) in r["evaluations"]]
            for side in (first, second)
        ]
        if min(map(len, success)) > 1:
            yield steps, "success", success[0], success[1]
    steps = min(max(m) for m in milestones)
    areas = [[area_under_curve(r, steps) for r in side] for side in (first, second)]
    yield steps, "area", areas[0], areas[1]


def coverage_table(folder: Path) -> str:
    """Share of caption occurrences that had a label, in the first 4,000 steps (nearly random play) and in all."""
    lines = ["| task | occurrences judged, first 4,000 steps | all 50,000 steps |", "|---|---|---|"]
    for path in sorted((folder / "coverage").glob("*-seed1.json")):
        result = json.loads(path.read_text())
        curve = result["curve"]
        early = [c for step, c in zip(curve["step"], curve["labels/coverage"], strict=True) if step <= 4096]
        task = result["job"]["flags"][1]
        lines.append(f"| {task} | {np.mean(early):.3f} | {np.mean(curve['labels/coverage']):.3f} |")
    return "\n".join(lines)


def trees_table(runs: Runs) -> str:
    """How the trees of runs decided held-out pairs of segments, and how often their models agreed, over all seeds."""
    lines = ["| runs | level | decided | of | the model agrees (each seed) |", "|---|---|---|---|---|"]
    for name, results in runs.items():
        trees = [result["heron"]["levels"] for result in results if result.get("heron")]
        for levels in zip(*trees, strict=True):
            decided, right, compared = (sum(level[key] for level in levels) for key in ("decided", "right", "compared"))
            each = ", ".join("-" if level["accuracy"] is None else f"{level['accuracy']:.3f}" for level in levels)
            agrees = f"**{right / decided:.3f}** ({each})" if decided else "never decided"
            lines.append(f"| {name} | {levels[0]['name']} | {decided:,} | {compared:,} | {agrees} |")
    return "\n".join(lines)


def designs_table(folder: Path) -> str:
    """What searches for reward programs came to: the chosen program on fresh seeds, beside no program."""
    lines = [
        "| search | trials | its own steps | success on seeds A | reward | steps of each | success (each seed) "
        "| 95 % interval | true return | left out |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted((folder / "design").glob("*.json")):
        found = json.loads(path.read_text())
        chosen = found["selection"]
        selected = "-" if chosen is None else f"{chosen['success']:.3f} (n = {chosen['n']})"
        head = f"| {path.stem} | {found['trials']} | {found['search_steps']:,} | {selected} |"
        for label, kind in (("chosen program", "report"), ("no program", "sparse")):
            one = found[kind]
            if one is not None:
                lines.append(f"{head} {label} | {_design_row(one)} |")
    return "\n".join(lines)


def _design_row(one: Mapping[str, Any]) -> str:
    """Steps, success with its interval, true return and what was left out, of one side of a search's report."""
    out = left_out(one)
    if one["success"] is None:
        return f"- | - | - | - | {out}"
    each = ", ".join(f"{share:.3f}" for share in one["each"])
    seeds = interval(one["low"], one["high"]) if len(one["each"]) > 1 else "one seed"
    return f"{max(one['steps']):,} | **{one['success']:.3f}** ({each}) | {seeds} | {one['env_return']:.3f} | {out}"


def captions_table(runs: Runs, names: Sequence[str], num: int = 5) -> str:
    """The best paid captions of each variant, summed over its seeds."""
    lines = ["| runs | caption | label | times | paid |", "|---|---|---|---|---|"]
    for name in names:
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for caption in (caption for result in runs.get(name, ()) for caption in result["captions"]):
            entry = sums[caption["text"]]
            entry[0] = caption["label"] or 0.0
            entry[1] += caption["count"]
            entry[2] += caption["paid"]
        best = sorted(sums.items(), key=lambda item: -item[1][2])[:num]
        for text, (label, count, paid) in ((text, sums) for text, sums in best if sums[2] > 0):
            shown = text.replace("\n", " / ").replace("|", "\\|")
            lines.append(f"| {name} | {shown} | {label:.3g} | {count:,.0f} | {paid:,.1f} |")
    return "\n".join(lines)


def draw(runs: Runs, figure: str, out: Path) -> bool:
    """Draw one of ``FIGURES`` as PNG; False if it has no runs yet. Thin lines are seeds, thick ones means."""
    panels = [panel for panel in FIGURES[figure] if any(name in runs for name in panel.variants.values())]
    if not panels:
        return False
    from matplotlib.figure import Figure

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
