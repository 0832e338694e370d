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
from envs.spec import OBS_KEYS
from launch.commands.programs import ArchiveFlags, admitted
from launch.config.flags import AsJson, validate
from launch.errors import UserError, unknown_name
from launch.runs.folder import open_data
from launch.show import figure, share, visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from envs.datasets import Dataset
    from envs.spec import GamesConfig
    from launch.evaluation.policies import PolicySource
    from launch.offline.relabel import RewardSource


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
    from launch.evaluation.policies import RunSource, Sb3Source
    from launch.offline.planning import PlannerSource
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


# -- further columns ----------------------------------------------------------------------------------


class RelabelFlags(ArchiveFlags):
    """Add reward columns to a data set: what a run's rewards, or a reward program, pay for what was logged.

    yendor offline relabel DATA --reward-of RUN
    yendor offline relabel DATA --program SHA

    The log is played again. Columns are called heron@STEP, oni@STEP, ... or program:SHA, and hold what was paid before
    it is normalised and weighted.
    """

    data: CliPositionalArg[Path]
    """A data set."""
    reward_of: Path | None = None
    """A training run."""
    checkpoint: Annotated[int, Field(ge=0)] | None = None
    """Step of its checkpoint; none = the newest valid one."""
    program: str = ""
    """The SHA or the file of a reward program."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that play side by side; 0 plays in this one."""


def relabel(flags: RelabelFlags) -> int:
    """Add the columns, and say what is there now."""
    from launch.offline.relabel import relabel as relabel_data

    source = _rewards(flags)
    with _progress(str(flags.data), open_data(flags.data).num_steps) as on_steps:
        relabel_data(flags.data, source, flags.workers, on_steps)
    return show(ShowFlags(data=flags.data))


def _rewards(flags: RelabelFlags) -> RewardSource:
    from launch.offline.relabel import ProgramRewards, RunRewards
    from rewards.auto.program import ProgramRejectedError

    if (flags.reward_of is None) == (not flags.program):
        raise UserError("name one of --reward-of RUN and --program SHA")
    if flags.reward_of is not None:
        return RunRewards.of(flags.reward_of, flags.checkpoint)
    try:
        return ProgramRewards(admitted(flags.program, flags.archive))
    except ProgramRejectedError as error:
        raise UserError(f"--program: {flags.program} is not admitted: {error}") from None


class ObserveFlags(Config):
    """Add observations to a data set by playing it again; they are what recording them would have given."""

    data: CliPositionalArg[Path]
    """A data set."""
    keys: tuple[str, ...] = ()
    """Observation keys."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that play side by side; 0 plays in this one."""


def observe(flags: ObserveFlags) -> int:
    """Add the columns, and say what is there now."""
    from launch.offline.relabel import observe as observe_data

    if not flags.keys:
        raise UserError("--keys is missing: name the observations to add")
    for key in flags.keys:
        if key not in OBS_KEYS:
            raise unknown_name("observation key", key, OBS_KEYS)
    with _progress(str(flags.data), open_data(flags.data).num_steps) as on_steps:
        observe_data(flags.data, tuple(dict.fromkeys(flags.keys)), flags.workers, on_steps)
    return show(ShowFlags(data=flags.data))


class DropFlags(Config):
    """Remove columns of a data set that can be made again: observations, and rewards but the environment's own."""

    data: CliPositionalArg[Path]
    """A data set."""
    columns: tuple[str, ...] = ()
    """obs.KEY or reward.NAME."""


def drop(flags: DropFlags) -> int:
    """Remove the columns, and say what is left."""
    from envs.datasets import DatasetWriter

    open_data(flags.data)
    try:
        with DatasetWriter.open(flags.data) as writer:
            for column in flags.columns:
                writer.drop(column)
    except ValueError as error:
        raise UserError(str(error)) from None
    return show(ShowFlags(data=flags.data))


# -- verify -------------------------------------------------------------------------------------------


class VerifyFlags(Config):
    """Check a data set: every file's SHA-256, and a sample of its episodes, which are played again."""

    data: CliPositionalArg[Path]
    """A data set."""
    episodes: Annotated[int, Field(ge=0)] = 200
    """Episodes that are played again, at most."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another one draws other episodes."""


def verify(flags: VerifyFlags) -> int:
    """Check, and say what was compared."""
    from launch.offline.relabel import verify as verify_data

    open_data(flags.data)
    found = verify_data(flags.data, flags.episodes, flags.seed)
    compared = ", ".join(["rewards, endings and digests", *found.columns])
    sys.stdout.write(
        f"{flags.data}: every closed file is as it was written; {found.episodes:,} episodes of {found.steps:,} steps, "
        f"played again, are as they were ({compared})\n"
    )
    return 0


# -- interchange --------------------------------------------------------------------------------------


class ImportFlags(Config):
    """Make a data set of what others kept.

    yendor offline import DATA EPISODE.npz ...     (records of 'yendor eval --record', played again)
    yendor offline import DATA MINARI              (a data set of Minari, of HDF5 files; extra 'minari')

    Recordings of terminals (ttyrec3, and Katakomba's, which are made of them) cannot be imported: they hold neither
    glyphs nor the numbers of the bottom line, and nothing could tell seeds from them.
    """

    data: CliPositionalArg[Path]
    """Folder of the new data set."""
    sources: CliPositionalArg[tuple[Path, ...]] = ()
    """Records of episodes (.npz), or one Minari data set."""
    obs_keys: tuple[str, ...] = ()
    """Observations that are kept of records; none = those that the run knows, else the usual ones."""


