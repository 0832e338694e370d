"""What learned rewards add to the time of training: the same updates with and without each, in turn.

Every variant is the run that ``yendor train`` makes, with one process that does everything. Plain PPO names no
messages; the others name, count and label them (by a client that answers at once and costs nothing, so that only
our own work is measured), let the caption model learn, pay captions, and learn a second value head. HERON has games
compute the columns of the schema that it reads, cuts play into segments, and lets its model learn from them. A reward
program has games compute what it reads, too, and is run in full containment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import numpy as np

from agents.config import ModelConfig, PPOConfig
from tests.benchmarks.overhead.variants import (
    NO_LEARNING,
    Spent,
    Variant,
    VariantsBench,
    cost,
    median_interval,
    update_in_turn,
    with_program,
)

PLAIN = "plain PPO"
ONI = ("retrieval", "classification", "ranking")
HERON = "heron"
BOTH = "heron, classification"
PROGRAM = "program"
PROGRAM_SOURCE = """
COMPONENTS = {"goal": "sparse", "explore": "dense", "news": "dense"}

def reward(obs, prev_obs, action, info):
    return {
        "goal": 1.0 if info["succeeded"] else -1.0 if info["died"] else 0.0,
        "explore": 1.0 if info["new_tiles_seen"] > 0 else 0.0,
        "news": 1.0 if info["message_count"] == 1 else 0.0,
    }
"""
"""A reward program of an ordinary size: three components, as `yendor design` writes them."""


LEARNED = ("labels", "reward_model", "score", "evidence")
"""Phases of a learned reward: asking, training, scoring, cutting segments."""


class RewardsBench(VariantsBench):
    """What ONI's rewards, HERON's and those of a program add to the time of training."""

    task: str = "MiniHack-KeyRoom-S5-v0"
    """A task id."""
    ppo: PPOConfig = PPOConfig(learning_rate=NO_LEARNING)
    model: ModelConfig = ModelConfig()


def variants() -> dict[str, Variant]:
    """What is compared."""
    labelled = {"labels.client.kind": "scripted", "reward.oni.weight": 0.1}
    preferring = {"reward.heron.kind": "tree", "reward.heron.weight": 0.1}
    found = {PLAIN: Variant(metrics=True)}
    for kind in ONI:
        changes = labelled | {"reward.oni.kind": kind}
        found[kind] = Variant(captions=True, labels=True, metrics=True, changes=changes)
    found[HERON] = Variant(captions=True, metrics=True, changes=preferring)
    both = found["classification"]
    found[BOTH] = replace(both, changes=both.changes | preferring)
    found[PROGRAM] = Variant(captions=True, metrics=True, changes={}, program=PROGRAM_SOURCE)
    return found


def measure(flags: RewardsBench) -> tuple[str, dict[str, Any]]:
    """The table, and all that was measured.

    Raises:
        UserError: the flags do not fit together.
    """
    found = variants()
    configs = {name: with_program(flags.train_config(one.changes), one.program) for name, one in found.items()}
    spent = update_in_turn(found, configs, updates=flags.updates, threads=flags.threads, seed=flags.seed)
    plain = spent[PLAIN]
    summary = {
        "plain_steps_per_s": flags.batch / median(s.wall_s for s in plain),
        "rewards": {name: summarise(own, plain, flags.batch) for name, own in spent.items() if name != PLAIN},
    }
    measurements = {name: [asdict(s) for s in own] for name, own in spent.items()}
    return table(summary), {"summary": summary, "measurements": measurements}


def summarise(own: Sequence[Spent], plain: Sequence[Spent], steps: int) -> dict[str, Any]:
    """One reward beside plain PPO.

    Args:
        own: updates with it.
        plain: the same updates without it.
        steps: environment steps in an update.

    Returns:
        ``ratio`` of the speeds (median over updates) with its 95 % interval, by wall clock and by CPU time; what
        the phases that only a reward has cost (``LEARNED``, ``captions``); the share of the reward model in the
        learner's time (``learn`` and ``reward_model`` together) and in the run's; and the share of ``LEARNED`` in it.
    """
    found: dict[str, Any] = {}
    for clock in ("wall_s", "cpu_s"):
        ratios = np.array([getattr(p, clock) / getattr(o, clock) for p, o in zip(plain, own, strict=True)])
        low, high = median_interval(ratios)
        found[f"ratio_{clock[:-2]}"] = {"median": float(np.median(ratios)), "low": low, "high": high}
    whole_s = np.array([o.wall_s for o in own])
    for phase in ("captions", *LEARNED):
        found[phase] = cost(np.array([o.phases[phase] for o in own]), whole_s, steps)
    model_s, learn_s = (sum(o.phases[phase] for o in own) for phase in ("reward_model", "learn"))
    found["reward_model_share_of_learner"] = model_s / (model_s + learn_s)
    found["reward_model_share_of_run"] = model_s / float(whole_s.sum())
    found["learned_share_of_run"] = sum(o.phases[phase] for o in own for phase in LEARNED) / float(whole_s.sum())
    return found


def table(summary: Mapping[str, Any]) -> str:
    """The ratios for people."""
    lines = [
        f"plain PPO: {summary['plain_steps_per_s']:,.0f} steps/s",
        f"{'':<24}{'of its speed':>13}  {'95 % interval':<16}{'by CPU time':>12}  {'95 % interval':<16}"
        f"{'reward model, of learner':>25}{'of run':>8}{'with scoring':>14}",
    ]
    for name, found in summary["rewards"].items():
        wall, cpu = found["ratio_wall"], found["ratio_cpu"]
        lines.append(
            f"{name:<24}{wall['median']:>13.3f}  {_interval(wall):<16}{cpu['median']:>12.3f}  {_interval(cpu):<16}"
            f"{found['reward_model_share_of_learner']:>25.2%}{found['reward_model_share_of_run']:>8.2%}"
            f"{found['learned_share_of_run']:>14.2%}"
        )
    return "\n".join(lines)


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['low']:.3f} to {found['high']:.3f}"
