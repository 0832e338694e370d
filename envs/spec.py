"""What a task is, and which games are played and seen: data only, so that configurations load without a game."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from envs.data import Config

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

MOVES = {
    "north": (0, -1),
    "east": (1, 0),
    "south": (0, 1),
    "west": (-1, 0),
    "northeast": (1, -1),
    "southeast": (1, 1),
    "southwest": (-1, 1),
    "northwest": (-1, -1),
}
"""(columns, rows) of the actions that move by one square."""

Engine = Literal["auto", "native", "plain"]
"""What runs NetHack: ``native``, ``plain`` (NLE's module), or ``auto``: native where it can be had."""

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
    """Leave every yes/no question to the player; else only those of ``envs.controls.LEFT_TO_PLAYER``."""
    allow_all_modes: bool
    """Leave menus, text input and ``--More--`` to the player."""
    des: str | None
    """Source of the level (a MiniHack des-file); None = the dungeon, or a level drawn at each episode."""
    level_drawn_each_episode: bool
    """The level comes from minigrid and is compiled again for every episode."""
    reward_win: float = 1.0
    reward_lose: float = 0.0
    controls: Callable[..., Any]
    """``envs.controls.Controls``: how an action becomes key presses."""
    logic: Callable[..., Any]
    """``envs.logic.Logic``: rewards and ends."""


def union_of_names(specs: Sequence[TaskSpec]) -> tuple[str, ...]:
    """The action space of games of several tasks: names of all their actions, each once, in order of appearance."""
    return tuple(dict.fromkeys(name for spec in specs for name in spec.action_names))


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
    engine: Engine = "auto"
    """What runs NetHack: plain = NLE's own module, native = ours, which plays the same games faster (Linux on
    x86-64), auto = native where it can be had."""

    @property
    def task_ids(self) -> tuple[str, ...]:
        """The ids in ``task``."""
        return tuple(part.strip() for part in self.task.split(","))
