"""Recording play into a data set: policies in shares, each on workers of its own, one shard a game."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from envs.data import EpisodeSeeds, GamesStep
from envs.datasets.columns import BLOCK_STEPS
from envs.datasets.manifest import OBS
from envs.protocols import GamesSpec, PolicyStep, SeedSource, State
from envs.replaying import DIGESTED_KEYS, Digests
from envs.spec import GamesConfig
from launch.errors import UserError
from launch.evaluation.policies import PolicySource

Job = TypeVar("Job")

_REPORTED_STEPS = 32
"""Steps of each game between two reports of progress."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What is to be recorded.

    What is played is a function of ``seed``, the number of workers and of games; a policy's noise in an episode depends
    on the episode's seeds alone.
    """

    data: Path
    """The new data set."""
    sources: tuple[PolicySource, ...]
    """The policies."""
    shares: tuple[float, ...]
    """How much of the steps each plays, in proportion."""
    games: GamesConfig
    """Which games, and the observations of them that are kept."""
    num_steps: int
    """Over all policies, workers and games."""
    num_workers: int = 2
    """Ray tasks that play side by side; 0 plays in this process."""
    games_per_worker: int = 16
    seed: int = 1
    """Chooses the episodes, none of which an evaluation plays."""
    deterministic: bool = False
    """Take the likeliest action instead of sampling."""

    def jobs(self) -> list[PlayJob]:
        """What each worker plays, one policy after the other."""
        workers, games = max(1, self.num_workers), self.games_per_worker
        found = []
        for policy, num_steps in enumerate(_split(self.num_steps, self.shares)):
            lengths = _split(num_steps, [1.0] * (workers * games))
            for worker in range(workers):
                own = tuple(length for length in lengths[worker::workers] if length)
                if own:
                    found.append(PlayJob(self, policy, worker, own))
        return found


@dataclass(frozen=True)
class PlayJob:
    """What one worker plays with one policy."""

    recording: Recording
    policy: int
    """Place among the sources."""
    worker: int
    lengths: tuple[int, ...]
    """Steps of each game."""


def _split(total: int, shares: Sequence[float]) -> list[int]:
    """Whole parts in proportion to shares, that add up to the total."""
    ends = np.round(np.cumsum(shares) / np.sum(shares) * total).astype(np.int64)
    return np.diff(ends, prepend=0).tolist()


def record(recording: Recording, on_steps: Callable[[int], None] = lambda steps: None) -> None:
    """Play and write everything down.

    What was recorded when this was interrupted stays, as a smaller data set.

    Args:
        recording: what is to be recorded.
        on_steps: called with how many steps more were played.

    Raises:
        UserError: the data set is there already, or a policy cannot play these games.
    """
    from envs.datasets import DatasetWriter, Manifest
    from envs.tasks import specs_of

    for source in recording.sources:
        _check_games(source, recording.games)
    spec = _games_spec(recording.games)
    provenance = [source.provenance() for source in recording.sources]
    try:
        manifest = Manifest.of_games(recording.games, specs_of(recording.games), spec.obs, provenance)
        writer = DatasetWriter.create(recording.data, manifest)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
    try:
        for steps in run_jobs(play, recording.jobs(), recording.num_workers):
            on_steps(steps)
    except BaseException:
        with suppress(ValueError):  # a shard is still being written: who adds columns will close it
            writer.repair()  # workers were ended before they closed their shards
        raise


def _games_spec(config: GamesConfig) -> GamesSpec:
    from envs.seeding import TrainingSeeds
    from envs.tasks import make

    num_games = len(config.task_ids)
    games = make(config, num_games, TrainingSeeds(0, 0, num_games))
    try:
        return games.spec
    finally:
        games.close()


def _check_games(source: PolicySource, games: GamesConfig) -> None:
    """A policy must see what it was made for.

    Raises:
        UserError: it would not.
    """
    for name in ("crop", "penalty_step", "character"):
        own, theirs = getattr(source.games, name), getattr(games, name)
        if own != theirs:
            raise UserError(f"policy {source.name} knows games with {name} {own}, and these have {theirs}")


# -- playing ------------------------------------------------------------------------------------------


class _Episodes:
    """Training seeds, until a game has played enough; restarts a game's noise with each of its episodes."""

    def __init__(self, seeds: SeedSource, noise: Any, num_games: int) -> None:
        self._seeds, self._noise = seeds, noise
        self.is_over = [False] * num_games
        self.begun: list[EpisodeSeeds | None] = [None] * num_games
        """Seeds of each game's running episode."""

    def next(self, game: int) -> EpisodeSeeds | None:
        seeds = None if self.is_over[game] else self._seeds.next(game)
        self.begun[game] = seeds
        if seeds is not None:
            self._noise.begin(game, seeds)
        return seeds

    def state_dict(self) -> State:
        return self._seeds.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._seeds.load_state_dict(state)


