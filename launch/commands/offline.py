"""``yendor offline record | relabel | observe | verify | import | export | show``: data sets of logged play."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from pydantic_settings import CliPositionalArg

from envs.data import Config, EndStatus
from launch.config.flags import AsJson, validate
from launch.errors import UserError
from launch.show import figure, share, visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from envs.datasets import Dataset
    from envs.spec import GamesConfig
    from launch.evaluation.policies import PolicySource


def opened(path: Path, *, verify: bool = False) -> Dataset:
    """A data set.

    Raises:
        UserError: there is none, or it is damaged.
    """
    from envs.datasets import Dataset

    try:
        return Dataset.open(path, verify=verify)
    except ValueError as error:
        raise UserError(str(error)) from None


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; gives what moves it on."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task(what, total=total)
        yield lambda steps: bar.update(shown, advance=steps)


# -- record -------------------------------------------------------------------------------------------


class RecordFlags(Config):
    """Play with policies, and write every step into a new data set.

    yendor offline record DATA --policy RUN
    yendor offline record DATA --policy random walker --shares 1 1 --task ID

    The episodes are of those that runs train on: none that an evaluation plays. What was recorded when this was
    interrupted stays, as a smaller data set.
    """

    data: CliPositionalArg[Path]
    """Folder of the new data set."""
    policy: tuple[str, ...] = ()
    """Run folders, Stable-Baselines3 models (.zip), random, or walker."""
    shares: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """How much of the steps each policy plays, in proportion; none = the same."""
    task: str = ""
    """Task id; empty = the task of the first run."""
    steps: Annotated[int, Field(gt=0)] = 100_000
    """Steps, over all policies."""
    obs_keys: tuple[str, ...] = ()
    """Observations that are kept; none = those that the first run knows."""
    crop: int | None = None
    """Side of the egocentric windows; none = that of the first run."""
    episode_steps: Annotated[int, Field(gt=0)] | None = None
    """Time limit of an episode; none = the task's own."""
    checkpoint: Annotated[int, Field(ge=0)] | None = None
    """Step of the runs' checkpoints; none = the newest valid one."""
    deterministic: bool = False
    """Take the likeliest action instead of sampling."""
    epsilon: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The walker's share of actions that are drawn among all."""
    trip_steps: Annotated[int, Field(gt=0)] | None = None
    """Most steps of the walker's trips; none = any number."""
    to_stairs: bool = False
    """The walker goes to the stairs down, which it else keeps off."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Another one plays other episodes."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that play side by side; 0 plays in this one."""
    games_per_worker: Annotated[int, Field(gt=0)] = 16
    """Games that each process steps side by side, each of which writes a shard of its own."""


def record(flags: RecordFlags) -> int:
    """Record, and say what there is."""
    from launch.offline.recording import Recording
    from launch.offline.recording import record as record_play

    sources, games = _sources(flags)
    shares = flags.shares or (1.0,) * len(sources)
    if len(shares) != len(sources):
        raise UserError(f"--shares: {len(shares)} shares do not fit {len(sources)} policies")
    recording = Recording(
        data=flags.data,
        sources=sources,
        shares=shares,
        games=games,
        num_steps=flags.steps,
        num_workers=flags.workers,
        games_per_worker=flags.games_per_worker,
        seed=flags.seed,
        deterministic=flags.deterministic,
    )
    with _progress(str(flags.data), flags.steps) as on_steps:
        record_play(recording, on_steps)
    return show(ShowFlags(data=flags.data))


def _sources(flags: RecordFlags) -> tuple[tuple[PolicySource, ...], GamesConfig]:
    """The policies, and the games that they play."""
    from envs.spec import GamesConfig
    from envs.tasks import specs_of

    if not flags.policy:
        raise UserError("--policy is missing: name run folders, random or walker")
    found = {name: _trained(name, flags) for name in flags.policy if name not in ("random", "walker")}
    first = next(iter(found.values()), None)
    if first is None and not flags.task:
        raise UserError("--task is missing: neither the random policy nor the walker has a task of its own")
    games = GamesConfig() if first is None else first.games.replace(features=())
    changes = {"task": flags.task, "crop": flags.crop, "max_episode_steps": flags.episode_steps}
    changes |= {"obs_keys": flags.obs_keys}
    games = validate(GamesConfig, games.model_dump() | {name: value for name, value in changes.items() if value})
    try:
        specs_of(games)
    except ValueError as error:
        raise UserError(f"--task: {error}") from None
    return tuple(found.get(name) or _untrained(name, flags, games) for name in flags.policy), games


