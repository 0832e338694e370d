"""The tables of the README, made from the results of studies and from nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from envs.statistics import difference_interval, t_interval
from launch.design.summary import interval, left_out
from tests.benchmarks.store import Results
from tests.benchmarks.studies.curves import STEPS, Runs, area_under_curve
from tests.benchmarks.studies.figures import FIGURES


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


def coverage_table(results: Results) -> str:
    """Share of caption occurrences that had a label, in the first 4,000 steps (nearly random play) and in all."""
    lines = ["| task | occurrences judged, first 4,000 steps | all 50,000 steps |", "|---|---|---|"]
    for _, result in sorted(results.read().items()):
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


def designs_table(results: Results) -> str:
    """What searches for reward programs found: the chosen program on fresh seeds, beside no program."""
    lines = [
        "| search | trials | its own steps | success on seeds A | reward | steps of each | success (each seed) "
        "| 95 % interval | true return | left out |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in sorted(results.read().items()):
        chosen = found["selection"]
        selected = "-" if chosen is None else f"{chosen['success']:.3f} (n = {chosen['n']})"
        head = f"| {name} | {found['trials']} | {found['search_steps']:,} | {selected} |"
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


def control_table(study: Results) -> str:
    """Mean true return of the last evaluation, with a 95 % Student interval over seeds, as Markdown.

    "over the run" is the mean of all evaluations, which are at equal distances: how soon it was learned.

    Args:
        study: its results.
    """
    runs: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for name, result in sorted(study.read().items()):
        runs[result["env"], name.rpartition("-seed")[0]].append(result)
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


# ---- offline planning


def mazes_table(study: Results) -> str:
    """Success of each head and way to plan, over seeds: all pairs of start and stairs, and those far apart.

    Far apart is more than 8 steps, the longest trip of the ``stitch`` logs. Steps beyond the shortest way are of the
    episodes that succeeded. The last column is success less that of ``one_step`` alone, with a 95 % interval over
    seeds.
    """
    lines = [
        "| logs | head | mode | seeds | success (each seed) | 95 % interval | far pairs | steps beyond the shortest "
        "| less one_step alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    runs = _by_variant(study)
    for (logs, head, mode), found in sorted(runs.items()):
        success = [_mean(e["success"] for e in one) for one in found]
        far = [_mean(e["success"] for e in one if e["shortest"] > _LONGEST_TRIP) for one in found]
        extra = [_mean(e["steps"] - e["shortest"] for e in one if e["success"]) for one in found]
        alone = [_mean(e["success"] for e in one) for one in runs.get((logs, "one_step", "none"), ())]
        less = ""
        if len(alone) > 1 and len(success) > 1:
            low, high = difference_interval(success, alone)
            less = f"{np.mean(success) - np.mean(alone):+.3f} ({low:+.3f} to {high:+.3f})"
        each = ", ".join(f"{x:.3f}" for x in success)
        lines.append(
            f"| {logs} | {head} | {mode} | {len(found)} | **{np.mean(success):.3f}** ({each}) "
            f"| {_share_interval(success)} | {np.mean(far):.3f} ({_share_interval(far)}) "
            f"| {np.nanmean(extra):.1f} | {less} |"
        )
    return "\n".join(lines)


_LONGEST_TRIP = 8


def _by_variant(study: Results) -> dict[tuple[str, str, str], list[list[dict[str, float]]]]:
    """``{(logs, head, mode): episodes of each seed}``."""
    runs: dict[tuple[str, str, str], list[list[dict[str, float]]]] = defaultdict(list)
    for name, result in sorted(study.read().items()):
        logs, _, head = name.rpartition("-seed")[0].partition("_")
        for mode, found in result["evaluations"].items():
            ways = found["shortest"]
            runs[logs, head, mode].append(
                [
                    {"success": won, "steps": steps, "shortest": way}
                    for (_, won, steps, _), way in zip(found["episodes"], ways, strict=True)
                ]
            )
    return runs


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else float("nan")


def _share_interval(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "one seed"
    low, high = t_interval(values)
    return f"{low:.3f} to {high:.3f}"


def forks_table(study: Results) -> str:
    """Plans executed as a whole where two equally long ways lead to the stairs: valid ones, and which way they took."""
    lines = [
        "| head | filled in by | seeds | plans | valid (each seed) | of the valid ones, northern way |",
        "|---|---|---|---|---|---|",
    ]
    runs: dict[tuple[str, str], list[tuple[float, float, int]]] = defaultdict(list)
    for name, result in sorted(study.read().items()):
        head = name.rpartition("-seed")[0].partition("_")[2]
        for way, found in result["evaluations"].items():
            valid = [actions for actions in found["actions"] if len(actions) <= _FORK_STEPS]
            north = [any("north" in action for action in actions[:2]) for actions in valid]
            share = len(valid) / len(found["actions"])
            runs[head, way].append((share, _mean(north), len(found["actions"])))
    for (head, way), found in sorted(runs.items()):
        each = ", ".join(f"{share:.3f}" for share, _, _ in found)
        mean, north = (np.mean([one[k] for one in found]) for k in (0, 1))
        plans = sum(num for _, _, num in found)
        lines.append(f"| {head} | {way} | {len(found)} | {plans:,} | **{mean:.3f}** ({each}) | {north:.2f} |")
    return "\n".join(lines)


_FORK_STEPS = 10
"""Of either way."""