def play(job: PlayJob) -> Iterator[int]:
    """Play a job in this process, on one thread; yields how many steps more were written, now and then."""
    import torch

    from agents.evaluate import EpisodeNoise
    from envs.datasets import DatasetWriter
    from envs.seeding import TrainingSeeds
    from envs.tasks import make

    torch.set_num_threads(1)
    recording, num_games = job.recording, max(len(job.lengths), len(job.recording.games.task_ids))
    source = recording.sources[job.policy]
    stream = job.policy * max(1, recording.num_workers) + job.worker
    noise = EpisodeNoise(num_games, recording.seed)
    episodes = _Episodes(TrainingSeeds(recording.seed, stream, num_games), noise, num_games)
    keys = dict.fromkeys((*recording.games.obs_keys, *source.games.obs_keys, *DIGESTED_KEYS))
    games = make(recording.games.replace(obs_keys=tuple(keys)), num_games, episodes)
    try:
        seen = {key: games.spec.obs[key] for key in source.games.obs_keys}
        policy = source.build(replace(games.spec, obs=seen))
        with DatasetWriter.open(recording.data) as writer:
            shards = [_shard(writer, job, game, games.spec) for game in range(len(job.lengths))]
            recorder = _Recorder(shards, job, recording.games.obs_keys, episodes)
            obs, memory = games.reset(), policy.initial_state(num_games)
            recorder.begin()
            try:
                while recorder.is_playing:
                    own, mask = {key: obs[key] for key in seen}, games.action_mask
                    acted = policy.act(own, memory, mask, noise, deterministic=recording.deterministic)
                    recorder.observe(obs)
                    played = games.step(acted.actions)
                    recorder.write(acted, played)
                    obs, memory = played.obs, acted.recurrent_state
                    if memory is not None:
                        memory = np.where((played.terminated | played.truncated)[:, None], np.float32(0), memory)
                    if steps := recorder.take_steps():
                        yield steps
            finally:
                recorder.hand_over()
    finally:
        games.close()


def _shard(writer: Any, job: PlayJob, game: int, spec: GamesSpec) -> Any:
    """The shard of one game; its name sorts by policy, worker and game."""
    task = writer.manifest.task_ids.index(spec.tasks[game])
    return writer.shard(f"{job.policy:02d}-{job.worker:03d}-{game:04d}", task)


