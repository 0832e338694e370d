"""Where the columns of the schema come from: sources, and those that only read the present.

A source offers some columns by their qualified names; only sources with a column that was asked for
are made (``envs.schema.FeatureTable``). Whatever a source remembers is a function of what the episode
has shown since its start, so games that are rebuilt by replay get the same columns again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nle import nethack as _nethack

from envs.captions import canonical_of_raw

nethack: Any = _nethack  # an extension module: type checkers cannot see its constants

MESSAGE_CHARS = 200
"""Characters of a message that a reward sees."""
STATUS: Mapping[str, int] = {
    "x": nethack.NLE_BL_X,
    "y": nethack.NLE_BL_Y,
    "hp": nethack.NLE_BL_HP,
    "max_hp": nethack.NLE_BL_HPMAX,
    "depth": nethack.NLE_BL_DEPTH,
    "dungeon_number": nethack.NLE_BL_DNUM,
    "dungeon_level": nethack.NLE_BL_DLEVEL,
    "gold": nethack.NLE_BL_GOLD,
    "score": nethack.NLE_BL_SCORE,
    "xp_level": nethack.NLE_BL_XP,
    "xp_points": nethack.NLE_BL_EXP,
    "energy": nethack.NLE_BL_ENE,
    "max_energy": nethack.NLE_BL_ENEMAX,
    "armor_class": nethack.NLE_BL_AC,
    "strength": nethack.NLE_BL_STR25,
    "dexterity": nethack.NLE_BL_DEX,
    "constitution": nethack.NLE_BL_CON,
    "intelligence": nethack.NLE_BL_INT,
    "wisdom": nethack.NLE_BL_WIS,
    "charisma": nethack.NLE_BL_CHA,
    "burden": nethack.NLE_BL_CAP,
    "hunger": nethack.NLE_BL_HUNGER,
    "turn": nethack.NLE_BL_TIME,
    "alignment": nethack.NLE_BL_ALIGN,
}
"""Numbers read from the status line: name to its index in NLE's ``blstats``."""

WORDS: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "hunger_word": (
        nethack.NLE_BL_HUNGER,
        ("satiated", "not hungry", "hungry", "weak", "fainting", "fainted", "starved"),
    ),
    "burden_word": (
        nethack.NLE_BL_CAP,
        ("unencumbered", "burdened", "stressed", "strained", "overtaxed", "overloaded"),
    ),
}
"""Numbers of the status line that have names: index in ``blstats``, and the name of 0, 1, ..."""

CONDITIONS: Mapping[str, int] = {
    "turning_to_stone": nethack.BL_MASK_STONE,
    "turning_to_slime": nethack.BL_MASK_SLIME,
    "strangled": nethack.BL_MASK_STRNGL,
    "food_poisoned": nethack.BL_MASK_FOODPOIS,
    "terminally_ill": nethack.BL_MASK_TERMILL,
    "blind": nethack.BL_MASK_BLIND,
    "deaf": nethack.BL_MASK_DEAF,
    "stunned": nethack.BL_MASK_STUN,
    "confused": nethack.BL_MASK_CONF,
    "hallucinating": nethack.BL_MASK_HALLU,
    "levitating": nethack.BL_MASK_LEV,
    "flying": nethack.BL_MASK_FLY,
    "riding": nethack.BL_MASK_RIDE,
}
"""Flags of the status line: name to its bit in the condition mask."""


@dataclass(slots=True)
class Moment:
    """What B games show after a step, and what they showed before it.

    Buffers and maps are live: to keep them, copy them.
    """

    buffers: Mapping[str, np.ndarray]
    """NLE's arrays ``{key: [B, ...]}``."""
    actions: np.ndarray
    """int [B]; meaningless at the start of an episode."""
    status: np.ndarray
    """int64 [27, B]: ``blstats``."""
    status_before: np.ndarray
    texts: Sequence[str]
    """B canonical messages."""
    texts_before: Sequence[str]
    glyphs_before: np.ndarray
    """int16 [B, 21, 79]: the maps; meaningless if no source has ``reads_glyphs_before``."""

    @property
    def levels(self) -> np.ndarray:
        """int64 [B]: one number for each level of each dungeon."""
        return self.status[nethack.NLE_BL_DNUM] * 64 + self.status[nethack.NLE_BL_DLEVEL]


