"""Measures contenders in turn (A B A B ...), so that what the machine does meanwhile meets them all."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil

from launch.bench.contender import Isolated, Maker, Round, num_cores
from launch.run_folder import installed_versions

Say = Callable[[str], None]


def alternate(makers: Sequence[Maker], rounds: int, seconds: float, say: Say = print) -> dict[str, list[Round]]:
    """Start every contender, warm each up, then measure them in turn.

    Args:
        makers: what is measured, in this order in each round.
        rounds: how often each is measured.
        seconds: length of one measurement.
        say: told of each one.

    Raises:
        RunError: a contender failed.
    """
    found: dict[str, list[Round]] = {maker.name: [] for maker in makers}
    with ExitStack() as stack:
        contenders = []
        for maker in makers:
            contender = Isolated(maker)
            stack.callback(contender.close)
            contender.warm_up()
            contenders.append(contender)
            say(f"{maker.name} is warm")
        for number in range(1, rounds + 1):
            for contender in contenders:
                measured = contender.run_round(seconds)
                found[contender.name].append(measured)
                say(f"round {number}/{rounds}  {contender.name:<16} {measured.steps_per_s:>10,.0f} steps/s")
    return found


def summarise(makers: Sequence[Maker], found: Mapping[str, Sequence[Round]]) -> dict[str, Any]:
    """Medians, ranges and splits, and each contender's ratio to the fastest reference, round by round.

    Returns:
        ``{"reference": name, "contenders": {name: {...}}}``; speeds in steps/s.
    """
    speeds = {name: [r.steps_per_s for r in rounds] for name, rounds in found.items()}
    references = [maker.name for maker in makers if maker.is_reference]
    reference = max(references, key=lambda name: median(speeds[name])) if references else None
    rows = {}
    for name, own in speeds.items():
        row: dict[str, Any] = {"median": median(own), "low": min(own), "high": max(own), "rounds": own}
        activities = found[name][0].split
        row["split"] = {activity: mean(r.split[activity] for r in found[name]) for activity in activities}
        if reference is not None and name not in references:
            ratios = [a / b for a, b in zip(own, speeds[reference], strict=True)]
            row |= {"ratio_median": median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
            row["ratios"] = ratios
        rows[name] = row
    return {"reference": reference, "contenders": rows}


def table(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    lines = [f"{'contender':<18}{'steps/s':>10}  {'range':<18}{'ratio':>7}  {'range':<14}  split"]
    for name, row in summary["contenders"].items():
        ratio, between = "", ""
        if "ratio_median" in row:
            ratio = f"{row['ratio_median']:.2f}x"
            between = f"{row['ratio_low']:.2f}-{row['ratio_high']:.2f}"
        elif name == summary["reference"]:
            ratio = "1"
        split = ", ".join(f"{activity} {share:.0%}" for activity, share in row["split"].items())
        speed = f"{row['low']:,.0f}-{row['high']:,.0f}"
        lines.append(f"{name:<18}{row['median']:>10,.0f}  {speed:<18}{ratio:>7}  {between:<14}  {split}")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """The machine, without its name, and the versions of what was measured."""
    versions = installed_versions()
    versions["stable-baselines3"] = metadata.version("stable-baselines3")
    return {
        "cpu": _cpu(),
        "cores": num_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": round(os.getloadavg()[0], 2),
        "versions": versions,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    name = found.get("model name", platform.processor() or "unknown")
    return f"{name} (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else name


def raw(found: Mapping[str, Sequence[Round]]) -> list[dict[str, Any]]:
    """Every measurement, in the order in which it was made."""
    names = list(found)
    return [
        {"round": number, "contender": name, **asdict(found[name][number])}
        for number in range(len(found[names[0]]))
        for name in names
    ]


def as_json(command: Sequence[str], flags: Any, before: Mapping[str, Any], **results: Any) -> str:
    """Everything that a reader needs to judge and repeat the figures."""
    return json.dumps({"command": list(command), "flags": flags, "machine": before, **results}, indent=1)
