"""The reference's environments: ``gymnasium.make``, as its users run it and in its cheapest configuration.

Imports nothing else of Yendor, so that another interpreter, with other packages, can use it too.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

CROP = 9
"""Side of the egocentric window in map cells, odd."""


def is_minihack(task: str) -> bool:
    """MiniHack's environments cut crops themselves; NLE's do not."""
    return task.startswith("MiniHack-")


def cheap_keys(task: str) -> tuple[str, ...]:
    """The observation keys that come nearest to a crop and the bottom line statistics, and no others."""
    return ("glyphs_crop" if is_minihack(task) else "glyphs", "blstats")


def gym_env(task: str, **arguments: Any) -> gymnasium.Env:
    """``gymnasium.make`` without its environment checker."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        import minihack  # noqa: F401  (registers its tasks)
        import nle  # noqa: F401  (registers its tasks)
    return gymnasium.make(task, disable_env_checker=True, **arguments)


def training_env(task: str, penalty_step: float) -> gymnasium.Env:
    """An environment that shows ``glyphs_crop`` and ``blstats``, as cheaply as gymnasium's can."""
    env = gym_env(task, observation_keys=cheap_keys(task), penalty_step=penalty_step)
    return env if is_minihack(task) else GlyphsCrop(env)


class GlyphsCrop(gymnasium.ObservationWrapper):
    """The window of ``glyphs`` around the hero, padded with 0, beside ``blstats``.

    Args:
        env: shows ``glyphs`` int16 [21, 79] and ``blstats``.
        size: side of the window, odd.
    """

    def __init__(self, env: gymnasium.Env, size: int = CROP) -> None:
        super().__init__(env)
        shown = env.observation_space
        assert isinstance(shown, gymnasium.spaces.Dict)
        glyphs = shown["glyphs"]
        assert glyphs.shape is not None and isinstance(glyphs, gymnasium.spaces.Box)
        low, high = glyphs.low.min(), glyphs.high.max()
        crop = gymnasium.spaces.Box(low, high, (size, size), np.int16)
        self.observation_space = gymnasium.spaces.Dict({"glyphs_crop": crop, "blstats": shown["blstats"]})
        half, (height, width) = size // 2, glyphs.shape
        self._size = size
        self._padded = np.zeros((height + 2 * half, width + 2 * half), np.int16)
        self._map = self._padded[half : half + height, half : half + width]

    def observation(self, observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``glyphs_crop`` int16 [size, size] and ``blstats``."""
        blstats, size = observation["blstats"], self._size
        x, y = int(blstats[0]), int(blstats[1])
        self._map[:] = observation["glyphs"]
        return {"glyphs_crop": self._padded[y : y + size, x : x + size].copy(), "blstats": blstats}
