"""Columns that are made by playing a data set again: rewards of runs and programs, observations; and the check of it.

A column is written shard by shard, each by one process, and published when every shard has it: what was interrupted
goes on where it stopped, and no reader sees half of a column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from envs.datasets import Dataset, DatasetWriter
from envs.datasets.manifest import LAST, OBS, REWARD, FieldType
from envs.protocols import GamesSpec
from envs.replaying import Replay, games_of, lanes_of, logged_episodes
from launch.config.resolve import saved_config
from launch.config.train_config import TrainConfig
from launch.errors import UserError
from launch.offline.recording import run_jobs
from launch.runs import checkpoint as checkpoints

if TYPE_CHECKING:
    from rewards.auto.program import Program
    from rewards.mix import RewardMix

_LANES = 16
"""Games that a process plays side by side."""
_REWARD_STEPS, _OBS_STEPS = 256, 64
"""Steps of each game in a chunk. Rewards that look at the next step have no answer for the last one of a chunk."""


class RewardSource(Protocol):
    """Says which rewards a log is to be labelled with, and builds them in whichever process plays it again."""

    @property
    def columns(self) -> Mapping[str, str]:
        """``{part of the reward: name of its column}``."""
        ...

    @property
    def seen(self) -> Mapping[str, Any]:
        """What games must show to be scored: fields of ``GamesConfig``."""
        ...

    def check(self, data: Dataset) -> None:
        """Refuse data that the rewards are not for.

        Raises:
            UserError: they are of other games.
        """
        ...

    def build(self, spec: GamesSpec) -> RewardMix:
        """The rewards, for games that are played again."""
        ...

    def provenance(self) -> dict[str, Any]:
        """What a reader of the column needs to find the rewards again."""
        ...


@dataclass(frozen=True)
class RunRewards:
    """The rewards of a training run, as they were at a checkpoint; use ``of`` to choose it.

    Columns hold what parts pay, before they are normalised and weighted. A caption that the run had no label for has no
    valid entry.
    """

    path: Path
    step: int
    config: TrainConfig
    parts: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, step: int | None = None) -> RunRewards:
        """The run's newest valid checkpoint, or the one of a step.

        Raises:
            UserError: there is no run, no such checkpoint, or it pays nothing but the environment's own reward.
        """
        from launch.evaluation.policies import RunSource

        source = RunSource.of(path, step)
        config = saved_config(path)
        if all(name == "env" for name in config.reward.paid):
            raise UserError(f"run {path} was paid the environment's own reward and nothing else, which 'env' holds")
        moments = checkpoints.load(_checkpoint(path, source.step)).state["placement"]["common"]["mix"]["moments"]
        return cls(path, source.step, config, tuple(name for name in moments if name != "env"))

    @property
    def columns(self) -> Mapping[str, str]:
        """``part@step``."""
        return {part: f"{part}@{self.step}" for part in self.parts}

    @property
    def seen(self) -> Mapping[str, Any]:
        """As the run saw its games."""
        env = self.config.env
        return {
            "obs_keys": env.obs_keys,
            "crop": env.crop,
            "captions": env.captions,
            "features": self.config.features,
        }

    def check(self, data: Dataset) -> None:
        """The data must be of the run's tasks."""
        if data.manifest.task_ids != self.config.env.task_ids:
            trained, logged = ", ".join(self.config.env.task_ids), ", ".join(data.manifest.task_ids)
            raise UserError(f"the rewards of run {self.path} are of {trained}, and {data.path} is of {logged}")

    def build(self, spec: GamesSpec) -> RewardMix:
        """The run's rewards, with all that they had learned."""
        import torch

        from agents.policy import encoding
        from launch.processes.wiring import build_model, build_rewards, given_to_rewards

        saved = checkpoints.load(_checkpoint(self.path, self.step))
        weights = saved.tensors["model"]
        model = build_model(self.config, spec, len(weights["value.bias"])).eval()
        model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        given = given_to_rewards(self.config, self.path)
        mix = build_rewards(self.config, spec, "relabel", given, encoding(model, "fp32"))
        mix.load_state_dict(saved.state["placement"]["common"]["mix"])
        return mix

    def provenance(self) -> dict[str, Any]:
        """Run, step, and how the rewards were configured."""
        return {
            "made_by": "run",
            "run": self.path.name,
            "step": self.step,
            "train_seed": self.config.seed,
            "reward": {name: part.model_dump(mode="json") for name, (_, part) in self.config.reward.paid.items()},
        }


