"""Egocentric windows of the map (or terminal), cut for all games at once."""

from __future__ import annotations

import numpy as np


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
