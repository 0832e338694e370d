"""Reads the specification of a task off its registered NLE or MiniHack class, without building its game."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nle.nethack
from gymnasium.envs.registration import registry as gym_registry
from nle.env import base as nle_base
from nle.env import tasks as nle_tasks

from envs import controls, logic
from envs.gameless import minihack_base, without_game
from envs.own_levels import own_levels
from envs.spec import TaskSpec

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from minihack.envs import keyroom, minigrid

_CONTROLS: dict[Any, Callable[..., Any]] = {
    nle_base.NLE.step: controls.PlainControls,
    minihack_base.MiniHack.step: controls.PlainControls,
    keyroom.MiniHackKeyDoor.step: controls.KeyRoomControls,
}
"""Which of our controls stands for a ``step`` method."""

_LOGIC: dict[Any, Callable[..., Any]] = {
    (nle_base.NLE._is_episode_end, nle_base.NLE._reward_fn): logic.ScoreLogic,
    (nle_base.NLE._is_episode_end, nle_tasks.NetHackScore._reward_fn): logic.ScoreLogic,
    (nle_tasks.NetHackStaircase._is_episode_end, nle_tasks.NetHackStaircase._reward_fn): logic.StairsLogic,
    (minihack_base.MiniHack._is_episode_end, minihack_base.MiniHack._reward_fn): logic.StairsLogic,
}
"""Which of our fast logics stands for a pair of (end, reward) methods; every other pair is asked itself."""


@functools.cache
def registered_ids() -> frozenset[str]:
    """Ids of NLE and MiniHack tasks in gymnasium's registry."""
    return frozenset(id_ for id_ in gym_registry if id_.startswith(("NetHack", "MiniHack-")))


def _action_names(actions: Any) -> tuple[str, ...]:
    prefix = {"CompassDirectionLonger": "far_"}
    compass = {"N": "north", "E": "east", "S": "south", "W": "west"}
    compass |= {"NE": "northeast", "SE": "southeast", "SW": "southwest", "NW": "northwest"}
    names = []
    for action in actions:
        name: str = action.name
        names.append(prefix.get(type(action).__name__, "") + compass.get(name, name.lower()))
    return tuple(names)


def _source(level: str | None) -> str | None:
    if level is None or not level.endswith(".des"):
        return level
    path = Path(level) if Path(level).exists() else Path(minihack_base.PATH_DAT_DIR) / level
    return path.read_text()


@functools.cache
def read_spec(task_id: str) -> TaskSpec:
    """Specification of a registered id."""
    env = without_game(task_id)
    cls = type(env)
    asked_itself = getattr(env, "reward_manager", None) is not None
    fast = None if asked_itself else _LOGIC.get((cls._is_episode_end, cls._reward_fn))
    if cls._check_abort is nle_tasks.NetHackChallenge._check_abort:
        fast = logic.ChallengeLogic
    drawn = isinstance(env, minigrid.MiniGridHack)
    arguments = env.nethack.arguments
    return TaskSpec(
        id=task_id,
        action_names=_action_names(env.actions),
        keys=tuple(int(a) for a in env.actions),
        options=tuple(arguments["options"] or nle.nethack.NETHACKOPTIONS),
        character=env.character,
        spawn_monsters=arguments["spawn_monsters"],
        max_episode_steps=int(env._max_episode_steps),
        penalty_step=float(getattr(env, "penalty_step", 0.0)),
        allow_all_yn_questions=env._allow_all_yn_questions,
        allow_all_modes=env._allow_all_modes,
        des=None if drawn else _source(env.level_source),
        level_drawn_each_episode=drawn,
        reward_win=float(getattr(env, "reward_win", 1.0)),
        reward_lose=float(getattr(env, "reward_lose", 0.0)),
        controls=_CONTROLS[cls.step],
        logic=fast or logic.AskedLogic,
    )


EXTENDED_ID = "NetHackScoreExtended-v0"


def _score_extended() -> TaskSpec:
    """NLE's score task with ONI's 28 actions, prompts and macros."""
    score = read_spec("NetHackScore-v0")
    command = nle.nethack.Command
    added = (command.CAST, command.QUAFF, command.PRAY, command.PICKUP, command.PAY)
    return replace(
        score,
        id=EXTENDED_ID,
        action_names=score.action_names + _action_names(added),
        keys=score.keys + tuple(int(a) for a in added),
        controls=controls.ExtendedControls,
    )


def _own_level(task_id: str) -> TaskSpec:
    """A navigation task like MiniHack's, on a level of ours."""
    level = own_levels()[task_id]
    like = read_spec("MiniHack-MazeWalk-Mapped-9x9-v0")
    return replace(like, id=task_id, des=level.des, max_episode_steps=level.max_episode_steps)


OWN_TASKS: dict[str, Callable[[], TaskSpec]] = {
    EXTENDED_ID: _score_extended,
    **{task_id: functools.partial(_own_level, task_id) for task_id in own_levels()},
}
"""Tasks of ours that are not in gymnasium's registry."""