def _trained(name: str, flags: RecordFlags) -> PolicySource:
    from agents.config import PlannerConfig
    from launch.evaluation.policies import PlannerSource, RunSource, Sb3Source
    from launch.runs.folder import read_config

    path = Path(name)
    if name.endswith(".zip"):
        return Sb3Source.of(path)
    if "kind" in read_config(path):
        return PlannerSource.of(path, flags.checkpoint, PlannerConfig())
    return RunSource.of(path, flags.checkpoint)


def _untrained(name: str, flags: RecordFlags, games: GamesConfig) -> PolicySource:
    from launch.evaluation.policies import RandomSource, WalkerSource

    if name == "random":
        return RandomSource(games=games)
    return WalkerSource(
        games=games.replace(obs_keys=("glyphs", "blstats")),
        epsilon=flags.epsilon,
        trip_steps=flags.trip_steps,
        to_stairs=flags.to_stairs,
    )


# -- show ---------------------------------------------------------------------------------------------


class ShowFlags(Config):
    """Say what is in a data set: steps, episodes, returns by policy and by reward column, and sizes."""

    data: CliPositionalArg[Path]
    """A data set."""
    as_json: AsJson = False
    """Print it for programs."""


def show(flags: ShowFlags) -> int:
    """Print the figures of a data set."""
    data = opened(flags.data)
    try:
        found = describe(data)
    except ValueError as error:
        raise UserError(str(error)) from None
    if flags.as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        _print(found)
    return 0


def describe(data: Dataset) -> dict[str, Any]:
    """The figures of a data set, as JSON.

    Raises:
        ValueError: a file is damaged.
    """
    episodes, manifest = data.episodes, data.manifest
    sizes: dict[str, int] = {}
    for record in manifest.shards.values():
        for column, file in record.files.items():
            sizes[column] = sizes.get(column, 0) + file.size
    return {
        "data": str(data.path),
        "tasks": list(manifest.task_ids),
        "steps": data.num_steps,
        "episodes": len(episodes),
        "unfinished": int((~episodes.finished).sum()),
        "shards": len(data.shards),
        "never_closed": [shard.name for shard in data.shards if not shard.closed],
        "actions": len(manifest.actions),
        "versions": manifest.versions,
        "policies": [_policy(data, place) for place in range(len(manifest.policies))],
        "rewards": manifest.rewards,
        "bytes": sizes,
    }


def _policy(data: Dataset, place: int) -> dict[str, Any]:
    """What one policy played: episodes that it began, and their returns by reward column."""
    episodes = data.episodes
    own = np.flatnonzero((episodes.policy == place) & episodes.finished)
    lengths = episodes.length[own]
    found: dict[str, Any] = {
        "provenance": data.manifest.policies[place],
        "steps": int(episodes.length[episodes.policy == place].sum()),
        "finished_episodes": len(own),
        "episode_steps": _mean(lengths),
        "success": _mean(episodes.end_status[own] == EndStatus.TASK_SUCCESSFUL),
        "returns": {},
        "unlabelled": {},
    }
    for name in data.manifest.reward_names:
        value, valid = data.reward(name)
        sums = np.concatenate([[0.0], np.cumsum(value, dtype=np.float64)])
        found["returns"][name] = _mean(sums[episodes.first[own] + lengths] - sums[episodes.first[own]])
        found["unlabelled"][name] = int((~valid).sum())
    return found


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _print(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    title = f"{found['data']}: {', '.join(found['tasks'])}, {found['steps']:,} steps"
    title += f", {found['episodes']:,} episodes ({found['unfinished']:,} unfinished), {found['shards']:,} shards"
    console.print(visible(title), style="bold", soft_wrap=True, markup=False)
    if found["never_closed"]:
        console.print(f"{len(found['never_closed'])} shards are being written, or their writers were killed")
    table = Table("policy", title="returns: mean sums over finished episodes", title_justify="left")
    rewards = list(dict.fromkeys(name for policy in found["policies"] for name in policy["returns"]))
    for name in ("steps", "episodes", "their length", "success", *map(visible, rewards)):
        table.add_column(name, justify="right")
    for policy in found["policies"]:
        made = policy["provenance"]
        words = [str(made[key]) for key in ("policy", "run", "step") if key in made]
        cells = [f"{policy['steps']:,}", f"{policy['finished_episodes']:,}", figure(policy["episode_steps"])]
        cells += [share(policy["success"]), *(figure(policy["returns"][name]) for name in rewards)]
        table.add_row(visible(" ".join(words)), *cells)
    console.print(table)
    sizes = Table("column", title="sizes", title_justify="left")
    for name in ("kilobytes", "bytes a step"):
        sizes.add_column(name, justify="right")
    total = sum(found["bytes"].values())
    for column, size in sorted([*found["bytes"].items(), ("all", total)], key=lambda item: -item[1]):
        sizes.add_row(visible(column), f"{size / 1000:,.1f}", f"{size / max(1, found['steps']):.2f}")
    console.print(sizes)
