"""Arrays that NetHack writes into, and the observations made from them for all games at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from nle.nethack.nethack import OBSERVATION_DESC

from envs.game import BL_X, BL_Y
from envs.glyphs import MapSummary
from envs.protocols import ObsSpec
from envs.spec import CROP_KEYS, MAP_SUMMARY, GamesConfig


class Buffers:
    """One array [B, ...] for each NetHack observation key.

    Maps and terminals have one spare cell, always 0, at the end of each game's row: what lies outside a crop.

    Args:
        keys: the NLE keys.
        num_games: B.
    """

    def __init__(self, keys: Iterable[str], num_games: int) -> None:
        self.padded: dict[str, np.ndarray] = {}
        """``{key: [B, cells + 1, ...]}`` for maps and terminals."""
        self.arrays: dict[str, np.ndarray] = {}
        """``{key: [B, ...]}`` in NetHack's shapes; live."""
        for key in keys:
            shape, dtype = OBSERVATION_DESC[key]["shape"], OBSERVATION_DESC[key]["dtype"]
            if len(shape) < 2 or key == "inv_strs":
                self.arrays[key] = np.zeros((num_games, *shape), dtype)
                continue
            height, width, *rest = shape
            self.padded[key] = np.zeros((num_games, height * width + 1, *rest), dtype)
            self.arrays[key] = self.padded[key][:, :-1].reshape(num_games, *shape)

    def rows(self, game: int) -> dict[str, np.ndarray]:
        """``{key: row}`` of one game."""
        return {key: array[game] for key, array in self.arrays.items()}


def nle_keys_of(config: GamesConfig) -> set[str]:
    """The NLE keys that the configured observations are made from."""
    keys = set()
    for key in config.obs_keys:
        base = key.removesuffix("_crop")
        keys.add("glyphs" if key == MAP_SUMMARY else base)
        if base.startswith("tty_"):
            keys.add("tty_cursor")
    return keys


class Crop:
    """Windows of side ``size`` around a position, padded with 0.

    Each game's cells lie in one flat row, followed by at least one cell that is always 0, which everything
    outside the map points at.

    Args:
        cells: [B, height * width + 1 or more, ...], the last entries 0.
        height: of the map.
        width: of the map.
        size: of the window, odd.
    """

    def __init__(self, cells: np.ndarray, height: int, width: int, size: int) -> None:
        num_games, row = cells.shape[:2]
        half = size // 2
        y = np.arange(height)[:, None, None, None] + np.arange(-half, half + 1)[:, None]
        x = np.arange(width)[None, :, None, None] + np.arange(-half, half + 1)[None, :]
        flat = np.where((y >= 0) & (y < height) & (x >= 0) & (x < width), y * width + x, height * width)
        self._table = np.ascontiguousarray(flat.reshape(height * width, size, size))
        self._offsets = (np.arange(num_games) * row)[:, None, None]
        self._cells = cells.reshape(num_games * row, *cells.shape[2:])
        self._height, self._width = height, width
        self._centre = np.empty(num_games, np.intp)
        self._index = np.empty((num_games, size, size), np.intp)
        self.out = np.zeros((num_games, size, size, *cells.shape[2:]), cells.dtype)
        """[B, size, size, ...], rewritten by each ``cut``."""

    def cut(self, x: np.ndarray, y: np.ndarray) -> None:
        """Cut the windows around cells (x [B], y [B])."""
        np.multiply(y, self._width, out=self._centre, dtype=np.intp)
        np.add(self._centre, x, out=self._centre)
        np.take(self._table, self._centre, axis=0, out=self._index, mode="clip")
        self._index += self._offsets
        np.take(self._cells, self._index, axis=0, out=self.out, mode="clip")


class Observations:
    """The observations that the policy gets: NetHack's own arrays, crops and the map summary.

    Args:
        config: which keys.
        buffers: what NetHack writes.
        num_games: B.
    """

    def __init__(self, config: GamesConfig, buffers: Buffers, num_games: int) -> None:
        self._updates: list[Callable[[], None]] = []
        self.obs: Mapping[str, np.ndarray] = {
            key: self._source(key, config, buffers, num_games) for key in config.obs_keys
        }
        """``{key: [B, ...]}``; live."""
        self.spec = {key: ObsSpec(shape=a.shape[1:], dtype=a.dtype) for key, a in self.obs.items()}

    def update(self) -> None:
        """Bring crops and the summary up to date with the buffers."""
        for update in self._updates:
            update()

    def row(self, game: int) -> dict[str, np.ndarray]:
        """Copies of one game's observations."""
        return {key: array[game].copy() for key, array in self.obs.items()}

    def _source(self, key: str, config: GamesConfig, buffers: Buffers, num_games: int) -> np.ndarray:
        if key == MAP_SUMMARY:
            return self._map_summary(buffers, num_games)
        if key in CROP_KEYS:
            return self._crop(key.removesuffix("_crop"), config.crop, buffers)
        return buffers.arrays[key]

    def _crop(self, base: str, size: int, buffers: Buffers) -> np.ndarray:
        height, width = OBSERVATION_DESC[base]["shape"][:2]
        crop = Crop(buffers.padded[base], height, width, size)
        if base.startswith("tty_"):
            x, y = buffers.arrays["tty_cursor"][:, 1], buffers.arrays["tty_cursor"][:, 0]
        else:
            x, y = buffers.arrays["blstats"][:, BL_X], buffers.arrays["blstats"][:, BL_Y]
        self._updates.append(lambda: crop.cut(x, y))
        return crop.out

    def _map_summary(self, buffers: Buffers, num_games: int) -> np.ndarray:
        summary = MapSummary(num_games)
        out = np.zeros((num_games, *summary.shape), summary.dtype)
        glyphs, blstats = buffers.arrays["glyphs"], buffers.arrays["blstats"]
        x, y = blstats[:, BL_X], blstats[:, BL_Y]
        self._updates.append(lambda: summary.fill(glyphs, x, y, out))
        return out
