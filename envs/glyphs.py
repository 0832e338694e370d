"""What a glyph is: every NLE glyph id in one of a few dozen named classes, and where the nearest one is.

``MapSummary`` is on the path of every step, so it never looks up the whole map: two vector compares
drop stone, walls and floor, and only the few cells that are left are classified and measured (``envs.maps``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nle import nethack as _nethack

from envs import maps
from envs.maps import ABSENT, CELL_BITS, NO_ROW

nethack: Any = _nethack  # an extension module: type checkers cannot see its constants

NUM_GLYPHS = nethack.MAX_GLYPH + 1
"""Glyph ids 0..MAX_GLYPH; the last one is NetHack's NO_GLYPH."""
ROWS, COLS = nethack.DUNGEON_SHAPE

BACKGROUND_CLASSES: tuple[str, ...] = ("unseen", "floor", "wall", "statue")
"""Classes that are only scenery: never searched for."""

NEAREST_CLASSES: tuple[str, ...] = (
    "closed_door", "doorway", "stairs_down", "stairs_up", "fixture", "trap", "lava", "water", "boulder",
    "monster", "pet", "gold", "tool", "wand", "jewelry", "potion", "scroll", "gear", "food", "corpse",
    "other_item",
)  # fmt: skip
"""Classes of interest, in the order of ``MapSummary``."""

GLYPH_CLASSES: tuple[str, ...] = BACKGROUND_CLASSES + NEAREST_CLASSES

CLASS_MEANINGS: dict[str, str] = {
    "unseen": "blank: solid stone, or never seen",
    "floor": "room floor, corridor, ice, lowered drawbridge, air, cloud, zaps and explosions in passing",
    "wall": "wall, raised drawbridge, tree or iron bars",
    "statue": "statue",
    "closed_door": "closed door",
    "doorway": "open door, broken door or empty doorway",
    "stairs_down": "staircase or ladder down",
    "stairs_up": "staircase or ladder up",
    "fixture": "altar, grave, throne, sink or fountain",
    "trap": "trap that has been found, magic portals and webs included",
    "lava": "molten lava",
    "water": "water",
    "boulder": "boulder",
    "monster": "monster that is not a pet (hostile or peaceful), also remembered, sensed or warned of",
    "pet": "tame monster",
    "gold": "gold pieces",
    "tool": "tool: keys, lamps, horns, bags, boxes, pick-axes, ...",
    "wand": "wand",
    "jewelry": "ring or amulet",
    "potion": "potion",
    "scroll": "scroll or spellbook",
    "gear": "weapon or armor",
    "food": "food other than a corpse",
    "corpse": "corpse",
    "other_item": "gem, rock, iron ball or chain, strange object",
}
"""One phrase for every class; the schema's documentation is made of it."""

_CMAP_CLASSES: tuple[tuple[str, tuple[int, ...]], ...] = (
    # Drawing symbols (defsyms) by index; those not named here are effects drawn over the floor.
    ("unseen", (0,)),
    ("wall", (*range(1, 12), 17, 18, 37, 38)),
    ("doorway", (12, 13, 14)),
    ("closed_door", (15, 16)),
    ("stairs_up", (23, 25)),
    ("stairs_down", (24, 26)),
    ("fixture", (27, 28, 29, 30, 31)),
    ("water", (32, 41)),
    ("lava", (34,)),
    ("trap", tuple(range(42, 65))),
)

_OBJECT_CLASSES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("gear", (nethack.WEAPON_CLASS, nethack.ARMOR_CLASS)),
    ("jewelry", (nethack.RING_CLASS, nethack.AMULET_CLASS)),
    ("tool", (nethack.TOOL_CLASS,)),
    ("food", (nethack.FOOD_CLASS,)),
    ("potion", (nethack.POTION_CLASS,)),
    ("scroll", (nethack.SCROLL_CLASS, nethack.SPBOOK_CLASS)),
    ("wand", (nethack.WAND_CLASS,)),
    ("gold", (nethack.COIN_CLASS,)),
)

_NAMED_OBJECTS = {"boulder": "boulder", "statue": "statue", "corpse": "corpse"}


def item_class(object_class: int) -> str:
    """Name of the class of an item, given NetHack's object class (``nethack.WAND_CLASS``, ...)."""
    for name, members in _OBJECT_CLASSES:
        if object_class in members:
            return name
    return "other_item"


