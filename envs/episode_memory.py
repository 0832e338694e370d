"""What the host remembers of the running episodes for the schema's ``info`` columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from nle import nethack as _nethack

from envs.glyphs import (
    ABSENT,
    CLASS_OF_GLYPH,
    COLS,
    GLYPH_CLASSES,
    NEAREST_CLASSES,
    ROWS,
    MapSummary,
    item_class,
)
from envs.sources import MESSAGE_CHARS, Moment, Source

nethack: Any = _nethack  # an extension module: type checkers cannot see its constants

FAR = 99
"""Distance to what is not on the map: farther than anything that is (at most 78)."""
INVENTORY_CLASSES: tuple[str, ...] = (
    "gold", "tool", "wand", "jewelry", "potion", "scroll", "gear", "food", "other_item",
)  # fmt: skip

_STONE = nethack.GLYPH_CMAP_OFF
_LEVEL = [nethack.NLE_BL_DNUM, nethack.NLE_BL_DLEVEL]
_POSITION = [nethack.NLE_BL_X, nethack.NLE_BL_Y]
_PLACE_BITS = 11  # ROWS * COLS = 1659 < 2048


def _underfoot() -> np.ndarray:
    """int64 [glyphs]: the class of interest that the hero may stand on there, -1 for none."""
    gives_way = ("closed_door", "boulder", "monster", "pet")
    row = np.array([NEAREST_CLASSES.index(n) if n in NEAREST_CLASSES else -1 for n in GLYPH_CLASSES])
    row[[GLYPH_CLASSES.index(name) for name in gives_way]] = -1
    return row[CLASS_OF_GLYPH]


_UNDERFOOT = _underfoot()


class Messages(Source):
    """What the game said, and whether it has said so before."""

    offers = frozenset({"obs.message", "prev_obs.message", "info.same_message", "info.message_count"})
    nle_keys = ("message",)

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        super().__init__(asked, num_games, action_names)
        self._counts: list[dict[str, int]] = [{} for _ in range(num_games)]

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """Messages count from nothing."""
        for game in games:
            self._counts[game] = {}

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Texts as fixed-width strings, so that rollouts hold no Python objects."""
        columns = {}
        if "obs.message" in self.asked:
            columns["obs.message"] = np.array(now.texts, f"<U{MESSAGE_CHARS}")
        if "prev_obs.message" in self.asked:
            columns["prev_obs.message"] = np.array(now.texts_before, f"<U{MESSAGE_CHARS}")
        if "info.same_message" in self.asked:
            pairs = zip(now.texts, now.texts_before, strict=True)
            columns["info.same_message"] = np.array([bool(a) and a == b for a, b in pairs])
        if "info.message_count" in self.asked:
            columns["info.message_count"] = np.array(list(map(self._count, self._counts, now.texts)))
        return columns

    @staticmethod
    def _count(counts: dict[str, int], text: str) -> int:
        if not text:
            return 0
        counts[text] = count = counts.get(text, 0) + 1
        return count


class Clock(Source):
    """Steps of the episode."""

    offers = frozenset({"info.step_in_episode"})

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        super().__init__(asked, num_games, action_names)
        self._next_step = np.zeros(num_games, np.int64)

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """The next action is number 0."""
        self._next_step[games] = 0

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Number of the action just played."""
        step = self._next_step.copy()
        self._next_step += 1
        return {"info.step_in_episode": step}


class Places(Source):
    """Where the hero has been."""

    offers = frozenset({"info.max_depth", "info.visits_here", "info.tiles_visited"})
    nle_keys = ("blstats",)

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        super().__init__(asked, num_games, action_names)
        self._max_depth = np.zeros(num_games, np.int64)
        self._visits: list[dict[int, int]] = [{} for _ in range(num_games)]

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """The hero has been where the episode starts, once."""
        self._max_depth[games] = now.status[nethack.NLE_BL_DEPTH, games]
        places = _places(now.status)
        for game in games:
            self._visits[game] = {places[game]: 1}

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Counts with this step's place included."""
        np.maximum(self._max_depth, now.status[nethack.NLE_BL_DEPTH], out=self._max_depth)
        here = []
        for visits, place in zip(self._visits, _places(now.status), strict=True):
            visits[place] = count = visits.get(place, 0) + 1
            here.append(count)
        return {
            "info.max_depth": self._max_depth.copy(),
            "info.visits_here": np.array(here),
            "info.tiles_visited": np.array(list(map(len, self._visits))),
        }