class _Recorder:
    """Writes what a job's games play, until each has played its steps.

    Args:
        shards: one a game.
        job: what is played.
        keys: observations that are kept.
        episodes: which are played.
    """

    def __init__(self, shards: Sequence[Any], job: PlayJob, keys: Sequence[str], episodes: _Episodes) -> None:
        self._shards, self._policy, self._keys, self._episodes = shards, job.policy, keys, episodes
        self._copied = tuple(dict.fromkeys((*keys, *DIGESTED_KEYS)))
        self._lengths = job.lengths
        self._playing = list(range(len(shards)))
        self._digests = Digests(len(shards))
        self._rows: dict[str, np.ndarray] = {}
        """Steps that the shards have not got yet, ``{column: [B, BLOCK_STEPS, ...]}``."""
        self._row = 0
        """Of the next step, in every game."""
        self._given = [0] * len(shards)
        """Rows before this one the game's shard has."""
        self._calls = self._steps = 0

    @property
    def is_playing(self) -> bool:
        """A game has steps left to play."""
        return bool(self._playing)

    def begin(self) -> None:
        """Every game has begun its first episode."""
        for game in self._playing:
            self._shards[game].begin(self._episodes.begun[game])

    def observe(self, obs: Mapping[str, np.ndarray]) -> None:
        """Keep what is seen before an action: ``{key: [B, ...]}``, live buffers."""
        for key in self._copied:
            self._put(OBS + key, obs[key])

    def _put(self, column: str, values: np.ndarray) -> None:
        """Write a row of every game."""
        if column not in self._rows:
            self._rows[column] = np.empty((len(values), BLOCK_STEPS, *values.shape[1:]), values.dtype)
        self._rows[column][:, self._row] = values

    def write(self, acted: PolicyStep, played: GamesStep) -> None:
        """Write what became of the actions."""
        self._put("action", acted.actions)
        if acted.log_prob is not None:
            self._put("log_prob", acted.log_prob)
        self._put("reward", played.reward)
        for name in ("terminated", "truncated", "end_status"):
            self._put(name, getattr(played, name))
        self._row += 1
        self._calls += 1
        self._steps += len(self._playing)
        over = {game for game in self._playing if self._calls == self._lengths[game]}
        for game in self._playing:
            if game in played.final_obs:
                self._end(game, played.final_obs[game], over)
            elif game in over:
                self._end(game, {key: rows[game] for key, rows in played.obs.items()}, over)
        self._playing = [game for game in self._playing if game not in over]
        if self._row == BLOCK_STEPS:
            self.hand_over()
            self._row, self._given = 0, [0] * len(self._shards)

    def hand_over(self) -> None:
        """Let the shards of all games that play have what they were not given yet."""
        for game in self._playing:
            self._give(game)

    def _give(self, game: int) -> None:
        rows = slice(self._given[game], self._row)
        if rows.start == rows.stop:
            return
        self._given[game] = self._row
        own = {column: values[game, rows] for column, values in self._rows.items()}
        self._digests.add(game, {key: own[OBS + key] for key in DIGESTED_KEYS})
        self._shards[game].steps(
            policy=self._policy,
            log_prob=own.get("log_prob"),
            obs={key: own[OBS + key] for key in self._keys},
            **{name: own[name] for name in ("action", "reward", "terminated", "truncated", "end_status")},
        )

    def _end(self, game: int, last: Mapping[str, np.ndarray], over: Collection[int]) -> None:
        self._give(game)
        self._digests.add(game, last)
        self._shards[game].end(last, self._digests.take(game))
        if game in over:
            self._episodes.is_over[game] = True
        else:
            self._shards[game].begin(self._episodes.begun[game])

    def take_steps(self) -> int:
        """Steps since the last report, if it is time for one."""
        if self.is_playing and self._calls % _REPORTED_STEPS:
            return 0
        steps, self._steps = self._steps, 0
        return steps


# -- processes ----------------------------------------------------------------------------------------


def run_jobs(work: Callable[[Job], Iterator[int]], jobs: Iterable[Job], num_workers: int) -> Iterator[int]:
    """Work on jobs, so many at a time, each in a Ray task; yields what they yield.

    Args:
        work: a generator function, at the top of a module.
        jobs: what it is called with.
        num_workers: processes; 0 works in this one.

    Raises:
        UserError: as ``work``.
    """
    waiting = list(jobs)
    if num_workers == 0:
        for job in waiting:
            yield from work(job)
        return
    import ray

    from launch.processes.session import ray_session

    with ray_session(None, min(num_workers, len(waiting))):
        # Ray has a handler of its own, which ends the process without cleaning up.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        remote: Any = ray.remote(num_cpus=1, max_retries=0, num_returns="streaming")(work)
        running: list[Any] = [remote.remote(job) for job in waiting]
        while running:
            results: Any = ray.wait(running, num_returns=1)[0][0]
            try:
                steps: Any = ray.get(next(results))
                yield steps
            except StopIteration:
                running.remove(results)
            except UserError as error:  # Ray's text is a whole traceback; the cause is enough
                raise UserError(str(getattr(error, "cause", error))) from None
