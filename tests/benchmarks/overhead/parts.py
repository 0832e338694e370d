"""What parts of a run add to the time of training: the same updates with and without each, in turn, in one process.

    captions            messages are named, hashed and counted
    labels              a lexicon labels the captions, through the feed, and the update waits for it
    ONI retrieval       labels are paid as a reward, for which a second value head learns
    features            the schema features in ``features``, computed at each step
    every feature       all features that there are
    metrics             everything is accounted for; metrics.jsonl and TensorBoard
    together            captions, labels, ONI retrieval and features
    nothing             a second variant without any of it: how far off the figures can be

The cost of a part is the median difference between an update with it and the same update without it; the interval is
the 95 % bootstrap interval of that median. It is given twice: by the phases of the update in which the part works
(``Row.phases``), which are timed by themselves and so exactly; and by the CPU time of whole updates (of all threads),
which misses nothing, but needs a quiet machine and many updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from envs.features import COLUMNS
from tests.benchmarks.overhead.variants import Spent, Variant, VariantsBench, cost, update_in_turn

TYPICAL = (
    "obs.hp", "prev_obs.hp", "obs.max_hp", "obs.depth", "obs.gold", "prev_obs.gold", "obs.score", "prev_obs.score",
    "obs.xp_level", "obs.hunger", "obs.message", "action", "info.new_tiles_seen", "info.steps_since_change",
    "info.stairs_down_distance",
)  # fmt: skip
"""What a reward for exploring and surviving reads."""


class OverheadBench(VariantsBench):
    """What captions, labels, rewards, features and metrics add to the time of training."""

    features: tuple[str, ...] = TYPICAL
    """Schema features of the variant ``features``."""


class Row(NamedTuple):
    """A part of a run, and what shows its cost."""

    on: str
    """The variant that has it."""
    off: str
    """The same without it."""
    phases: tuple[str, ...]
    """Where it works."""


_ALL = ("games", "inference", "captions", "record", "labels", "reward_model", "score", "learn", "rest")
ROWS = {
    "captions": Row("captions", "bare", ("captions", "record")),
    "labels": Row("labels", "captions", ("labels", "reward_model", "rest")),
    "ONI retrieval": Row("oni", "labels", ("score", "inference", "learn")),
    "features": Row("features", "bare", ("games", "record")),
    "every feature": Row("every feature", "bare", ("games", "record")),
    "metrics": Row("metrics", "captions", ("rest",)),
    "together": Row("together", "bare", _ALL),
    "nothing": Row("bare again", "bare", _ALL),
}
"""What is measured."""


def variants(flags: OverheadBench) -> dict[str, Variant]:
    """What is compared; each variant is that of a row plus one part."""
    waits = {"labels.mode": "barrier"}
    oni = waits | {"reward.oni.kind": "retrieval", "reward.oni.weight": 0.1}
    features = {"env.features": flags.features}
    return {
        "bare": Variant(),
        "bare again": Variant(),
        "captions": Variant(captions=True),
        "labels": Variant(captions=True, labels=True, changes=waits),
        "oni": Variant(captions=True, labels=True, changes=oni),
        "features": Variant(changes=features),
        "every feature": Variant(changes={"env.features": tuple(COLUMNS)}),
        "metrics": Variant(captions=True, metrics=True, changes={"logging.tensorboard": True}),
        "together": Variant(captions=True, labels=True, changes=oni | features),
    }


def measure(flags: OverheadBench) -> tuple[str, dict[str, Any]]:
    """The table, and all that was measured.

    Raises:
        UserError: the flags do not fit together.
    """
    found = variants(flags)
    configs = {name: flags.train_config(variant.changes) for name, variant in found.items()}
    spent = update_in_turn(found, configs, updates=flags.updates, threads=flags.threads, seed=flags.seed)
    costs = {name: _costs(spent[row.on], spent[row.off], row.phases, flags.batch) for name, row in ROWS.items()}
    bare_s = median(s.wall_s for s in spent["bare"])
    results = {
        "summary": {"bare_steps_per_s": flags.batch / bare_s, "costs": costs},
        "measurements": {name: [asdict(s) for s in own] for name, own in spent.items()},
    }
    return table(results["summary"]), results


def _costs(on: Sequence[Spent], off: Sequence[Spent], phases: Sequence[str], steps: int) -> dict[str, Any]:
    def within(spent: Sequence[Spent]) -> np.ndarray:
        return np.array([sum(s.phases[phase] for phase in phases) for s in spent])

    wall, cpu = (np.array([[getattr(s, clock) for s in both] for both in (on, off)]) for clock in ("wall_s", "cpu_s"))
    return {
        "phases": cost(within(on) - within(off), wall[0], steps),
        "cpu": cost(cpu[0] - cpu[1], cpu[0], steps),
        "wall": cost(wall[0] - wall[1], wall[0], steps),
    }


def table(summary: Mapping[str, Any]) -> str:
    """The costs for people."""
    lines = [
        f"without any of it: {summary['bare_steps_per_s']:,.0f} steps/s",
        f"{'':<15}{'its phases':>10}  {'95 % interval':<18}{'us/step':>8}   {'whole update':>12}  95 % interval",
    ]
    for row, costs in summary["costs"].items():
        own, cpu = costs["phases"], costs["cpu"]
        lines.append(
            f"{row:<15}{own['share']:>10.2%}  {_interval(own):<18}{own['us_per_step']:>8.1f}   "
            f"{cpu['share']:>12.1%}  {_interval(cpu)}"
        )
    return "\n".join(lines)


def _interval(costs: Mapping[str, float]) -> str:
    return f"{costs['low']:.2%} to {costs['high']:.2%}"
