"""Do games leak? Many games, played at random and reset again and again for a long time, while memory is watched.

The slope of resident memory over resets is fitted by Theil and Sen's median of slopes, whose 95 % interval is
printed with it: a single jump (an arena, a cache) does not look like a leak. The first part is left out: memory
is still being touched for the first time.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import numpy as np
import psutil
from pydantic import Field, PositiveInt

from envs.data import Config
from envs.engine import Engine
from envs.seeding import TrainingSeeds
from envs.tasks import GamesConfig, make
from launch.errors import UserError

_KIB = 1024


class SoakBench(Config):
    """Memory of many games over a long time, fitted against the number of resets."""

    task: str = "MiniHack-Room-5x5-v0"
    """A task id."""
    games: PositiveInt = 64
    """Games side by side."""
    minutes: Annotated[float, Field(gt=0)] = 20.0
    """How long they are played."""
    engine: Engine = "auto"
    """What runs NetHack."""
    interval_s: Annotated[float, Field(gt=0)] = 5.0
    """Seconds between samples of memory."""
    settle: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the time, from the start, that the fit leaves out."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes episodes and actions."""


def measure(flags: SoakBench) -> tuple[str, dict[str, Any]]:
    """The sentence, and every sample.

    Raises:
        UserError: the task is unknown, or the engine cannot be had.
    """
    samples = _play(flags)
    kept = samples[samples[:, 0] >= flags.settle * flags.minutes * 60]
    slope, low, high = growth(kept[:, 2], kept[:, 3])
    seconds, steps, resets, last = samples[-1]
    summary = {
        "bytes_per_reset": slope,
        "bytes_per_reset_low": low,
        "bytes_per_reset_high": high,
        "steps": int(steps),
        "resets": int(resets),
        "steps_per_s": steps / seconds,
        "first_mb": samples[0, 3] / 1e6,
        "last_mb": last / 1e6,
    }
    shown = (
        f"{flags.games} games of {flags.task}, engine {flags.engine}: {steps:,.0f} steps and {resets:,.0f} resets in "
        f"{seconds / 60:.1f} minutes; resident memory {samples[0, 3] / 1e6:.1f} MB at first, {last / 1e6:.1f} MB at "
        f"last; growth {slope / _KIB:.3f} KiB a reset ({low / _KIB:.3f} to {high / _KIB:.3f})"
    )
    return shown, {"summary": summary, "samples": samples.tolist()}


def _play(flags: SoakBench) -> np.ndarray:
    """float64 [N, 4]: seconds, steps, resets, resident bytes."""
    config = GamesConfig(task=flags.task, obs_keys=("glyphs_crop", "blstats"), engine=flags.engine)
    try:
        games = make(config, flags.games, TrainingSeeds(flags.seed, 0, flags.games))
    except ValueError as error:
        raise UserError(f"task: {error}") from None
    generator = np.random.Generator(np.random.PCG64(flags.seed))
    memory = psutil.Process()
    games.reset()
    samples = []
    steps = resets = 0
    began = now = time.perf_counter()
    due = began
    while now - began < flags.minutes * 60:
        if now >= due:
            samples.append((now - began, steps, resets, memory.memory_info().rss))
            due += flags.interval_s
        for _ in range(50):
            played = games.step(generator.integers(games.spec.num_actions, size=flags.games))
            steps += flags.games
            resets += len(played.finished)
        now = time.perf_counter()
    samples.append((now - began, steps, resets, memory.memory_info().rss))
    games.close()
    return np.array(samples, np.float64)


def growth(resets: np.ndarray, resident_bytes: np.ndarray) -> tuple[float, float, float]:
    """Bytes a reset: the median slope and its 95 % interval (Sen 1968); zeros for fewer than 3 different points."""
    distinct, at = np.unique(resets, return_index=True)
    n = len(distinct)
    if n < 3:
        return 0.0, 0.0, 0.0
    y = resident_bytes[at]
    i, j = np.triu_indices(n, 1)
    slopes = np.sort((y[j] - y[i]) / (distinct[j] - distinct[i]))
    half_width = 1.96 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18) / 2
    middle = (len(slopes) - 1) / 2
    low, high = (int(np.clip(round(middle + d), 0, len(slopes) - 1)) for d in (-half_width, half_width))
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])