def _checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"{step:012d}"


@dataclass(frozen=True)
class ProgramRewards:
    """What a reward program pays, composed as by default (``rewards.auto.config.CompositionConfig``)."""

    program: Program
    gamma: float = 0.99
    """Discount, for programs whose dense components are a potential."""

    @property
    def columns(self) -> Mapping[str, str]:
        """``program:sha``, and ``program:sha/component`` for what each component pays."""
        from rewards.auto.config import ProgramConfig
        from rewards.auto.program_reward import ProgramReward

        names = ProgramReward((self.program,), ProgramConfig()).part_names
        paid = [name for name in names if not name.endswith("/raw")]
        return {name: f"program:{self.program.sha[:12]}{name.removeprefix('program')}" for name in paid}

    @property
    def seen(self) -> Mapping[str, Any]:
        """The columns that the program reads."""
        return {"obs_keys": ("blstats",), "features": self.program.needed_columns}

    def check(self, data: Dataset) -> None:
        """A program may read any game."""

    def build(self, spec: GamesSpec) -> RewardMix:
        """The program, contained.

        Raises:
            UserError: it would be less isolated than it must be.
        """
        from rewards.auto.config import ProgramConfig
        from rewards.auto.program_kind import check_isolation
        from rewards.auto.program_reward import ProgramReward
        from rewards.mix import Ingredient, RewardMix
        from rewards.parts import StreamConfig

        config = ProgramConfig(code=self.program.sha, weight=1.0)
        try:
            check_isolation(config.containment)
        except ValueError as error:
            raise UserError(str(error)) from None
        reward = ProgramReward((self.program,), config, gamma=self.gamma, scorer="relabel")
        return RewardMix([Ingredient(model=reward, config=config)], {config.stream: StreamConfig(gamma=self.gamma)})

    def provenance(self) -> dict[str, Any]:
        """The program itself."""
        return {"made_by": "program", "sha": self.program.sha, "source": self.program.source, "gamma": self.gamma}


# -- columns ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardsJob:
    """Shards for which columns are made by one process."""

    data: Path
    shards: tuple[str, ...]
    columns: Mapping[str, str]
    """``{what they are made of: name of the column}``; those that a shard has already are left as they are."""
    source: RewardSource | None = None
    """None: observations."""


def relabel(
    path: Path, source: RewardSource, num_workers: int = 2, on_steps: Callable[[int], None] = lambda steps: None
) -> list[str]:
    """Add reward columns to a data set by playing it again.

    Args:
        path: the data set.
        source: the rewards.
        num_workers: Ray tasks; 0 plays in this process.
        on_steps: called with how many steps more were played.

    Returns:
        Names of the new columns.

    Raises:
        UserError: the rewards are of other games, there are such columns already, or an episode does not replay.
    """
    with _as_user_error():
        data = _whole(path)
        source.check(data)
        names = [REWARD + name for name in source.columns.values()]
        _check_new(data, names)
        jobs = _jobs(data, source.columns, names, num_workers, source)
        for steps in run_jobs(relabel_shards, jobs, num_workers):
            on_steps(steps)
        with DatasetWriter.open(path) as writer:
            for part, name in source.columns.items():
                writer.publish_reward(name, source.provenance() | {"part": part})
    return list(source.columns.values())


def relabel_shards(job: ShardsJob) -> Iterator[int]:
    """Score shards in this process; yields how many steps more were scored."""
    import torch

    torch.set_num_threads(1)
    assert job.source is not None, "rewards are made of something"
    with _as_user_error(), _Columns(job, job.source.seen, None) as columns:
        mix = job.source.build(columns.replay.spec)
        try:
            memory = mix.initial_state(len(columns.replay.spec.tasks))
            for chunk in columns.replay.chunks(_REWARD_STEPS, captions=True):
                output, memory = mix.score(chunk.rollout, memory)
                for part, name in job.columns.items():
                    scored = output.parts[part]
                    columns.append(REWARD + name, chunk.logged, scored.value, scored.valid)
                yield int(chunk.logged.sum())
        finally:
            mix.close()


