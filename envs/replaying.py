"""Playing logged episodes once more, from their seeds and actions: what they showed can be made again."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

DIGESTED_KEYS = ("glyphs", "blstats", "message")
"""Observation keys that an episode's digest is made of."""


class Digests:
    """Digests of the running episodes of B games: of every observation, the one after the last action included.

    Args:
        num_games: B.
    """

    def __init__(self, num_games: int) -> None:
        self._sums = [[0] * len(DIGESTED_KEYS) for _ in range(num_games)]

    def add(self, game: int, obs: Mapping[str, np.ndarray]) -> None:
        """The next observation of a game's episode, ``{key: [...]}``; other keys do not matter."""
        sums = self._sums[game]
        for i, key in enumerate(DIGESTED_KEYS):
            sums[i] = zlib.crc32(obs[key].data, sums[i])

    def take(self, game: int) -> int:
        """The digest of the episode, from 0 to 2**63 - 1; another one begins."""
        glyphs, *others = self._sums[game]
        self._sums[game] = [0] * len(DIGESTED_KEYS)
        return glyphs << 31 | zlib.crc32(np.array(others, np.uint32).tobytes()) >> 1