def import_(flags: ImportFlags) -> int:
    """Import, and say what there is."""
    if not flags.sources:
        raise UserError("offline import needs the records of episodes (.npz), or a Minari data set")
    if any(path.name.endswith(".bz2") or "ttyrec" in path.name for path in flags.sources):
        raise UserError(
            f"{flags.sources[0]}: recordings of terminals hold neither glyphs nor seeds; they are no play "
            "that can be learned from here"
        )
    records = [path for path in flags.sources if path.suffix == ".npz"]
    try:
        if len(records) == len(flags.sources):
            from launch.offline.records import import_records

            import_records(records, flags.data, flags.obs_keys)
        elif len(flags.sources) == 1:
            from envs.datasets.minari import import_minari

            import_minari(flags.sources[0].absolute(), flags.data)
        else:
            raise UserError("offline import takes records of episodes (.npz), or one Minari data set")
    except ValueError as error:
        raise UserError(str(error)) from None
    return show(ShowFlags(data=flags.data))


class ExportFlags(Config):
    """Write a data set as HDF5 files that Minari reads, for other offline learners (extra 'minari')."""

    data: CliPositionalArg[Path]
    """A data set."""
    to: CliPositionalArg[Path]
    """Folder of the new Minari data set."""


def export(flags: ExportFlags) -> int:
    """Export."""
    from envs.datasets.minari import export_minari

    data = open_data(flags.data)
    try:
        export_minari(data, flags.to.absolute())
    except ValueError as error:
        raise UserError(str(error)) from None
    sys.stdout.write(f"{flags.to}: {data.num_steps:,} steps, {len(data.episodes):,} episodes\n")
    return 0


# -- show ---------------------------------------------------------------------------------------------


class ShowFlags(Config):
    """Say what is in a data set: steps, episodes, returns by policy and by reward column, and sizes."""

    data: CliPositionalArg[Path]
    """A data set."""
    as_json: AsJson = False
    """Print it for programs."""


def show(flags: ShowFlags) -> int:
    """Print the figures of a data set."""
    data = open_data(flags.data)
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
    rewards = {name: data.reward(name) for name in manifest.reward_names}
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
        "policies": [_policy(data, place, rewards) for place in range(len(manifest.policies))],
        "rewards": manifest.rewards,
        "unlabelled": {name: int((~valid).sum()) for name, (_, valid) in rewards.items()},
        "bytes": sizes,
    }


def _policy(data: Dataset, place: int, rewards: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """What one policy played: episodes that it began, and their mean sums of each reward column."""
    episodes = data.episodes
    own = np.flatnonzero((episodes.policy == place) & episodes.finished)
    first, lengths = episodes.first[own], episodes.length[own]
    returns = {}
    for name, (value, _) in rewards.items():
        sums = np.concatenate([[0.0], np.cumsum(value, dtype=np.float64)])
        returns[name] = _mean(sums[first + lengths] - sums[first])
    return {
        "provenance": data.manifest.policies[place],
        "steps": int(episodes.length[episodes.policy == place].sum()),
        "finished_episodes": len(own),
        "episode_steps": _mean(lengths),
        "success": _mean(episodes.end_status[own] == EndStatus.TASK_SUCCESSFUL),
        "returns": returns,
    }


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _name(policy: Mapping[str, Any]) -> str:
    made = policy["provenance"]
    return visible(" ".join(str(made[key]) for key in ("policy", "run", "step") if key in made))


def _print(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    title = f"{found['data']}: {', '.join(found['tasks'])}, {found['steps']:,} steps"
    title += f", {found['episodes']:,} episodes ({found['unfinished']:,} unfinished), {found['shards']:,} shards"
    console.print(visible(title), style="bold", soft_wrap=True, markup=False)
    if found["never_closed"]:
        console.print(f"{len(found['never_closed'])} shards are being written, or their writers were killed")
    policies = Table("policy", title="policies; means over finished episodes", title_justify="left")
    for name in ("steps", "episodes", "their length", "success"):
        policies.add_column(name, justify="right")
    for policy in found["policies"]:
        cells = [f"{policy['steps']:,}", f"{policy['finished_episodes']:,}", figure(policy["episode_steps"])]
        policies.add_row(_name(policy), *cells, share(policy["success"]))
    console.print(policies)
    returns = Table(title="mean returns of finished episodes", title_justify="left")
    returns.add_column("column", overflow="fold")
    for name in (*map(_name, found["policies"]), "steps without"):
        returns.add_column(name, justify="right")
    for name, missing in found["unlabelled"].items():
        cells = [figure(policy["returns"][name]) for policy in found["policies"]]
        returns.add_row(visible(name), *cells, f"{missing:,}")
    console.print(returns)
    sizes = Table("column", title="sizes", title_justify="left")
    for name in ("kilobytes", "bytes a step"):
        sizes.add_column(name, justify="right")
    total = sum(found["bytes"].values())
    for column, size in sorted([*found["bytes"].items(), ("all", total)], key=lambda item: -item[1]):
        sizes.add_row(visible(column), f"{size / 1000:,.1f}", f"{size / max(1, found['steps']):.2f}")
    console.print(sizes)
