"""Passes over the glyph maps of B games: what is near, what is new, what has changed.

Each function is there twice: in numpy, below, and compiled (``_maps.cpp``), which is taken where it was built and
gives the same numbers. Maps are int16 [B, rows, columns], fewer than 2048 cells each; each game's must be contiguous.

Example:
    >>> fresh = np.empty(16, np.int64)
    >>> mark_seen(glyphs, STONE, seen, fresh)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np

ABSENT = np.iinfo(np.int32).max
"""Key of what is not on the map (``nearest``)."""
CELL_BITS = 11
"""Bits of a key that hold the cell; the higher ones hold the distance."""
NO_ROW = 255
"""Row of a glyph that is not looked for."""


def nearest_in_numpy(
    glyphs: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    scenery: tuple[int, int, int, int],
    key: np.ndarray,
    count: np.ndarray,
    /,
) -> None:
    """Where the nearest cell of each of K kinds is, and how many there are; the hero's own cell is left out.

    Near means fewest king's moves (Chebyshev distance); ties go to the upper row, then to the left.

    Args:
        glyphs: int16 [B, rows, columns], the maps.
        x: hero's column, int64 [B].
        y: hero's row, int64 [B].
        rows: uint8 [glyphs], contiguous: which kind a glyph is, K or more for none.
        scenery: first glyph and number of glyphs of two ranges that are no kind; the more cells they cover,
            the faster.
        key: int32 [B, K], overwritten: distance * 2048 + cell, and ``ABSENT`` where there is none.
        count: int64 [B, K], overwritten.

    Raises:
        IndexError: a glyph is outside of ``rows``.
    """
    num_games, num_kinds = key.shape
    columns = glyphs.shape[2]
    map_cells = glyphs.shape[1] * columns
    first, num, first_too, num_too = (np.uint16(n) for n in scenery)
    # Unsigned and wrapping: what lies below a range's start becomes large, so one compare tells.
    unsigned = glyphs.view(np.uint16)
    kept = (unsigned - first >= num) & (unsigned - first_too >= num_too)
    index = np.flatnonzero(kept)
    kind = rows[unsigned.reshape(-1)[index]].astype(np.int64)
    game, cell = np.divmod(index, map_cells)
    distance = np.maximum(np.abs(cell % columns - x[game]), np.abs(cell // columns - y[game]))
    wanted = (kind < num_kinds) & (distance > 0)
    row = (game * num_kinds + kind)[wanted]
    best = np.full(num_games * num_kinds, ABSENT, np.int32)
    np.minimum.at(best, row, ((distance << CELL_BITS) | cell)[wanted].astype(np.int32))
    key[:] = best.reshape(key.shape)
    count[:] = np.bincount(row, minlength=best.size).reshape(count.shape)


def mark_seen_in_numpy(glyphs: np.ndarray, stone: int, seen: np.ndarray, fresh: np.ndarray, /) -> None:
    """Add the cells that show anything to those seen.

    Args:
        glyphs: int16 [B, rows, columns], the maps.
        stone: the glyph that shows nothing.
        seen: bool [B, rows, columns], updated.
        fresh: int64 [B], overwritten: cells that were not among those seen.
    """
    shown = glyphs != stone
    fresh[:] = (shown > seen).sum((1, 2))
    seen |= shown


def differ_in_numpy(
    glyphs: np.ndarray,
    glyphs_before: np.ndarray,
    status: np.ndarray,
    status_before: np.ndarray,
    ignored: int,
    changed: np.ndarray,
    /,
) -> None:
    """In which games map or status are not what they were.

    Args:
        glyphs: int16 [B, rows, columns], the maps.
        glyphs_before: int16 [B, rows, columns].
        status: int64 [fields, B], contiguous.
        status_before: int64 [fields, B], contiguous.
        ignored: a field of the status that does not count.
        changed: bool [B], overwritten.
    """
    differs = status != status_before
    differs[ignored] = (glyphs != glyphs_before).any((1, 2))
    np.logical_or.reduce(differs, out=changed)


def nearby_in_numpy(
    glyphs: np.ndarray,
    glyphs_before: np.ndarray,
    status: np.ndarray,
    status_before: np.ndarray,
    fields: tuple[int, int, int, int],
    rows: np.ndarray,
    underfoot: np.ndarray,
    scenery: tuple[int, int, int, int],
    far: int,
    under: np.ndarray,
    distance_before: np.ndarray,
    count_before: np.ndarray,
    distance: np.ndarray,
    count: np.ndarray,
    approach: np.ndarray,
    /,
) -> None:
    """What is how far from the hero after a step, what lies under the hero included.

    The map shows the hero and not what lies under: that is what the map of the step before showed there. Once a
    game is over its map is blank, even where the hero is: then the distances of before stand.

    Args:
        glyphs: int16 [B, rows, columns], the maps.
        glyphs_before: int16 [B, rows, columns].
        status: int64 [fields, B], contiguous.
        status_before: int64 [fields, B], contiguous.
        fields: fields of the status: hero's column and row, dungeon, level of the dungeon.
        rows: as for ``nearest``.
        underfoot: uint8 [glyphs]: which kind lies under a hero who steps on that glyph, ``NO_ROW`` for none.
        scenery: as for ``nearest``; its first glyph is the blank.
        far: distance of what is not on the map.
        under: uint8 [B], updated: which kind lies under the hero, ``NO_ROW`` for none.
        distance_before: int64 [B, K], as ``distance`` of the step before.
        count_before: int64 [B, K], as ``count`` of the step before.
        distance: int64 [B, K], overwritten: king's moves to the nearest of each kind.
        count: int64 [B, K], overwritten: how many there are, the hero's own cell left out.
        approach: int64 [B, K], overwritten: by how much the distance fell; 0 where the level changed or a
            distance is ``far``.

    Raises:
        IndexError: a glyph is outside of ``rows``, or a hero outside of the map.
    """
    x, y, dungeon, level = status[list(fields)]
    x_before, y_before, dungeon_before, level_before = status_before[list(fields)]
    games = np.arange(len(glyphs))
    same_level = (dungeon == dungeon_before) & (level == level_before)
    stayed = same_level & (x == x_before) & (y == y_before)
    stepped_on = np.where(same_level, underfoot[glyphs_before[games, y, x]], NO_ROW)
    under[:] = np.where(stayed, under, stepped_on)
    key = np.empty(distance.shape, np.int32)
    nearest_in_numpy(glyphs, x, y, rows, scenery, key, count)
    distance[:] = np.minimum(key >> CELL_BITS, far)  # what is absent has the largest of keys
    known = np.flatnonzero(under != NO_ROW)
    distance[known, under[known]] = 0
    blank = glyphs[games, y, x] == scenery[0]
    distance[blank], count[blank] = distance_before[blank], count_before[blank]
    known_twice = same_level[:, None] & (distance_before != far) & (distance != far)
    approach[:] = np.where(known_twice, distance_before - distance, 0)


IS_COMPILED = False
"""Whether the compiled functions are taken."""
nearest: Callable[..., None] = nearest_in_numpy
mark_seen: Callable[..., None] = mark_seen_in_numpy
differ: Callable[..., None] = differ_in_numpy
nearby: Callable[..., None] = nearby_in_numpy
try:
    _maps = importlib.import_module("envs._maps")
except ImportError:  # there was no compiler when this was installed
    pass
else:
    IS_COMPILED = True
    nearest, mark_seen, differ, nearby = _maps.nearest, _maps.mark_seen, _maps.differ, _maps.nearby
