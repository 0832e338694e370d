"""Playing logged episodes once more, from their seeds and actions: what they showed can be made again.

Example:
    >>> lanes, shards = lanes_of(data, range(len(data.shards)))
    >>> with Replay(games_of(data, obs_keys=("glyphs",)), lanes) as replay:
    ...     for chunk in replay.chunks():
    ...         reward, memory = mix.score(chunk.rollout, memory)  # [T, B]; of use where chunk.logged
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from typing import Any, Self

import numpy as np

from envs.captions import CaptionTracker
from envs.data import EndStatus, EpisodeSeeds, FinalObs, GamesStep, Rollout
from envs.datasets.dataset import Dataset
from envs.protocols import State
from envs.spec import GamesConfig
from envs.tasks import make

DIGESTED_KEYS = ("glyphs", "blstats", "message")
"""Observation keys that an episode's digest is made of."""
NO_DIGEST = -1


class Digests:
    """Digests of the running episodes of B games: of every observation, the one after the last action included.

    Args:
        num_games: B.
    """

    def __init__(self, num_games: int) -> None:
        self._sums = [[0] * len(DIGESTED_KEYS) for _ in range(num_games)]

    def add(self, game: int, obs: Mapping[str, np.ndarray]) -> None:
        """The next observation of a game's episode, ``{key: [...]}``, or several, ``{key: [n, ...]}``.

        Other keys do not matter.
        """
        sums = self._sums[game]
        for i, key in enumerate(DIGESTED_KEYS):
            sums[i] = zlib.crc32(obs[key].data, sums[i])

    def add_rows(self, games: Iterable[int], obs: Mapping[str, np.ndarray]) -> None:
        """The next observations of several games' episodes, out of ``{key: [B, ...]}``."""
        glyphs, blstats, message = (obs[key] for key in DIGESTED_KEYS)
        crc = zlib.crc32
        for game in games:
            first, second, third = self._sums[game]
            self._sums[game] = [
                crc(glyphs[game].data, first),
                crc(blstats[game].data, second),
                crc(message[game].data, third),
            ]

    def take(self, game: int) -> int:
        """The digest of the episode, from 0 to 2**63 - 1; another one begins."""
        glyphs, *others = self._sums[game]
        self._sums[game] = [0] * len(DIGESTED_KEYS)
        return glyphs << 31 | zlib.crc32(np.array(others, np.uint32).tobytes()) >> 1


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedEpisode:
    """An episode of L steps, as far as it must be known to play it again."""

    name: str
    """For errors."""
    seeds: EpisodeSeeds
    actions: np.ndarray
    """int64 [L]: places among the actions of the games."""
    rewards: np.ndarray
    """float32 [L], the environment's own."""
    end_status: int
    """After the last action; ``RUNNING`` where the episode was left unfinished."""
    digest: int = NO_DIGEST
    """``Digests``; ``NO_DIGEST``: not known."""

    @property
    def end_statuses(self) -> np.ndarray:
        """int8 [L]: after each action."""
        found = np.zeros(len(self.actions), np.int8)
        found[-1] = self.end_status
        return found


def logged_episodes(data: Dataset, index: Sequence[int] | np.ndarray) -> list[LoggedEpisode]:
    """Episodes of a data set.

    Args:
        data: the data set.
        index: which.

    Raises:
        ValueError: the seeds of one of them are not known, or a file is damaged.
    """
    episodes, found = data.episodes, []
    for i in map(int, index):
        seeds = episodes.seeds_of(i)
        if min(seeds) < 0:
            raise ValueError(f"episode {i} of {data.path} cannot be played again: its seeds are not known")
        start = int(episodes.first[i])
        stop = start + int(episodes.length[i])
        found.append(
            LoggedEpisode(
                name=f"episode {i} of {data.path}",
                seeds=seeds,
                actions=data.read("action", start, stop).astype(np.int64),
                rewards=data.read("reward.env", start, stop),
                end_status=int(episodes.end_status[i]) if episodes.finished[i] else EndStatus.RUNNING,
                digest=int(episodes.digest[i]),
            )
        )
    return found


