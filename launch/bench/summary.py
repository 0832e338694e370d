"""What alternating rounds come to: medians, ranges, ratios to the references; for people and for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import mean, median
from typing import Any

from launch.bench.contender import Maker, Round


def summarise(makers: Sequence[Maker], found: Mapping[str, Sequence[Round]]) -> dict[str, Any]:
    """Medians, ranges and splits, and the ratios of our contenders to the references, round by round.

    Returns:
        ``{"reference": name of the fastest, "contenders": {name: {...}}}``; speeds in steps/s. The ratio of a
        contender is that to the fastest reference; ``against`` has those to each of them.
    """
    speeds = {name: [r.steps_per_s for r in rounds] for name, rounds in found.items()}
    references = [maker.name for maker in makers if maker.is_reference]
    reference = max(references, key=lambda name: median(speeds[name])) if references else None
    rows = {}
    for name, own in speeds.items():
        row: dict[str, Any] = {"median": median(own), "low": min(own), "high": max(own), "rounds": own}
        row |= {"split": _split(found[name]), "memory_mb": _memory_mb(found[name])}
        if reference is not None and name not in references:
            against = {other: _ratios(own, speeds[other]) for other in references}
            row |= against[reference] | {"against": against}
        rows[name] = row
    return {"reference": reference, "contenders": rows}


def _split(rounds: Sequence[Round]) -> dict[str, float]:
    return {activity: mean(r.split[activity] for r in rounds) for activity in rounds[0].split}


def _memory_mb(rounds: Sequence[Round]) -> float | None:
    return max((r.memory_mb for r in rounds if r.memory_mb is not None), default=None)


def _ratios(own: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(own, theirs, strict=True)]
    return {"ratio_median": median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios), "ratios": ratios}


def table(summary: Mapping[str, Any]) -> str:
    """The summary for people; with several references, the ratios to each below."""
    rows = summary["contenders"]
    width = 2 + max(map(len, (*rows, "contender")))
    lines = [f"{'contender':<{width}}{'steps/s':>10}  {'range':<18}{'ratio':>7}  {'range':<14}{'MB':>6}  split"]
    for name, row in rows.items():
        ratio, between = _shown(row) if "ratio_median" in row else ("1" if name == summary["reference"] else "", "")
        memory = "" if row["memory_mb"] is None else f"{row['memory_mb']:,.0f}"
        split = ", ".join(f"{activity} {share:.0%}" for activity, share in row["split"].items())
        speed = f"{row['low']:,.0f}-{row['high']:,.0f}"
        lines.append(
            f"{name:<{width}}{row['median']:>10,.0f}  {speed:<18}{ratio:>7}  {between:<14}{memory:>6}  {split}".rstrip()
        )
    for name, row in rows.items():
        if len(row.get("against", {})) > 1:
            shown = (f"{ratios['ratio_median']:.2f}x {other}" for other, ratios in row["against"].items())
            lines.append(f"{name}: {', '.join(shown)}")
    return "\n".join(lines)


def _shown(ratios: Mapping[str, Any]) -> tuple[str, str]:
    return f"{ratios['ratio_median']:.2f}x", f"{ratios['ratio_low']:.2f}-{ratios['ratio_high']:.2f}"


def raw(found: Mapping[str, Sequence[Round]]) -> list[dict[str, Any]]:
    """Every measurement, in the order in which it was made."""
    names = list(found)
    return [
        {"round": number, "contender": name, **asdict(found[name][number])}
        for number in range(len(found[names[0]]))
        for name in names
    ]
