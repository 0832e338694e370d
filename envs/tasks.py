"""Which games can be played: task ids, their specification, and ``make``.

A task is a registered NLE or MiniHack environment, or one of ours (``OWN_TASKS``). Importing this module
imports neither gymnasium nor nle, so that configurations stay cheap to load.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from envs.data import Config
from envs.protocols import SeedSource

if TYPE_CHECKING:
    from envs.vector import NetHackVector

# fmt: off
NLE_KEYS = (
    "glyphs", "chars", "colors", "specials", "blstats", "message", "program_state", "internal", "inv_glyphs",
    "inv_letters", "inv_oclasses", "inv_strs", "screen_descriptions", "tty_chars", "tty_colors", "tty_cursor",
    "misc",
)
"""Observation keys that NetHack itself fills."""
CROP_KEYS = (
    "glyphs_crop", "chars_crop", "colors_crop", "specials_crop", "tty_chars_crop", "tty_colors_crop",
    "screen_descriptions_crop",
)
# fmt: on
"""Egocentric windows of those, centred on the hero (``tty_*``: on the cursor)."""
MAP_SUMMARY = "map_summary"
OBS_KEYS = (*NLE_KEYS, *CROP_KEYS, MAP_SUMMARY)
"""Every observation key that games can show."""

_CHARACTER = re.compile(
    r"@|(arc|bar|cav|hea|kni|mon|pri|rog|ran|sam|tou|val|wiz)(-(hum|elf|dwa|gno|orc)|-(law|neu|cha)|-(mal|fem))*"
)


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Everything that fixes a task but the seeds."""

    id: str
    action_names: tuple[str, ...]
    """Lower-case names, unique within the task."""
    keys: tuple[int, ...]
    """The key code that each action presses."""
    options: tuple[str, ...]
    """NetHack options."""
    character: str
    """``role-race-alignment-gender``, or ``@`` for a random one."""
    spawn_monsters: bool
    max_episode_steps: int
    """Time limit of the task in steps; reaching it is a truncation."""
    penalty_step: float
    """Added to the reward of a step in which game time stood still."""
    allow_all_yn_questions: bool
    """Leave every yes/no question to the player; else only those of ``envs.prompts.LEFT_TO_PLAYER``."""
    allow_all_modes: bool
    """Leave menus, text input and ``--More--`` to the player."""
    des: str | None
    """Source of the level (a MiniHack des-file); None = the dungeon, or a level drawn at each episode."""
    level_drawn_each_episode: bool
    """The level comes from minigrid and is compiled anew for every episode."""
    reward_win: float = 1.0
    reward_lose: float = 0.0
    controls: Callable[..., Any]
    """``envs.prompts.Controls``: how an action becomes key presses."""
    logic: Callable[..., Any]
    """``envs.logic.Logic``: rewards and ends."""


def _one_or_more_ids(value: str) -> str:
    if not all(part.strip() for part in value.split(",")):
        raise ValueError(f"task '{value}' must be a task id, or several separated by commas")
    return value


def _known_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    for key in keys:
        if key not in OBS_KEYS:
            raise ValueError(f"unknown observation key '{key}'; allowed are {', '.join(OBS_KEYS)}")
    if not keys or len(set(keys)) < len(keys):
        raise ValueError("obs_keys must name at least one key, and each key once")
    return keys


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"crop must be odd, so that the hero is at its centre; {value} is even")
    return value


def _character(value: str | None) -> str | None:
    if value is not None and not _CHARACTER.fullmatch(value):
        raise ValueError(
            f"unknown character '{value}'; expected '@' (random) or role-race-alignment-gender, such as mon-hum-neu-mal"
        )
    return value


class GamesConfig(Config):
    """Which games are played and what is seen of them."""

    task: Annotated[str, AfterValidator(_one_or_more_ids)] = "MiniHack-KeyRoom-S5-v0"
    """A task id, or several separated by commas: games are dealt over them in turn, the action space is
    their union."""
    obs_keys: Annotated[tuple[str, ...], AfterValidator(_known_keys)] = (
        "glyphs_crop",
        "blstats",
        "message",
        MAP_SUMMARY,
    )
    """Observation keys that the policy gets."""
    crop: Annotated[int, Field(ge=1, le=79), AfterValidator(_odd)] = 9
    """Side of the egocentric windows (``*_crop``) in map cells, odd."""
    penalty_step: float | None = None
    """Reward of a step in which game time stood still; none = the task's own."""
    max_episode_steps: Annotated[int, Field(ge=1)] | None = None
    """Time limit in steps (longer than the task's own is fine); none = the task's own."""
    character: Annotated[str | None, AfterValidator(_character)] = None
    """role-race-alignment-gender, or @ for a random one; none = the task's own."""
    features: tuple[str, ...] = ()
    """Schema features to compute at each step (those that the configured rewards read)."""
    captions: Literal["message", "changes"] = "message"
    """What captions are made of. message = what the game says; changes = that, and what became of hit points,
    depth, experience level, gold and pack."""
    engine: Literal["auto", "native", "plain"] = "auto"
    """What runs NetHack: plain = NLE's own module, native = ours, which plays the same games faster (Linux on
    x86-64), auto = native where it can be had."""

    @property
    def task_ids(self) -> tuple[str, ...]:
        """The ids in ``task``."""
        return tuple(part.strip() for part in self.task.split(","))

    def specs(self) -> tuple[TaskSpec, ...]:
        """The tasks with this configuration's changes applied.

        Raises:
            ValueError: an id is unknown or cannot be built here; one sentence.
        """
        changes = {
            name: value
            for name in ("penalty_step", "max_episode_steps", "character")
            if (value := getattr(self, name)) is not None
        }
        return tuple(replace(task(id_), **changes) for id_ in self.task_ids)


def task_ids() -> tuple[str, ...]:
    """Every task id that can be built here, sorted."""
    from envs import registered
    from envs.conformance import why_unbuildable

    buildable = (id_ for id_ in registered.registered_ids() if why_unbuildable(id_) is None)
    return tuple(sorted((*buildable, *registered.OWN_TASKS)))


def task(id_: str) -> TaskSpec:
    """Specification of a task.

    Raises:
        ValueError: the id is unknown (the sentence names the nearest ones), or is registered and cannot be
            built here (the sentence says why).
    """
    from envs import registered
    from envs.conformance import why_unbuildable

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

    return NetHackVector(config, num_games, seeds)