def lanes_of(data: Dataset, shards: Iterable[int]) -> tuple[list[list[LoggedEpisode]], list[int]]:
    """Shards as lanes of a ``Replay``, dealt so that each is played on its task.

    Args:
        data: the data set.
        shards: which, places in ``Dataset.shards``.

    Returns:
        The lanes; and the shard of each, -1 where a lane only fills up the row of tasks.

    Raises:
        ValueError: as ``logged_episodes``.
    """
    episodes = data.episodes
    by_task: list[list[int]] = [[] for _ in data.manifest.tasks]
    lanes = {-1: []}
    for shard in shards:
        own = np.flatnonzero(episodes.shard == shard)
        lanes[shard] = logged_episodes(data, own)
        by_task[int(episodes.task[own[0]])].append(shard)
    dealt = [shard for row in zip_longest(*by_task, fillvalue=-1) for shard in row]
    return [lanes[shard] for shard in dealt], dealt


def games_of(data: Dataset, **changes: object) -> GamesConfig:
    """The games that a data set was recorded in, seen otherwise.

    Args:
        data: the data set.
        changes: what is to be seen of them (``obs_keys``, ``crop``, ``features``, ``captions``).

    Raises:
        ValueError: the data set does not say, or these games are not what they were: their action table differs.
    """
    from envs.datasets.manifest import Manifest
    from envs.tasks import specs_of

    if not data.manifest.games:
        raise ValueError(f"{data.path} does not say how its games were configured: they cannot be played again")
    config = GamesConfig.model_validate(data.manifest.games | {"engine": "auto"}).replace(**changes)
    now = Manifest.of_games(config, specs_of(config), {})
    try:
        data.manifest.require(tasks=now.task_ids, actions=now.actions)
    except ValueError as error:
        raise ValueError(f"{data.path}: {error}") from None
    return config


# ---- playing


@dataclass(frozen=True, kw_only=True, eq=False)
class Replayed:
    """T steps of B lanes.

    Where ``logged`` is False, a lane has nothing left to play: what ``rollout`` shows there means nothing.
    """

    rollout: Rollout
    logged: np.ndarray
    """bool [T, B]."""
    ends: np.ndarray
    """int64 [N, 2]: (t, b) of the last logged step of each episode that ends here, in order of t, then b."""
    digests: np.ndarray
    """int64 [N]: of these episodes."""


class _LaneSeeds:
    """The episodes of each lane, one after the other."""

    def __init__(self, lanes: Sequence[Sequence[LoggedEpisode]]) -> None:
        self._left = [iter(lane) for lane in lanes]

    def next(self, game: int) -> EpisodeSeeds | None:
        episode = next(self._left[game], None)
        return None if episode is None else episode.seeds

    def state_dict(self) -> State:
        raise NotImplementedError("a replay is not saved")

    def load_state_dict(self, state: State) -> None:
        raise NotImplementedError("a replay is not saved")