class Tiles(Source):
    """How much of the maps has been seen, each level on its own."""

    offers = frozenset({"info.new_tiles_seen", "info.tiles_seen", "info.steps_since_new_tile"})
    nle_keys = ("glyphs", "blstats")

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        super().__init__(asked, num_games, action_names)
        self._seen = np.zeros((num_games, ROWS, COLS), bool)
        self._other_levels: list[dict[int, np.ndarray]] = [{} for _ in range(num_games)]
        self._level = np.zeros(num_games, np.int64)
        self._num_seen = np.zeros(num_games, np.int64)
        self._since = np.zeros(num_games, np.int64)

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """What the first observation shows counts as seen, not as new."""
        self._seen[games] = now.buffers["glyphs"][games] != _STONE
        self._num_seen[games] = self._seen[games].sum((1, 2))
        self._level[games] = _levels(now.status)[games]
        self._since[games] = 0
        for game in games:
            self._other_levels[game] = {}

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Cells that show something for the first time."""
        level = _levels(now.status)
        for game in np.flatnonzero(level != self._level):
            stored = self._other_levels[game]
            stored[int(self._level[game])] = self._seen[game].copy()
            self._seen[game] = stored.pop(int(level[game]), False)
        self._level = level
        shown = now.buffers["glyphs"] != _STONE
        fresh = np.flatnonzero(shown > self._seen) // (ROWS * COLS)
        self._seen |= shown
        num_new = np.bincount(fresh, minlength=self.num_games)
        self._num_seen += num_new
        self._since = np.where(num_new > 0, 0, self._since + 1)
        return {
            "info.new_tiles_seen": num_new,
            "info.tiles_seen": self._num_seen.copy(),
            "info.steps_since_new_tile": self._since.copy(),
        }


class Changes(Source):
    """For how long nothing has happened."""

    offers = frozenset({"info.steps_since_change"})
    nle_keys = ("glyphs", "blstats", "message")

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        super().__init__(asked, num_games, action_names)
        self._glyphs = np.zeros((num_games, ROWS, COLS), np.int16)
        self._since = np.zeros(num_games, np.int64)

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """The start is a change."""
        self._glyphs[games] = now.buffers["glyphs"][games]
        self._since[games] = 0

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Map, message and status line are compared with the step before, turn counter aside."""
        status = now.status != now.status_before
        status[nethack.NLE_BL_TIME] = False
        changed = status.any(0)
        changed |= [a != b for a, b in zip(now.texts, now.texts_before, strict=True)]
        changed[np.flatnonzero(now.buffers["glyphs"] != self._glyphs) // (ROWS * COLS)] = True
        self._glyphs[:] = now.buffers["glyphs"]
        self._since = np.where(changed, 0, self._since + 1)
        return {"info.steps_since_change": self._since.copy()}


class Nearby(Source):
    """The nearest cell of each class of interest, the one under the hero included.

    The map shows the hero and not what lies under: that is what the map of the step before showed there.
    """

    offers = frozenset(f"info.{name}_{what}" for name in NEAREST_CLASSES for what in ("distance", "count", "approach"))
    nle_keys = ("glyphs", "blstats")

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        super().__init__(asked, num_games, action_names)
        self._summary = MapSummary(num_games)
        self._distance = np.full((num_games, len(NEAREST_CLASSES)), FAR, np.int64)
        self._count = np.zeros_like(self._distance)
        self._glyphs = np.zeros((num_games, ROWS, COLS), np.int16)
        self._under = np.full(num_games, -1)
        rows = {f"info.{name}_": k for k, name in enumerate(NEAREST_CLASSES)}
        self._wanted = [
            (name, what, rows[name.removesuffix(what)]) for name in self.asked for what in (name.rpartition("_")[2],)
        ]

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """Distances from which the first step approaches; what lies under the hero is not known."""
        self._glyphs[games] = now.buffers["glyphs"][games]
        self._under[games] = -1
        self._distance[games], self._count[games] = self._measure(now, games)

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Distances, counts, and how much nearer the nearest one is than a step before."""
        before, count_before = self._distance, self._count
        distance, count = self._measure(now, None)
        x, y = now.status[nethack.NLE_BL_X], now.status[nethack.NLE_BL_Y]
        games = np.arange(self.num_games)
        same_level = (now.status[_LEVEL] == now.status_before[_LEVEL]).all(0)
        stayed = same_level & (now.status[_POSITION] == now.status_before[_POSITION]).all(0)
        stepped_on = np.where(same_level, _UNDERFOOT[self._glyphs[games, y, x]], -1)
        self._under = np.where(stayed, self._under, stepped_on)
        known = np.flatnonzero(self._under >= 0)
        distance[known, self._under[known]] = 0
        # Once a game is over its map is blank, even where the hero is: the last map that was shown counts.
        blank = now.buffers["glyphs"][games, y, x] == _STONE
        distance[blank], count[blank] = before[blank], count_before[blank]
        known_twice = same_level[:, None] & (before != FAR) & (distance != FAR)
        approach = np.where(known_twice, before - distance, 0)
        self._glyphs[:] = now.buffers["glyphs"]
        self._distance, self._count = distance, count
        by_what = {"distance": distance.T.copy(), "count": count.T.copy(), "approach": approach.T.copy()}
        return {name: by_what[what][row] for name, what, row in self._wanted}

    def _measure(self, now: Moment, games: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        x, y, glyphs = now.status[nethack.NLE_BL_X], now.status[nethack.NLE_BL_Y], now.buffers["glyphs"]
        if games is not None:
            x, y, glyphs = x[games], y[games], glyphs[games]
        key, count = self._summary.nearest(glyphs, x, y)
        return np.where(key == ABSENT, FAR, self._summary.distance(key)).astype(np.int64), count


class Inventory(Source):
    """Stacks of items that the hero carries."""

    offers = frozenset(
        {"info.inventory_count", "info.inventory_change", "info.has_key"}
        | {f"info.inventory_{name}" for name in INVENTORY_CLASSES}
    )
    nle_keys = ("inv_oclasses", "inv_glyphs")

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        super().__init__(asked, num_games, action_names)
        # Object classes by number; what is not one of them marks an empty slot.
        empty = len(INVENTORY_CLASSES)
        self._kind = np.full(256, empty, np.int64)
        for number in range(1, nethack.MAXOCLASSES):
            name = item_class(number)
            self._kind[number] = INVENTORY_CLASSES.index(name)
        self._offset = np.arange(num_games)[:, None] * (empty + 1)
        self._total = np.zeros(num_games, np.int64)
        self._key_glyphs = [
            nethack.GLYPH_OBJ_OFF + number
            for number in range(nethack.NUM_OBJECTS)
            if nethack.OBJ_NAME(nethack.objclass(number)) == "skeleton key"
        ]

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """What is carried at the start."""
        self._total[games] = self._count(now)[:, games].sum(0)

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Counts by class and in all."""
        counts = self._count(now)
        total = counts.sum(0)
        columns = {f"info.inventory_{name}": counts[k] for k, name in enumerate(INVENTORY_CLASSES)}
        columns["info.inventory_count"] = total
        columns["info.inventory_change"] = total - self._total
        if "info.has_key" in self.asked:
            columns["info.has_key"] = (now.buffers["inv_glyphs"] == self._key_glyphs[0]).any(1)
        self._total = total.copy()
        return columns

    def _count(self, now: Moment) -> np.ndarray:
        """int64 [classes, B]."""
        slots = self._kind[now.buffers["inv_oclasses"]] + self._offset
        width = len(INVENTORY_CLASSES) + 1
        counts = np.bincount(slots.reshape(-1), minlength=self.num_games * width)
        return counts.reshape(self.num_games, width).T[:-1].copy()


def _levels(status: np.ndarray) -> np.ndarray:
    """int64 [B]: one number for each level of each dungeon."""
    return status[nethack.NLE_BL_DNUM] * 64 + status[nethack.NLE_BL_DLEVEL]


def _places(status: np.ndarray) -> list[int]:
    """B numbers: one for each cell of each level."""
    cell = status[nethack.NLE_BL_Y] * COLS + status[nethack.NLE_BL_X]
    return ((_levels(status) << _PLACE_BITS) | cell).tolist()
