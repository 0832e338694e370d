"""Which games can be played: task ids, their specification, and ``make``.

A task is a registered NLE or MiniHack environment, or one of ours (``envs.registered.OWN_TASKS``). NLE, MiniHack and
gymnasium are imported when they are asked for: it takes a second.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING

from envs.differences import why_unbuildable
from envs.protocols import SeedSource
from envs.spec import GamesConfig, TaskSpec

if TYPE_CHECKING:
    from envs.vector import NetHackVector


def task_ids() -> tuple[str, ...]:
    """Every task id that can be built here, sorted."""
    from envs import registered

    buildable = (id_ for id_ in registered.registered_ids() if why_unbuildable(id_) is None)
    return tuple(sorted((*buildable, *registered.OWN_TASKS)))


def task(id_: str) -> TaskSpec:
    """Specification of a task.

    Raises:
        ValueError: the id is unknown (the sentence names the nearest ones), or is registered and cannot be
            built here (the sentence says why).
    """
    from envs import registered

    if id_ in registered.OWN_TASKS:
        return registered.OWN_TASKS[id_]()
    known = registered.registered_ids()
    if id_ not in known:
        near = difflib.get_close_matches(id_, (*known, *registered.OWN_TASKS), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; `yendor tasks` lists all"
        raise ValueError(f"unknown task '{id_}'{hint}")
    if reason := why_unbuildable(id_):
        raise ValueError(f"task '{id_}' cannot be built: {reason}")
    return registered.read_spec(id_)


def specs_of(config: GamesConfig) -> tuple[TaskSpec, ...]:
    """The tasks of a configuration, with its changes applied.

    Raises:
        ValueError: an id is unknown or cannot be built here; one sentence.
    """
    changes = {
        name: value
        for name in ("penalty_step", "max_episode_steps", "character")
        if (value := getattr(config, name)) is not None
    }
    return tuple(replace(task(id_), **changes) for id_ in config.task_ids)


def make(config: GamesConfig, num_games: int, seeds: SeedSource) -> NetHackVector:
    """Games of ``config`` in this process; call it inside the process that will step them.

    Args:
        config: which tasks and what is seen of them.
        num_games: B, dealt over the tasks in turn.
        seeds: which episodes are played.

    Raises:
        ValueError: an unknown task, or fewer games than tasks.
    """
    from envs.vector import NetHackVector

    return NetHackVector(config, specs_of(config), num_games, seeds)
