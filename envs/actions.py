"""One action space for games of several tasks: the union of theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from envs.tasks import TaskSpec


def union_of_names(specs: Sequence[TaskSpec]) -> tuple[str, ...]:
    """Names of all the tasks' actions, each once, in order of appearance."""
    return tuple(dict.fromkeys(name for spec in specs for name in spec.action_names))


def own_actions(spec: TaskSpec, names: Sequence[str]) -> np.ndarray:
    """int64 [A]: index of each of the union's actions within the task; -1 where it has none."""
    own = {name: i for i, name in enumerate(spec.action_names)}
    return np.array([own.get(name, -1) for name in names])


def action_mask(specs: Sequence[TaskSpec], names: Sequence[str]) -> np.ndarray | None:
    """Which action each game has, bool [B, A]; None where each game's actions are the union, in its order."""
    if all(spec.action_names == tuple(names) for spec in specs):
        return None
    return np.stack([own_actions(spec, names) >= 0 for spec in specs])


def translated(play: Callable[[int], bool], own: list[int]) -> Callable[[int], bool]:
    """``play`` taking the union's actions."""
    return lambda action: play(own[action])