class Source(ABC):
    """Computes some columns of the schema for B games.

    Args:
        asked: qualified names of the columns that are wanted, among them at least one of ``offers``.
        num_games: B.
        action_names: name of each action.
    """

    offers: frozenset[str]
    """Qualified names of all columns that this source can compute."""
    nle_keys: tuple[str, ...] = ()
    """Observation keys that it reads."""
    reads_glyphs_before: bool = False
    """Whether it reads the maps of before."""

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        self.asked = tuple(name for name in asked if name in self.offers)
        self.num_games = num_games

    @abstractmethod
    def begin(self, now: Moment, games: np.ndarray) -> None:
        """Forget the episodes of ``games`` (int [N]); ``now`` shows the first observation of new ones."""

    @abstractmethod
    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Take in one step of every game; columns [B], at least the asked ones."""


class Texts:
    """Raw messages to canonical ones, cut to ``MESSAGE_CHARS``; remembers what it has seen."""

    def __init__(self, cache_size: int = 1 << 14) -> None:
        self._cache: dict[bytes, str] = {}
        self._cache_size = cache_size

    def __call__(self, raw: bytes) -> str:
        """Canonical text of one message."""
        text = self._cache.get(raw)
        return self._meet(raw) if text is None else text

    def of_all(self, raws: Sequence[bytes]) -> list[str]:
        """Canonical texts of many messages."""
        texts = list(map(self._cache.get, raws))
        if None in texts:
            return [self(raw) for raw in raws]
        return texts  # pyright: ignore[reportReturnType]  (no None among them)

    def _meet(self, raw: bytes) -> str:
        if len(self._cache) >= self._cache_size:
            self._cache.clear()
        text = self._cache[raw] = canonical_of_raw(raw)[:MESSAGE_CHARS]
        return text


class Status(Source):
    """The status line, now and one step before."""

    offers = frozenset(f"{when}.{name}" for when in ("obs", "prev_obs") for name in (*STATUS, *WORDS, *CONDITIONS))
    nle_keys = ("blstats",)

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        super().__init__(asked, num_games, action_names)
        self._words = {name: (index, np.array(words)) for name, (index, words) in WORDS.items()}
        self._now = self._plan("obs.")
        self._before = self._plan("prev_obs.")

    def _plan(self, prefix: str) -> _StatusPlan:
        asked = [(name, name.removeprefix(prefix)) for name in self.asked if name.startswith(prefix)]
        conditions = [(column, CONDITIONS[name]) for column, name in asked if name in CONDITIONS]
        return _StatusPlan(
            numbers=[(column, STATUS[name]) for column, name in asked if name in STATUS],
            words=[(column, *self._words[name]) for column, name in asked if name in self._words],
            conditions=[column for column, _ in conditions],
            bits=np.array([[bit] for _, bit in conditions], np.int64),
        )

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """Nothing to remember."""

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """One column a name."""
        columns: dict[str, np.ndarray] = {}
        self._now.read(now.status, columns)
        self._before.read(now.status_before, columns)
        return columns


@dataclass(frozen=True, slots=True)
class _StatusPlan:
    """Columns that are read from one status."""

    numbers: list[tuple[str, int]]
    """Column, and index in ``blstats``."""
    words: list[tuple[str, int, np.ndarray]]
    """Column, index in ``blstats``, and the word of 0, 1, ..."""
    conditions: list[str]
    bits: np.ndarray
    """int64 [conditions, 1]."""

    def read(self, status: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Add the columns [B] of a status int64 [27, B]."""
        for column, index in self.numbers:
            columns[column] = status[index]
        for column, index, words in self.words:
            columns[column] = words.take(status[index], mode="clip")
        if self.conditions:
            flags = (status[nethack.NLE_BL_CONDITION] & self.bits) != 0
            columns.update(zip(self.conditions, flags, strict=True))


class Actions(Source):
    """The action by name."""

    offers = frozenset({"action"})

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        super().__init__(asked, num_games, action_names)
        if not action_names:
            raise ValueError("the schema field 'action' needs games whose actions have names")
        self._names = np.array(action_names)

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """Nothing to remember."""

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Names of the actions."""
        return {"action": self._names[now.actions]}
