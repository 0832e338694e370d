"""Sources of a policy's randomness (``envs.protocols.Noise``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.data import EpisodeSeeds


class GeneratorNoise:
    """One generator for B games: what training uses."""

    def __init__(self, num_games: int, *seed: int) -> None:
        self._num_games = num_games
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))

    def uniform(self, num: int) -> np.ndarray:
        """float32 [B, num] in [0, 1)."""
        return self._generator.random((self._num_games, num), dtype=np.float32)

    def state_dict(self) -> dict[str, Any]:
        """State of the generator (large integers, JSON-safe)."""
        return dict(self._generator.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._generator.bit_generator.state = state


class EpisodeNoise:
    """One generator for each game, restarted with each episode: what evaluation uses.

    An episode then plays out the same whichever games run beside it and however often the
    evaluation was interrupted.
    """

    def __init__(self, num_games: int, seed: int = 0) -> None:
        self._seed = seed
        self._generators = [np.random.default_rng((seed, game)) for game in range(num_games)]

    def begin(self, game: int, seeds: EpisodeSeeds) -> None:
        """Restart this game's generator for the episode of these seeds."""
        self._generators[game] = np.random.default_rng((self._seed, *seeds))

    def uniform(self, num: int) -> np.ndarray:
        """float32 [B, num] in [0, 1)."""
        return np.stack([generator.random(num, dtype=np.float32) for generator in self._generators])