def _class_of_every_glyph() -> np.ndarray:
    index = {name: i for i, name in enumerate(GLYPH_CLASSES)}
    classes = np.full(NUM_GLYPHS, index["floor"], np.uint8)
    for name, first, end in (
        ("monster", nethack.GLYPH_MON_OFF, nethack.GLYPH_PET_OFF),
        ("pet", nethack.GLYPH_PET_OFF, nethack.GLYPH_INVIS_OFF),
        ("monster", nethack.GLYPH_INVIS_OFF, nethack.GLYPH_BODY_OFF),
        ("corpse", nethack.GLYPH_BODY_OFF, nethack.GLYPH_RIDDEN_OFF),
        ("monster", nethack.GLYPH_RIDDEN_OFF, nethack.GLYPH_OBJ_OFF),
        ("monster", nethack.GLYPH_SWALLOW_OFF, nethack.GLYPH_STATUE_OFF),
        ("statue", nethack.GLYPH_STATUE_OFF, nethack.MAX_GLYPH),
        ("unseen", nethack.MAX_GLYPH, NUM_GLYPHS),
    ):
        classes[first:end] = index[name]
    for number in range(nethack.NUM_OBJECTS):
        entry = nethack.objclass(number)
        name = _NAMED_OBJECTS.get(nethack.OBJ_NAME(entry) or "", item_class(ord(entry.oc_class)))
        classes[nethack.GLYPH_OBJ_OFF + number] = index[name]
    for name, symbols in _CMAP_CLASSES:
        classes[nethack.GLYPH_CMAP_OFF + np.array(symbols)] = index[name]
    classes.setflags(write=False)
    return classes


CLASS_OF_GLYPH: np.ndarray = _class_of_every_glyph()
"""uint8 [NUM_GLYPHS]: index into ``GLYPH_CLASSES``; read-only."""

_KEY_CELL = (1 << CELL_BITS) - 1

STONE = nethack.GLYPH_CMAP_OFF
"""Glyph of solid stone, or of what was never seen."""
SCENERY = (STONE, 12, STONE + 19, 4)
"""First glyph and number of glyphs of the two ranges that are almost every cell: stone and walls, then floor and
corridor."""


def rows_of_glyphs(names: Sequence[str]) -> np.ndarray:
    """uint8 [NUM_GLYPHS]: index into ``names``, which are classes of interest; ``NO_ROW`` for other classes."""
    row = np.array([names.index(name) if name in names else NO_ROW for name in GLYPH_CLASSES], np.uint8)
    return row[CLASS_OF_GLYPH]


_CELL = np.arange(ROWS * COLS)
_CELL_X = (_CELL % COLS).astype(np.int32)
_CELL_Y = (_CELL // COLS).astype(np.int32)


class MapSummary:
    """For each class of interest: is one on the map, where is the nearest, how many are there.

    Near means fewest king's moves from the hero (Chebyshev distance), whatever lies between; ties go
    to the upper row, then to the left. The hero's own cell is left out. While the hero hallucinates,
    glyphs are random, and so is this.

    Args:
        num_games: B, the largest number of maps handled in one call.
        names: the classes of interest that are looked for.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, num_games: int, names: Sequence[str] = NEAREST_CLASSES) -> None:
        cells = ROWS * COLS
        self.names = tuple(names)
        """Name of each of the K rows."""
        self.shape = (len(self.names), 4)
        """(K, 4): presence, dx, dy, count of each class."""
        self._rows = rows_of_glyphs(self.names)
        self._key = np.empty((num_games, len(self.names)), np.int32)
        self._log_count = (np.log1p(np.arange(cells + 1)) / 4).astype(np.float32)
        self._tenths = np.clip(np.arange(-COLS, COLS + 1) / 10, -1, 1).astype(np.float32)

    def nearest(self, glyphs: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the nearest cell of each class is.

        Args:
            glyphs: int16 [B, 21, 79].
            x: hero's column, integers [B].
            y: hero's row, integers [B].

        Returns:
            key: int32 [B, K]; distance * 2048 + row * 79 + column of the nearest cell, and
                ``ABSENT`` where the class is not on the map; valid until the next call.
            count: int64 [B, K]; cells of that class, the hero's own left out.
        """
        key = self._key[: len(glyphs)]
        count = np.empty(key.shape, np.int64)
        maps.nearest(glyphs, np.asarray(x, np.int64), np.asarray(y, np.int64), self._rows, SCENERY, key, count)
        return key, count

    @staticmethod
    def distance(key: np.ndarray) -> np.ndarray:
        """King's moves to the nearest cell, from the keys of ``nearest``; -1 where there is none."""
        return np.where(key == ABSENT, -1, key >> CELL_BITS)

    def fill(self, glyphs: np.ndarray, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        """Write the summary of B maps.

        Args:
            glyphs: int16 [B, 21, 79], B at most ``num_games``.
            x: hero's column, integers [B].
            y: hero's row, integers [B].
            out: float32 [B, K, 4], overwritten: 1 if there is one else 0; columns to the right of the
                hero / 10 and rows below the hero / 10 of the nearest, within [-1, 1], 0 if there is
                none; log(1 + count) / 4.
        """
        key, count = self.nearest(glyphs, x, y)
        present = key != ABSENT
        cell = np.minimum(key & _KEY_CELL, ROWS * COLS - 1)
        dx = _CELL_X[cell] - np.asarray(x)[:, None]
        dy = _CELL_Y[cell] - np.asarray(y)[:, None]
        out[..., 0] = present
        np.multiply(self._tenths[dx + COLS], present, out=out[..., 1])
        np.multiply(self._tenths[dy + COLS], present, out=out[..., 2])
        out[..., 3] = self._log_count[count]