def observe(
    path: Path, keys: Sequence[str], num_workers: int = 2, on_steps: Callable[[int], None] = lambda steps: None
) -> None:
    """Add observation keys to a data set by playing it again; they are what recording them would have given.

    Args:
        path: the data set.
        keys: of the observations.
        num_workers: Ray tasks; 0 plays in this process.
        on_steps: called with how many steps more were played.

    Raises:
        UserError: there are such columns already, or an episode does not replay.
    """
    with _as_user_error():
        data = _whole(path)
        names = [prefix + key for key in keys for prefix in (OBS, LAST)]
        _check_new(data, names)
        jobs = _jobs(data, {key: key for key in keys}, names, num_workers)
        for steps in run_jobs(observe_shards, jobs, num_workers):
            on_steps(steps)
        with Replay(games_of(data, obs_keys=tuple(keys)), [[]] * len(data.manifest.tasks)) as replay:
            kinds = {key: FieldType.of(spec) for key, spec in replay.spec.obs.items()}
        with DatasetWriter.open(path) as writer:
            for key, kind in kinds.items():
                writer.publish_observation(key, kind)


def observe_shards(job: ShardsJob) -> Iterator[int]:
    """Write observations of shards in this process; yields how many steps more were written."""
    keys = tuple(job.columns)
    with _as_user_error(), _Columns(job, {"obs_keys": keys}, keys) as columns:
        for chunk in columns.replay.chunks(_OBS_STEPS):
            for key in keys:
                columns.append(OBS + key, chunk.logged, chunk.rollout.obs[key][:-1])
                columns.append_last(key, chunk.ends, chunk.rollout.reached(key))
            yield int(chunk.logged.sum())


class _Columns:
    """The columns of a job while its shards are played again; to be used in a ``with`` block."""

    def __init__(self, job: ShardsJob, seen: Mapping[str, Any], keys: Sequence[str] | None) -> None:
        data = Dataset.open(job.data)
        places = [place for place, shard in enumerate(data.shards) if shard.name in job.shards]
        lanes, dealt = lanes_of(data, places)
        self.replay = Replay(games_of(data, **seen), lanes)
        self._stack = ExitStack()
        self._stack.callback(self.replay.close)
        self._shards = ["" if shard < 0 else data.shards[shard].name for shard in dealt]
        writer = self._stack.enter_context(DatasetWriter.open(job.data))
        kinds: dict[str, FieldType | None] = {REWARD + name: None for name in job.columns.values()}
        if keys is not None:
            obs = {key: FieldType.of(self.replay.spec.obs[key]) for key in keys}
            kinds = {prefix + key: kind for key, kind in obs.items() for prefix in (OBS, LAST)}
        self._writers = {
            (shard, column): self._stack.enter_context(writer.column(shard, column, kind))
            for column, kind in kinds.items()
            for shard in set(writer.lacking(column)).intersection(job.shards)
        }

        self._num_lasts: Counter[tuple[str, str]] = Counter()

    def __enter__(self) -> _Columns:
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def append(self, column: str, logged: np.ndarray, values: np.ndarray, valid: np.ndarray | None = None) -> None:
        """Write rows [T, B, ...] where they are of logged steps (bool [T, B])."""
        for b, shard in enumerate(self._shards):
            writer = self._writers.get((shard, column))
            if writer is not None:
                on = logged[:, b]
                writer.append(values[on, b], None if valid is None else valid[on, b])

    def append_last(self, key: str, ends: np.ndarray, reached: np.ndarray) -> None:
        """Write the observations [T, B, ...] that steps reached where episodes end, (t, b)."""
        for b, shard in enumerate(self._shards):
            writer = self._writers.get((shard, LAST + key))
            if writer is not None:
                # What a killed writer was playing ends the shard, and nobody has seen how it went on.
                found = reached[ends[ends[:, 1] == b, 0], b]
                writer.append(found[: writer.num_rows - self._num_lasts[shard, key]])
                self._num_lasts[shard, key] += len(found)


def _whole(path: Path) -> Dataset:
    """A data set, after what killed writers left of their shards was closed."""
    with DatasetWriter.open(path) as writer:
        writer.repair()
    return Dataset.open(path)


