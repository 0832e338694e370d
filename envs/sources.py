"""Where the columns of the schema come from: sources, and those that only read the present.

A source offers some columns by their qualified names; only sources with a column that was asked for
are made (``envs.features.FeatureTable``). Whatever a source remembers is a function of what the episode
has shown since its start, so games that are rebuilt by replay get the same columns again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nle import nethack as _nethack

from envs.captions import canonical

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
    """What B games show after a step, and what they showed before it."""

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
        if text is None:
            if len(self._cache) >= self._cache_size:
                self._cache.clear()
            text = self._cache[raw] = canonical(raw.decode("latin-1"))[:MESSAGE_CHARS]
        return text


class Status(Source):
    """The status line, now and one step before."""

    offers = frozenset(f"{when}.{name}" for when in ("obs", "prev_obs") for name in (*STATUS, *WORDS, *CONDITIONS))
    nle_keys = ("blstats",)

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        super().__init__(asked, num_games, action_names)
        self._words = {name: (index, np.array(words)) for name, (index, words) in WORDS.items()}

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """Nothing to remember."""

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """One column a name."""
        columns = {}
        for qualified in self.asked:
            when, _, name = qualified.partition(".")
            columns[qualified] = self._column(now.status if when == "obs" else now.status_before, name)
        return columns

    def _column(self, status: np.ndarray, name: str) -> np.ndarray:
        if name in STATUS:
            return status[STATUS[name]]
        if name in CONDITIONS:
            return (status[nethack.NLE_BL_CONDITION] & CONDITIONS[name]) != 0
        index, words = self._words[name]
        return words.take(status[index], mode="clip")


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
