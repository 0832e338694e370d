"""The schema: everything that a reward written by people or by a language model may see.

One table, ``FIELDS``, from which the documentation, the prompts and the checks are made. Columns are
named ``obs.hp`` (after the action), ``prev_obs.hp`` (before it), ``action`` and ``info.new_tiles_seen``;
a reward program reads them as ``obs['hp']``, ``prev_obs['hp']``, ``action`` and ``info['new_tiles_seen']``.

Example:
    >>> table = FeatureTable(["obs.hp", "prev_obs.hp", "info.new_tiles_seen"], num_games=16)
    >>> table.reset(buffers, np.arange(16))
    >>> columns = table.update(buffers, actions, messages)  # {"obs.hp": [16], ...}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np

from envs.data import EndStatus, Rollout
from envs.glyphs import CLASS_MEANINGS, COLS, NEAREST_CLASSES, ROWS
from envs.schema_memory import FAR, INVENTORY_CLASSES, Changes, Clock, Inventory, Messages, Nearby, Places, Tiles
from envs.schema_sources import CONDITIONS, MESSAGE_CHARS, WORDS, Actions, Moment, Source, Status, Texts

SCHEMA_VERSION = 1
"""Rises whenever a field is removed, renamed or changes its meaning; new fields do not raise it."""

Group = Literal["obs", "action", "info"]
Kind = Literal["int", "bool", "str"]


@dataclass(frozen=True)
class Field:
    """One field of the schema."""

    name: str
    group: Group
    """Where it is read; every field of ``obs`` is also there for ``prev_obs``."""
    dtype: Kind
    """Type of one value; columns are int64, bool or fixed-width strings."""
    unit: str
    """Unit and range."""
    description: str
    from_rollout: bool = False
    """True where the column follows from the rollout itself, so games need not compute it."""

    @property
    def qualified(self) -> str:
        """Name of its column: ``obs.hp``, ``action``, ``info.max_depth``."""
        return self.name if self.group == "action" else f"{self.group}.{self.name}"


def _obs(name: str, unit: str, description: str, dtype: Kind = "int") -> Field:
    return Field(name, "obs", dtype, unit, description)


def _info(name: str, unit: str, description: str, dtype: Kind = "int", *, from_rollout: bool = False) -> Field:
    return Field(name, "info", dtype, unit, description, from_rollout)


_STATUS_FIELDS = (
    _obs("x", "column, 0 to 78", "hero's column on the map, from the left"),
    _obs("y", "row, 0 to 20", "hero's row on the map, from the top"),
    _obs("hp", "hit points, 0 to max_hp", "hit points; 0 is death"),
    _obs("max_hp", "hit points, at least 1", "highest hit points at this time"),
    _obs("depth", "levels, 1 and up", "depth of the present level below the surface"),
    _obs("dungeon_number", "0 and up", "which dungeon: 0 the main one, 2 the Gnomish Mines, ..."),
    _obs("dungeon_level", "1 and up", "number of the level within its dungeon"),
    _obs("gold", "gold pieces, 0 and up", "gold carried openly"),
    _obs("score", "points, 0 and up", "NetHack's running score"),
    _obs("xp_level", "1 to 30", "experience level"),
    _obs("xp_points", "points, 0 and up", "experience points"),
    _obs("energy", "power points, 0 to max_energy", "magical energy for spells"),
    _obs("max_energy", "power points, 0 and up", "highest magical energy at this time"),
    _obs("armor_class", "-128 to 10 or a little more", "armor class; LOWER protects better"),
    _obs("strength", "3 to 25", "strength; 18/xx counts as 19 to 21"),
    _obs("dexterity", "3 to 25", "dexterity"),
    _obs("constitution", "3 to 25", "constitution"),
    _obs("intelligence", "3 to 25", "intelligence"),
    _obs("wisdom", "3 to 25", "wisdom"),
    _obs("charisma", "3 to 25", "charisma"),
    _obs("burden", "0 to 5", "load carried: 0 unencumbered, 1 burdened, ..., 5 overloaded"),
    _obs("burden_word", "one of " + ", ".join(WORDS["burden_word"][1]), "load carried, in a word", "str"),
    _obs("hunger", "0 to 6", "0 satiated, 1 not hungry, 2 hungry, 3 weak, 4 and 5 fainting, 6 starved"),
    _obs("hunger_word", "one of " + ", ".join(WORDS["hunger_word"][1]), "hunger, in a word", "str"),
    _obs("turn", "game turns, 1 and up", "the game's clock; some actions take none, some take several"),
    _obs("alignment", "-1, 0 or 1", "chaotic, neutral or lawful"),
    *(_obs(name, "True or False", f"the hero is {name.replace('_', ' ')}", "bool") for name in CONDITIONS),
    _obs(
        "message",
        f"at most {MESSAGE_CHARS} characters",
        "what the game said, '' if nothing; numbers become N, articles become the; one line a page",
        "str",
    ),
)  # fmt: skip

_ACTION_FIELD = Field("action", "action", "str", "one of the game's action names", "the action just played")

_EPISODE_FIELDS = (
    _info("step_in_episode", "steps, 0 and up", "steps played in the episode before this one"),
    _info("new_tiles_seen", "map cells, 0 and up", "cells that this step showed for the first time"),
    _info("tiles_seen", "map cells, 0 and up", "cells seen in the episode so far, over all levels"),
    _info("steps_since_new_tile", "steps, 0 and up", "steps since a new cell was seen; 0 if in this step"),
    _info(
        "steps_since_change",
        "steps, 0 and up",
        "steps since map, message or status (turn counter aside) last changed; 0 if in this step",
    ),
    _info("max_depth", "levels, 1 and up", "greatest depth reached in the episode so far"),
    _info("visits_here", "steps, 1 and up", "steps of the episode that ended on this cell, with this one"),
    _info("tiles_visited", "map cells, 1 and up", "different cells that the hero has stood on so far"),
    _info("same_message", "True or False", "the message is not empty and repeats the one before", "bool"),
    _info("message_count", "0 and up", "times this message has come in the episode so far; 0 if none"),
    _info("inventory_count", "stacks, 0 to 55", "stacks of items carried"),
    _info("inventory_change", "stacks", "stacks carried now minus stacks carried before the step"),
    _info("has_key", "True or False", "a (skeleton) key is carried", "bool"),
    *(
        _info(f"inventory_{name}", "stacks, 0 to 55", f"stacks carried: {CLASS_MEANINGS[name]}")
        for name in INVENTORY_CLASSES
    ),
    _info("succeeded", "True or False", "this step ended the task in success", "bool", from_rollout=True),
    _info("died", "True or False", "this step ended the episode in failure", "bool", from_rollout=True),
    _info("terminated", "True or False", "this step ended the episode, but no limit did", "bool", from_rollout=True),
    _info("timed_out", "True or False", "a time limit cut the episode here", "bool", from_rollout=True),
)  # fmt: skip


def _nearby_fields(name: str) -> tuple[Field, Field, Field]:
    what = CLASS_MEANINGS[name]
    return (
        _info(f"{name}_distance", f"king's moves, 0 to 78; {FAR} if none on the map", f"nearest {what}"),
        _info(f"{name}_count", "map cells, 0 and up", f"cells not under the hero with: {what}"),
        _info(
            f"{name}_approach",
            "king's moves, -78 to 78",
            f"{name}_distance before the step minus after it; 0 where either is unknown or the level changed",
        ),
    )


FIELDS: tuple[Field, ...] = (
    *_STATUS_FIELDS,
    _ACTION_FIELD,
    *_EPISODE_FIELDS,
    *(field for name in NEAREST_CLASSES for field in _nearby_fields(name)),
)
"""Every field, in the order of the documentation."""

COLUMNS: Mapping[str, Field] = {
    **{field.qualified: field for field in FIELDS},
    **{f"prev_obs.{field.name}": field for field in FIELDS if field.group == "obs"},
}
"""Qualified column name to its field."""

SOURCES: tuple[type[Source], ...] = (
    Status, Messages, Actions, Clock, Places, Tiles, Changes, Nearby, Inventory,
)  # fmt: skip
"""What computes the columns; each column is offered by one of them."""


def check_names(names: Iterable[str]) -> None:
    """Refuse what is not a column of the schema.

    Raises:
        ValueError: a name is unknown; the message says the nearest ones.
    """
    for name in names:
        if name not in COLUMNS:
            near = nearest_names(name)
            raise ValueError(f"unknown schema field '{name}'; nearest: {', '.join(near)}")


def nearest_names(name: str, num: int = 3) -> list[str]:
    """The columns that look most like ``name``: first those of the same or a similar last part."""
    by_field: dict[str, list[str]] = {}
    for column in COLUMNS:
        by_field.setdefault(column.rpartition(".")[2], []).append(column)
    group, _, field = name.rpartition(".")
    found = [
        column
        for match in get_close_matches(field, by_field, n=num, cutoff=0.5)
        for column in sorted(by_field[match], key=lambda c: c.rpartition(".")[0] != group)
    ]
    return (found or get_close_matches(name, COLUMNS, n=num, cutoff=0.0))[:num]


class FeatureTable:
    """Computes schema columns for B games, each step, and only those that are asked for.

    Args:
        names: qualified column names. Those that follow from the rollout (``Field.from_rollout``) are
            accepted and left to ``rollout_columns``.
        num_games: B.
        action_names: name of each action; needed for the column ``action``.

    Raises:
        ValueError: a name is unknown (says the nearest ones), or ``action`` is asked for without names.
    """

    def __init__(self, names: Sequence[str], num_games: int, action_names: Sequence[str] = ()) -> None:
        check_names(names)
        self.names = tuple(dict.fromkeys(name for name in names if not COLUMNS[name].from_rollout))
        self._sources = [
            source(self.names, num_games, action_names) for source in SOURCES if source.offers.intersection(self.names)
        ]
        keys = dict.fromkeys(key for source in self._sources for key in source.nle_keys)
        self.nle_keys: tuple[str, ...] = tuple(keys)
        """Observation keys of NLE that ``buffers`` must hold."""
        self._reads_status, self._reads_text = "blstats" in keys, "message" in keys
        self._status = np.zeros((27, num_games), np.int64)
        self._texts = [""] * num_games
        self._glyphs = np.zeros((num_games, ROWS, COLS), np.int16)
        self._keeps_glyphs = any(source.reads_glyphs_before for source in self._sources)
        self._canonical = Texts()
        self._no_actions = np.zeros(num_games, np.int64)

    def reset(self, buffers: Mapping[str, np.ndarray], games: np.ndarray) -> None:
        """Begin episodes.

        Args:
            buffers: NLE's arrays ``{key: [B, ...]}``, showing the first observation in ``games``.
            games: int [N], the games that begin; each once.
        """
        if not self._sources:
            return
        games = np.asarray(games, np.int64)
        if self._reads_status:
            self._status = self._status.copy()  # columns handed out earlier may be rows of it
            self._status[:, games] = buffers["blstats"][games].T
        if self._reads_text:
            self._texts = list(self._texts)
            for game in games:
                raw = buffers["message"][game].tobytes().partition(b"\0")[0]
                self._texts[game] = self._canonical(raw)
        if self._keeps_glyphs:
            self._glyphs[games] = buffers["glyphs"][games]
        now = self._moment(buffers, self._no_actions, self._status, self._texts)
        for source in self._sources:
            source.begin(now, games)

    def update(
        self, buffers: Mapping[str, np.ndarray], actions: np.ndarray, messages: Sequence[bytes]
    ) -> dict[str, np.ndarray]:
        """Take in one step of every game.

        Args:
            buffers: NLE's arrays after the step and before any restart, ``blstats`` at the end of a game
                being the last that were not zero.
            actions: int [B], the actions played.
            messages: B raw messages, pages joined by newlines.

        Returns:
            ``{name: [B]}`` in the order of ``names``; the arrays are not written to later.
        """
        if not self._sources:
            return {}
        status = np.array(buffers["blstats"].T, np.int64, order="C") if self._reads_status else self._status
        texts = self._canonical.of_all(messages) if self._reads_text else self._texts
        now = self._moment(buffers, np.asarray(actions), status, texts)
        columns: dict[str, np.ndarray] = {}
        for source in self._sources:
            columns.update(source.advance(now))
        self._status, self._texts = status, texts
        if self._keeps_glyphs:
            self._glyphs[:] = buffers["glyphs"]
        return {name: columns[name] for name in self.names}

    def _moment(
        self, buffers: Mapping[str, np.ndarray], actions: np.ndarray, status: np.ndarray, texts: list[str]
    ) -> Moment:
        return Moment(
            buffers=buffers,
            actions=actions,
            status=status,
            status_before=self._status,
            texts=texts,
            texts_before=self._texts,
            glyphs_before=self._glyphs,
        )


def rollout_columns(rollout: Rollout, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Columns [T, B] for a reward: recorded features, and those that follow from the rollout.

    Args:
        rollout: with the other columns among its ``features``.
        names: qualified column names.

    Raises:
        ValueError: a name is unknown, or the rollout does not hold it.
    """
    names = tuple(names)
    check_names(names)
    columns = {}
    for name in names:
        if name in _FROM_ROLLOUT:
            columns[name] = _FROM_ROLLOUT[name](rollout)
        elif name in rollout.features:
            columns[name] = rollout.features[name]
        else:
            raise ValueError(f"the rollout holds no schema field '{name}': have the games record it")
    return columns


def _succeeded(rollout: Rollout) -> np.ndarray:
    return (rollout.end_status == EndStatus.TASK_SUCCESSFUL) & (rollout.env_reward > 0)


_FROM_ROLLOUT = {
    "info.succeeded": _succeeded,
    "info.died": lambda rollout: rollout.terminated & ~_succeeded(rollout),
    "info.terminated": lambda rollout: rollout.terminated,
    "info.timed_out": lambda rollout: rollout.truncated,
}


def describe_schema(fields: Iterable[Field] = FIELDS) -> str:
    """The schema as a Markdown table: for the documentation and for prompts."""
    rows = [
        f"Schema version {SCHEMA_VERSION}. `prev_obs` has the fields of `obs`, from before the action.",
        "",
        "| read as | type | unit and range | meaning |",
        "|---|---|---|---|",
    ]
    for field in fields:
        read_as = field.name if field.group == "action" else f"{field.group}['{field.name}']"
        rows.append(f"| `{read_as}` | {field.dtype} | {field.unit} | {field.description} |")
    return "\n".join(rows) + "\n"
