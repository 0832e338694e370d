"""Logged play: how fast windows of a few steps are read out of one long episode, and how fast it is written.

The episode is real play of a random policy, repeated until it is long enough. Windows begin anywhere, so that nearly
each has to be decompressed; files are in the memory of the operating system. CPU time counts every thread.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt

from envs.data import Config, EndStatus
from envs.datasets import Dataset, DatasetWriter, Manifest
from envs.datasets.manifest import OBS, column_path
from envs.seeding import TrainingSeeds
from envs.spec import GamesConfig
from envs.tasks import make, specs_of
from launch.errors import UserError

_BATCH = 256
"""Windows that a learner asks for at once."""
_SHARD = "game"


class DatasetsBench(Config):
    """Windows out of a long logged episode, and writing it."""

    task: str = "NetHackScore-v0"
    """A task id."""
    keys: tuple[str, ...] = ("glyphs", "blstats", "message")
    """Observation keys that are written and read."""
    steps: Annotated[int, Field(ge=_BATCH)] = 200_000
    """Length of the episode."""
    played: PositiveInt = 10_000
    """Steps that are really played; they are repeated."""
    length: PositiveInt = 16
    """Steps of a window."""
    windows: PositiveInt = 4000
    """Windows that are read in a round."""
    rounds: PositiveInt = 5
    """How often reading is measured."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes play and windows."""


def measure(flags: DatasetsBench) -> tuple[str, dict[str, Any]]:
    """The table, and every round.

    Raises:
        UserError: the task or a key is unknown.
    """
    try:
        config = GamesConfig(task=flags.task, obs_keys=flags.keys)
        manifest, rows = _played(config, flags)
    except ValueError as error:
        raise UserError(str(error)) from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        written = _write(path, manifest, rows, flags.steps)
        rounds = _read(path, flags)
        bytes_a_step = _bytes_a_step(path, manifest, flags.steps)
    summary = {
        "steps": flags.steps,
        "written_steps_per_cpu_s": flags.steps / written["cpu_s"],
        "written_steps_per_s": flags.steps / written["wall_s"],
        "bytes_a_step": bytes_a_step,
        **{name: _spread([one[name] for one in rounds]) for name in rounds[0]},
    }
    return table(flags, summary), {"summary": summary, "measurements": {"written": written, "rounds": rounds}}


def _played(config: GamesConfig, flags: DatasetsBench) -> tuple[Manifest, list[dict[str, np.ndarray]]]:
    """Observations of one game after the other."""
    games = make(config, 1, TrainingSeeds(flags.seed, 0, 1))
    generator = np.random.default_rng(flags.seed)
    obs, rows = games.reset(), []
    for _ in range(flags.played):
        rows.append({key: value[0].copy() for key, value in obs.items()})
        obs = games.step(generator.integers(games.spec.num_actions, size=1)).obs
    manifest = Manifest.of_games(config, specs_of(config), games.spec.obs, [{"kind": "random"}])
    games.close()
    return manifest, rows


def _write(path: Path, manifest: Manifest, rows: Sequence[Mapping[str, np.ndarray]], steps: int) -> dict[str, float]:
    """One episode, its files closed."""
    actions = np.random.default_rng(0).integers(len(manifest.actions), size=steps).tolist()
    wall, cpu = time.perf_counter(), time.process_time()
    with DatasetWriter.create(path, manifest) as writer:
        shard = writer.shard(_SHARD)
        shard.begin(None)
        for t, action in enumerate(actions):
            over = t == steps - 1
            shard.step(
                action=action,
                log_prob=-1.0,
                policy=0,
                reward=0.0,
                terminated=over,
                truncated=False,
                end_status=EndStatus.DEATH if over else EndStatus.RUNNING,
                obs=rows[t % len(rows)],
            )
        shard.end(rows[0])
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


def _bytes_a_step(path: Path, manifest: Manifest, steps: int) -> dict[str, float]:
    """On disk, by column, and of all."""
    sizes = {name: column_path(path, _SHARD, name).stat().st_size / steps for name in manifest.columns}
    return sizes | {"all": sum(sizes.values())}


def _read(path: Path, flags: DatasetsBench) -> list[dict[str, float]]:
    """Milliseconds of each round."""
    columns = [OBS + key for key in flags.keys]
    generator = np.random.default_rng(flags.seed)
    rounds = []
    for _ in range(flags.rounds):
        opened, open_ms = _timed(lambda: Dataset.open(path))

        def window(data: Dataset = opened, number: int = 1) -> object:
            return data.windows(generator.integers(data.num_steps, size=number), flags.length, columns)

        first_ms = _timed(window)[1]
        times = np.array([_timed(window)[1] for _ in range(flags.windows)])
        found = {"open_cpu": open_ms[0], "first_window_cpu": first_ms[0]}
        for kind, own in zip(("cpu", "wall"), times.T, strict=True):
            found |= {f"window_{kind}_p{p}": float(np.percentile(own, p)) for p in (50, 99)}
        found[f"windows_{_BATCH}_cpu"] = _timed(lambda: window(number=_BATCH))[1][0]
        found["column_cpu"] = _timed(lambda: opened.read("action"))[1][0]  # noqa: B023
        rounds.append(found)
    return rounds


def _timed(work: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What it gives; milliseconds of CPU time and of the clock."""
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    found = work()
    return found, ((time.process_time_ns() - cpu) / 1e6, (time.perf_counter_ns() - wall) / 1e6)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "low": min(values), "high": max(values)}


_ROWS = {
    "open_cpu": "opening, CPU ms",
    "first_window_cpu": "its first window, CPU ms",
    "window_cpu_p50": "a window, CPU ms, p50",
    "window_cpu_p99": "a window, CPU ms, p99",
    "window_wall_p50": "a window, wall ms, p50",
    "window_wall_p99": "a window, wall ms, p99",
    f"windows_{_BATCH}_cpu": f"{_BATCH} windows at once, CPU ms",
    "column_cpu": "all actions, CPU ms",
}


def table(flags: DatasetsBench, summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    sizes = summary["bytes_a_step"]
    seen = sum(sizes[OBS + key] for key in flags.keys)
    lines = [f"one episode of {flags.steps:,} steps; windows of {flags.length}: {', '.join(flags.keys)}"]
    for name, text in _ROWS.items():
        row = summary[name]
        lines.append(f"{text:<30}{row['median']:>9.3f}  ({row['low']:.3f} to {row['high']:.3f})")
    lines.append(f"written: {summary['written_steps_per_cpu_s']:,.0f} steps a CPU second")
    lines.append(f"bytes a step: {seen:.1f} of observations, {sizes['all']:.1f} of everything")
    return "\n".join(lines)