class _Script:
    """What is to be played, and what must come of it: arrays [S, B], S the steps of the longest lane."""

    def __init__(self, lanes: Sequence[Sequence[LoggedEpisode]], filler: np.ndarray) -> None:
        self.lanes = lanes
        lengths = [sum(len(episode.actions) for episode in lane) for lane in lanes]
        self.num_steps = max(lengths, default=0)
        shape = (self.num_steps, len(lanes))
        self.logged = np.arange(self.num_steps)[:, None] < np.array(lengths)
        self.actions = np.tile(filler, (self.num_steps, 1))
        self.rewards = np.zeros(shape, np.float32)
        self.status = np.zeros(shape, np.int8)
        self.episode = np.zeros(shape, np.int64)
        """Place in the lane."""
        self.step = np.zeros(shape, np.int32)
        """Within the episode."""
        self.is_last = np.zeros(shape, bool)
        for b, lane in enumerate(lanes):
            if lane:
                self._write(b, lane)

    def _write(self, b: int, lane: Sequence[LoggedEpisode]) -> None:
        bounds = np.cumsum([0, *(len(episode.actions) for episode in lane)])
        for place, (episode, (start, stop)) in enumerate(zip(lane, pairwise(bounds.tolist()), strict=True)):
            if episode.end_status == EndStatus.RUNNING and place < len(lane) - 1:
                raise ValueError(f"{episode.name} was left unfinished: only the last one of a lane may be")
            rows = slice(start, stop)
            self.actions[rows, b], self.rewards[rows, b] = episode.actions, episode.rewards
            self.status[rows, b] = episode.end_statuses
            self.episode[rows, b], self.step[rows, b] = place, np.arange(stop - start)
            self.is_last[stop - 1, b] = True

    def check(self, t: int, played: GamesStep) -> None:
        """Compare what came of a step.

        Raises:
            ValueError: it was something else; names the episode and the step.
        """
        ends = np.where(self.logged[t], played.end_status, 0)
        differs = (ends != self.status[t]) | (np.where(self.logged[t], played.reward, 0) != self.rewards[t])
        if not differs.any():
            return
        b = int(np.flatnonzero(differs)[0])
        if ends[b] != self.status[t, b]:
            was, now = (EndStatus(int(status)).name for status in (self.status[t, b], ends[b]))
            raise _mismatch(self._episode(t, b), int(self.step[t, b]), f"is {now} after it, and was {was}")
        was, now = float(self.rewards[t, b]), float(played.reward[b])
        raise _mismatch(self._episode(t, b), int(self.step[t, b]), f"pays {now:g} for it, and paid {was:g}")

    def check_digest(self, t: int, b: int, digest: int) -> None:
        """Compare what an episode showed.

        Raises:
            ValueError: it was something else; names the episode.
        """
        episode = self._episode(t, b)
        if episode.digest not in (NO_DIGEST, digest):
            raise _mismatch(episode, int(self.step[t, b]), "has shown something else by then")

    def _episode(self, t: int, b: int) -> LoggedEpisode:
        return self.lanes[b][int(self.episode[t, b])]


def _mismatch(episode: LoggedEpisode, step: int, text: str) -> ValueError:
    return ValueError(
        f"{episode.name} does not replay: at step {step}, the game {text}; were NLE, MiniHack or the level changed?"
    )


