"""What the host remembers of the running episodes for the schema's ``info`` columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import ne
from typing import Any

import numpy as np
from nle import nethack as _nethack

from envs import maps
from envs.glyphs import COLS, NEAREST_CLASSES, ROWS, SCENERY, STONE, MapSummary, item_class, rows_of_glyphs
from envs.maps import ABSENT, CELL_BITS, NO_ROW
from envs.schema_sources import MESSAGE_CHARS, Moment, Source

nethack: Any = _nethack  # an extension module: type checkers cannot see its constants

FAR = 99
"""Distance to what is not on the map: farther than anything that is (at most 78)."""
INVENTORY_CLASSES: tuple[str, ...] = (
    "gold", "tool", "wand", "jewelry", "potion", "scroll", "gear", "food", "other_item",
)  # fmt: skip

_GIVE_WAY = ("closed_door", "boulder", "monster", "pet")
"""Classes of interest that do not lie under the hero who steps there."""
_PLACE = (nethack.NLE_BL_X, nethack.NLE_BL_Y, nethack.NLE_BL_DNUM, nethack.NLE_BL_DLEVEL)
_PLACE_BITS = 11  # ROWS * COLS = 1659 < 2048


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
        self._max_depth = _replaced(self._max_depth, games, now.status[nethack.NLE_BL_DEPTH, games])
        for game, place in zip(games.tolist(), _places(now, games), strict=True):
            self._visits[game] = {place: 1}

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Counts with this step's place included."""
        self._max_depth = np.maximum(self._max_depth, now.status[nethack.NLE_BL_DEPTH])
        here = []
        for visits, place in zip(self._visits, _places(now), strict=True):
            visits[place] = count = visits.get(place, 0) + 1
            here.append(count)
        return {
            "info.max_depth": self._max_depth,
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
        self._level = [0] * num_games
        self._num_seen = np.zeros(num_games, np.int64)
        self._since = np.zeros(num_games, np.int64)

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """What the first observation shows counts as seen, not as new."""
        seen, num_seen = np.zeros((len(games), ROWS, COLS), bool), np.empty(len(games), np.int64)
        maps.mark_seen(now.buffers["glyphs"][games], STONE, seen, num_seen)
        self._seen[games] = seen
        self._num_seen = _replaced(self._num_seen, games, num_seen)
        self._since = _replaced(self._since, games, 0)
        for game, level in zip(games.tolist(), now.levels[games].tolist(), strict=True):
            self._level[game] = level
            self._other_levels[game] = {}

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Cells that show something for the first time."""
        level = now.levels.tolist()
        if level != self._level:
            self._change_levels(level)
        num_new = np.empty(self.num_games, np.int64)
        maps.mark_seen(now.buffers["glyphs"], STONE, self._seen, num_new)
        columns = {"info.new_tiles_seen": num_new}
        if "info.tiles_seen" in self.asked:
            columns["info.tiles_seen"] = self._num_seen = self._num_seen + num_new
        if "info.steps_since_new_tile" in self.asked:
            columns["info.steps_since_new_tile"] = self._since = (self._since + 1) * (num_new == 0)
        return columns

    def _change_levels(self, level: list[int]) -> None:
        for game, (before, after) in enumerate(zip(self._level, level, strict=True)):
            if before != after:
                stored = self._other_levels[game]
                stored[before] = self._seen[game].copy()
                self._seen[game] = stored.pop(after, False)
        self._level = level


class Changes(Source):
    """For how long nothing has happened."""

    offers = frozenset({"info.steps_since_change"})
    nle_keys = ("glyphs", "blstats", "message")
    reads_glyphs_before = True

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        super().__init__(asked, num_games, action_names)
        self._since = np.zeros(num_games, np.int64)

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """The start is a change."""
        self._since = _replaced(self._since, games, 0)

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Map, message and status line are compared with the step before, turn counter aside."""
        changed = np.empty(self.num_games, bool)
        maps.differ(
            now.buffers["glyphs"], now.glyphs_before, now.status, now.status_before, nethack.NLE_BL_TIME, changed
        )
        if now.texts != now.texts_before:
            changed |= np.fromiter(map(ne, now.texts, now.texts_before), bool, self.num_games)
        self._since = (self._since + 1) * ~changed
        return {"info.steps_since_change": self._since}


class Nearby(Source):
    """The nearest cell of each class of interest, the one under the hero included.

    The map shows the hero and not what lies under: that is what the map of the step before showed there.
    """

    offers = frozenset(f"info.{name}_{what}" for name in NEAREST_CLASSES for what in ("distance", "count", "approach"))
    nle_keys = ("glyphs", "blstats")
    reads_glyphs_before = True

    def __init__(self, asked: Sequence[str], num_games: int, action_names: Sequence[str]) -> None:
        super().__init__(asked, num_games, action_names)
        parts = [(name, *name.removeprefix("info.").rpartition("_")[::2]) for name in self.asked]
        # Columns of the arrays below: the K classes that are asked for.
        names = [name for name in NEAREST_CLASSES if any(name == asked for _, asked, _ in parts)]
        self._summary = MapSummary(num_games, names)
        self._wanted = [(qualified, what, names.index(name)) for qualified, name, what in parts]
        self._rows, self._underfoot = rows_of_glyphs(names), rows_of_glyphs(names)
        self._underfoot[rows_of_glyphs(_GIVE_WAY) != NO_ROW] = NO_ROW
        self._distance = np.full((num_games, len(names)), FAR, np.int64)
        self._count = np.zeros_like(self._distance)
        self._under = np.full(num_games, NO_ROW, np.uint8)

    def begin(self, now: Moment, games: np.ndarray) -> None:
        """Distances from which the first step approaches; what lies under the hero is not known."""
        self._under[games] = NO_ROW
        x, y = now.status[nethack.NLE_BL_X, games], now.status[nethack.NLE_BL_Y, games]
        key, count = self._summary.nearest(now.buffers["glyphs"][games], x, y)
        self._distance = _replaced(self._distance, games, np.where(key == ABSENT, FAR, key >> CELL_BITS))
        self._count = _replaced(self._count, games, count)

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Distances, counts, and how much nearer the nearest one is than a step before."""
        distance, count, approach = (np.empty_like(self._distance) for _ in range(3))
        maps.nearby(
            now.buffers["glyphs"], now.glyphs_before, now.status, now.status_before, _PLACE, self._rows,
            self._underfoot, SCENERY, FAR, self._under, self._distance, self._count, distance, count, approach,
        )  # fmt: skip
        self._distance, self._count = distance, count
        by_what = {"distance": distance.T, "count": count.T, "approach": approach.T}
        return {name: by_what[what][row] for name, what, row in self._wanted}


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
        self._total = _replaced(self._total, games, self._count(now.buffers["inv_oclasses"][games]).sum(0))

    def advance(self, now: Moment) -> Mapping[str, np.ndarray]:
        """Counts by class and in all."""
        counts = self._count(now.buffers["inv_oclasses"])
        total = counts.sum(0)
        columns = {f"info.inventory_{name}": counts[k] for k, name in enumerate(INVENTORY_CLASSES)}
        columns["info.inventory_count"] = total
        columns["info.inventory_change"] = total - self._total
        if "info.has_key" in self.asked:
            columns["info.has_key"] = (now.buffers["inv_glyphs"] == self._key_glyphs[0]).any(1)
        self._total = total
        return columns

    def _count(self, object_classes: np.ndarray) -> np.ndarray:
        """int64 [classes, N], from uint8 [N, 55]."""
        num_games, width = len(object_classes), len(INVENTORY_CLASSES) + 1
        slots = self._kind[object_classes] + self._offset[:num_games]
        return np.bincount(slots.reshape(-1), minlength=num_games * width).reshape(num_games, width).T[:-1]


def _replaced(values: np.ndarray, games: np.ndarray, by: np.ndarray | int) -> np.ndarray:
    """A copy with other values for ``games``: the array itself was handed out as a column."""
    values = values.copy()
    values[games] = by
    return values


def _places(now: Moment, games: np.ndarray | slice = slice(None)) -> list[int]:
    """One number a game, of all or of N games: one for each cell of each level."""
    cell = now.status[nethack.NLE_BL_Y, games] * COLS + now.status[nethack.NLE_BL_X, games]
    return ((now.levels[games] << _PLACE_BITS) | cell).tolist()
