"""Where a configuration begins: a preset or a task by its name, and which rewards it pays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from envs.tasks import GamesConfig
from launch.config.presets import PRESETS, preset
from launch.config.train import TrainConfig
from launch.errors import UserError, nearest, unknown_name
from rewards.config import RewardConfig

_TASK = re.compile(r"[\w.:/-]+-v\d+(,[\w.:/-]+-v\d+)*")
"""What ids of tasks look like; whether there is such a task is looked up when the run is to start."""
_USUAL_WEIGHTS = {"oni": 0.1, "heron": 0.3}


def starting_from(name: str) -> TrainConfig:
    """A preset's configuration, or the default one of a task.

    Raises:
        UserError: there is neither; names the nearest.
    """
    if name in PRESETS:
        return preset(name)
    if _TASK.fullmatch(name):
        return TrainConfig(preset=name.partition(",")[0], env=GamesConfig(task=name))
    from envs.tasks import task_ids  # imports gymnasium, and all that registers tasks

    near = nearest(name, (*PRESETS, *task_ids()))
    if not near:
        raise UserError(
            f"unknown preset or task '{name}'; presets are {', '.join(PRESETS)}; 'yendor tasks' lists tasks"
        )
    raise UserError(f"unknown preset or task '{name}'; did you mean {' or '.join(near)}?")


def paying(reward: RewardConfig, names: Sequence[str]) -> RewardConfig:
    """The rewards with these kinds paid beside the environment's own, and no others.

    A kind that has no weight yet is given its usual one.

    Raises:
        UserError: there is no such kind.
    """
    for name in names:
        if name not in _USUAL_WEIGHTS:
            raise unknown_name("reward", name, _USUAL_WEIGHTS)
    changes: dict[str, Any] = {}
    for name, usual in _USUAL_WEIGHTS.items():
        part = getattr(reward, name)
        changes[name] = part.replace(weight=(part.weight or usual) if name in names else 0.0)
    return reward.replace(**changes)