class Replay:
    """Logged episodes that are played again, lanes side by side; to be used in a ``with`` block.

    Args:
        config: the games (``games_of``), with the observations and schema features that are wanted.
        lanes: B lanes, each of episodes that are played one after the other; only the last one of a lane may be
            unfinished. Lane b is played on task ``b % K`` of K.

    Raises:
        ValueError: an episode was left unfinished and is not the last one of its lane.
    """

    def __init__(self, config: GamesConfig, lanes: Sequence[Sequence[LoggedEpisode]]) -> None:
        keys = tuple(dict.fromkeys((*config.obs_keys, *DIGESTED_KEYS)))
        self._config = config
        self._games = make(config.replace(obs_keys=keys), len(lanes), _LaneSeeds(lanes))
        mask = self._games.action_mask
        self._script = _Script(lanes, np.zeros(len(lanes), np.int64) if mask is None else mask.argmax(1))
        shown = {key: self._games.spec.obs[key] for key in config.obs_keys}
        self.spec = replace(self._games.spec, obs=shown)
        """Of the games, as the rollouts show them."""

    @property
    def num_steps(self) -> int:
        """Logged steps of all lanes."""
        return int(self._script.logged.sum())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the games."""
        self._games.close()

    def chunks(self, num_steps: int = 64, *, captions: bool = False) -> Iterator[Replayed]:
        """Play, once, and check that every episode goes as it went.

        Args:
            num_steps: T of each chunk; the last one may be shorter.
            captions: also say what the captions are.

        Raises:
            ValueError: an episode goes another way than it went; names it and the step.
        """
        script, games = self._script, self._games
        tracker = CaptionTracker(games.num_games) if captions else None
        digests = Digests(games.num_games)
        obs = games.reset()
        for start in range(0, script.num_steps, num_steps):
            rows = slice(start, min(start + num_steps, script.num_steps))
            chunk = _Chunk(script, rows, self._config.obs_keys, obs, games.action_mask)
            for t in range(rows.start, rows.stop):
                digests.add_rows(np.flatnonzero(script.logged[t]).tolist(), obs)
                played = games.step(script.actions[t])
                script.check(t, played)
                obs = played.obs
                for b in np.flatnonzero(script.is_last[t]).tolist():
                    digests.add(b, played.final_obs.get(b) or {key: column[b] for key, column in obs.items()})
                    chunk.digests.append(digests.take(b))
                    script.check_digest(t, b, chunk.digests[-1])
                chunk.write(t, played, tracker)
            yield chunk.finish(tracker)


class _Chunk:
    """A chunk while it is played: steps ``rows`` of a script."""

    def __init__(
        self,
        script: _Script,
        rows: slice,
        keys: Sequence[str],
        obs: Mapping[str, np.ndarray],
        action_mask: np.ndarray | None,
    ) -> None:
        self.rows, self._script, self._mask = rows, script, action_mask
        self.digests: list[int] = []
        self._shape = (rows.stop - rows.start, script.logged.shape[1])
        T = self._shape[0]
        self._obs = {key: np.empty((T + 1, *obs[key].shape), obs[key].dtype) for key in keys}
        for key, column in self._obs.items():
            column[0] = obs[key]
        self._steps: dict[str, Any] = {}
        self._features: dict[str, np.ndarray] = {}
        self._final_at: list[tuple[int, int]] = []
        self._final_obs: list[Mapping[str, np.ndarray]] = []

    def write(self, t: int, played: GamesStep, tracker: CaptionTracker | None) -> None:
        row = t - self.rows.start
        for key, column in self._obs.items():
            column[row + 1] = played.obs[key]
        found = {
            "env_reward": played.reward,
            "terminated": played.terminated,
            "truncated": played.truncated,
            "end_status": played.end_status,
        }
        if tracker is not None:
            assert played.messages is not None, "games of NetHack give messages"
            ids, counts = tracker.observe(played.messages, played.terminated | played.truncated)
            found |= {"caption_id": ids, "caption_count": counts}
        _put(self._steps, found, row, self._shape)
        _put(self._features, played.features, row, self._shape)
        for b, final in sorted(played.final_obs.items()):
            self._final_at.append((row, b))
            self._final_obs.append(final)

    def finish(self, tracker: CaptionTracker | None) -> Replayed:
        script, rows = self._script, self.rows
        final = {
            key: np.stack([obs[key] for obs in self._final_obs]) if self._final_obs else column[:0, 0]
            for key, column in self._obs.items()
        }
        mask = None if self._mask is None else np.broadcast_to(self._mask, (self._shape[0], *self._mask.shape))
        rollout = Rollout(
            obs=self._obs,
            actions=script.actions[rows],
            final_obs=FinalObs(at=np.array(self._final_at, np.int64).reshape(-1, 2), obs=final),
            policy_version=np.zeros(self._shape, np.int64),
            episode_id=script.episode[rows] + (np.arange(self._shape[1]) << 40),
            step_in_episode=script.step[rows],
            action_mask=mask,
            new_captions={} if tracker is None else tracker.take_new(),
            features=self._features,
            **self._steps,
        )
        ends = np.argwhere(script.is_last[rows])
        return Replayed(
            rollout=rollout, logged=script.logged[rows], ends=ends, digests=np.array(self.digests, np.int64)
        )


def _put(columns: dict[str, np.ndarray], found: Mapping[str, np.ndarray], row: int, shape: tuple[int, int]) -> None:
    for name, values in found.items():
        if name not in columns:
            columns[name] = np.empty((shape[0], *values.shape), values.dtype)
        columns[name][row] = values