def _check_new(data: Dataset, names: Sequence[str]) -> None:
    for name in names:
        if name in data.manifest.columns:
            raise UserError(f"{data.path} has a column '{name}' already; 'yendor offline drop' removes one")


def _jobs(
    data: Dataset,
    columns: Mapping[str, str],
    names: Sequence[str],
    num_workers: int,
    source: RewardSource | None = None,
) -> list[ShardsJob]:
    """Shards that lack one of the columns of these names, in groups that are played side by side."""
    with DatasetWriter.open(data.path) as writer:
        lacking = sorted({shard for name in names for shard in writer.lacking(name)})
    size = min(_LANES, -(-len(lacking) // max(1, num_workers))) or 1
    groups = [tuple(lacking[start : start + size]) for start in range(0, len(lacking), size)]
    return [ShardsJob(data.path, group, columns, source) for group in groups]


@contextmanager
def _as_user_error() -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None


# -- check --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was played again and found to be as it was."""

    episodes: int
    steps: int
    columns: tuple[str, ...]
    """Observation columns that were compared, row by row, beside rewards, endings and digests."""


def verify(
    path: Path, num_episodes: int, seed: int = 0, on_steps: Callable[[int], None] = lambda steps: None
) -> Verified:
    """Compare every file with its SHA-256, and play a sample of the episodes again.

    Args:
        path: the data set.
        num_episodes: how many are played, at most.
        seed: chooses them.
        on_steps: called with how many steps more were played.

    Raises:
        UserError: a file is damaged, or an episode does not replay; names it, and the step.
    """
    with _as_user_error():
        data = Dataset.open(path, verify=True)
        config = games_of(data, obs_keys=data.manifest.obs_keys or ("blstats",))
        lanes = _sampled_lanes(data, num_episodes, seed)
        starts = [np.concatenate([_steps_of(data, i) for i in lane] or [np.zeros(0, np.int64)]) for lane in lanes]
        total = 0
        with Replay(config, [logged_episodes(data, lane) for lane in lanes]) as replay:
            at = 0
            for chunk in replay.chunks(_OBS_STEPS):
                for b, rows in enumerate(starts):
                    _compare(data, chunk.rollout.obs, b, rows[at : at + _OBS_STEPS])
                at += _OBS_STEPS
                total += int(chunk.logged.sum())
                on_steps(int(chunk.logged.sum()))
        return Verified(
            episodes=sum(map(len, lanes)), steps=total, columns=tuple(OBS + key for key in data.manifest.obs_keys)
        )


def _sampled_lanes(data: Dataset, num_episodes: int, seed: int) -> list[list[int]]:
    """Episodes drawn, lane by lane; those left unfinished end lanes, so that there is room for one in each."""
    episodes, num_tasks = data.episodes, len(data.manifest.tasks)
    drawn = np.random.default_rng(seed).permutation(len(episodes))[:num_episodes]
    rows = max(1, _LANES // num_tasks)
    lanes: list[list[int]] = [[] for _ in range(rows * num_tasks)]
    for task in range(num_tasks):
        own = lanes[task::num_tasks]
        of_task = drawn[episodes.task[drawn] == task]
        for place, i in enumerate(of_task[episodes.finished[of_task]].tolist()):
            own[place % rows].append(i)
        for lane, i in zip(own, of_task[~episodes.finished[of_task]].tolist(), strict=False):
            lane.append(i)
    return lanes


def _steps_of(data: Dataset, episode: int) -> np.ndarray:
    first = int(data.episodes.first[episode])
    return np.arange(first, first + int(data.episodes.length[episode]))


def _compare(data: Dataset, obs: Mapping[str, np.ndarray], b: int, rows: np.ndarray) -> None:
    """What a lane showed, and what the log says that it did."""
    for key in data.manifest.obs_keys if len(rows) else ():
        logged = data.take(OBS + key, rows)
        differs = (logged != obs[key][: len(rows), b]).reshape(len(rows), -1).any(1)
        if differs.any():
            step = int(rows[np.flatnonzero(differs)[0]])
            episode = int(data.episode_of(np.array([step]))[0])
            raise UserError(
                f"episode {episode} of {data.path} does not replay: at step {step - int(data.episodes.first[episode])}"
                f", the game shows other {key}; were NLE, MiniHack or the level changed?"
            )
