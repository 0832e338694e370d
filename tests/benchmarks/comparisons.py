"""Comparisons by a preference tree per second: ours in both modes, beside a plain loop over pairs and levels.

The loop is what HERON's public code does: every pair of a few items, with a nested ``if`` a level. Ours are measured
from row numbers to labels. All have one factor a level, with as many levels left to later pairs, and take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt

from envs.data import Config
from launch.bench.harness import in_turn, ratio_spread, ratios, spread
from rewards.heron.tree import Level, PreferenceTree

LOOP = "plain loop"
_SEGMENTS = 2048
"""Segments that pairs are drawn from, as a run keeps by default."""
_VALUES = 4
"""A factor is one of 0 to 3: with a margin of 1, six of sixteen random pairs are decided at each level."""
_LOOP_SHARE = 20
"""The loop gets one pair for so many of ours, since it takes longer."""


class ComparisonsBench(Config):
    """Comparisons by a preference tree per second, beside a plain loop."""

    pairs: Annotated[int, Field(ge=_LOOP_SHARE)] = 200_000
    """Pairs that ours compare in a round; the loop compares a twentieth of them."""
    levels: Annotated[int, Field(gt=0, le=127)] = 4
    """Factors in the ranking."""
    rounds: PositiveInt = 9
    """How often each is measured."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes factors and pairs."""


def loop(factors: Sequence[Sequence[float]], pairs: Sequence[tuple[int, int]], levels: Sequence[Level]) -> list[int]:
    """Outcomes of pairs of rows, one by one: 1 the first is better, -1 the second, 0 a tie."""
    outcomes = []
    for first, second in pairs:
        outcome = 0
        for number, level in enumerate(levels):
            difference = level.sign * (factors[first][number] - factors[second][number])
            if difference > level.margin:
                outcome = 1
                break
            if difference < -level.margin:
                outcome = -1
                break
        outcomes.append(outcome)
    return outcomes


def measure(flags: ComparisonsBench) -> tuple[str, dict[str, Any]]:
    """The table, and every measurement."""
    rng = np.random.default_rng(flags.seed)
    factors = rng.integers(0, _VALUES, (_SEGMENTS, flags.levels)).astype(np.float64)
    first, second = rng.integers(0, _SEGMENTS, (2, flags.pairs))
    levels = [Level(name=f"factor {n}", sign=(-1) ** n, margin=1.0) for n in range(flags.levels)]
    by_margin, by_bins = PreferenceTree(levels, "margin"), PreferenceTree(levels, "bins")
    rows = factors.tolist()
    looped = list(zip(first.tolist(), second.tolist(), strict=True))[: flags.pairs // _LOOP_SHARE]
    cases = {
        LOOP: _timed(len(looped), lambda: loop(rows, looped, levels)),
        "tree, margin": _timed(flags.pairs, lambda: by_margin.compare(factors.take(first, 0), factors.take(second, 0))),
        "tree, bins": _timed(flags.pairs, lambda: by_bins.compare(factors.take(first, 0), factors.take(second, 0))),
    }
    speeds = in_turn(cases, flags.rounds)
    summary = {"reference": LOOP, "systems": summarise(speeds)}
    decided = by_margin.compare(factors[first], factors[second]).level
    shares = {level.name: float((decided == number).mean()) for number, level in enumerate(levels)}
    summary["decided_by_margin"] = shares | {"tie": float((decided < 0).mean())}
    return table(summary), {"summary": summary, "measurements": speeds}


def _timed(pairs: int, work: Callable[[], object]) -> Callable[[int], float]:
    """Pairs per second."""

    def measure(number: int) -> float:
        start = time.perf_counter()
        work()
        return pairs / (time.perf_counter() - start)

    return measure


def summarise(speeds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Median and range of each one's pairs per second, and of its ratio to the loop round by round."""
    return {name: spread(own) | ratio_spread(ratios(own, speeds[LOOP])) for name, own in speeds.items()}


def table(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    lines = [f"{'system':<14}{'pairs/s':>12}  {'range':<24}{'ratio':>7}  range"]
    for name, row in summary["systems"].items():
        speed = f"{row['low']:,.0f}-{row['high']:,.0f}"
        ratio = f"{row['ratio_median']:.1f}x"
        between = f"{row['ratio_low']:.1f}-{row['ratio_high']:.1f}"
        lines.append(f"{name:<14}{row['median']:>12,.0f}  {speed:<24}{ratio:>7}  {between}")
    shares = (f"{name} {share:.0%}" for name, share in summary["decided_by_margin"].items())
    lines.append(f"decided (margin): {', '.join(shares)}")
    return "\n".join(lines)
