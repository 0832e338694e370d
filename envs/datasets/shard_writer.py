"""Writing a shard while it is played."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from envs.data import EpisodeSeeds
from envs.datasets.columns import BLOCK_STEPS, Arrays, ColumnStream
from envs.datasets.manifest import (
    ENV_REWARD,
    EPISODE_FIELDS,
    EPISODES,
    EVENTS,
    LAST,
    OBS,
    REWARD,
    STEP_COLUMNS,
    FieldType,
    Manifest,
    ShardRecord,
    column_path,
    shard_folder,
    shard_lock,
)
from envs.datasets.shards import end_episodes


@dataclass
class _Episode:
    """The episode that is being played."""

    seeds: EpisodeSeeds
    first: int
    length: int = 0
    env_return: float = 0.0
    end_status: int = 0
    policy: int = 0
    over: bool = False
    """Its last step terminated or truncated it."""
    written: bool = False
    """That it began has been written."""


@dataclass
class _Block:
    """Rows that are not written yet."""

    steps: dict[str, Arrays]
    """``{column: {field: [BLOCK_STEPS, ...]}}``."""
    rows: int = 0
    episodes: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """Last observations of the episodes that ended since the block before, by key."""


class ShardWriter:
    """Writes what one game plays; made by ``DatasetWriter.shard``.

    Rows are handed to the operating system in blocks of ``BLOCK_STEPS``: a process that is killed loses its last,
    unwritten block and no more.
    """

    def __init__(
        self, data: Path, manifest: Manifest, name: str, task: int, on_close: Callable[[ShardRecord], None]
    ) -> None:
        self.name, self.closed = name, False
        self._data, self._task, self._on_close = data, task, on_close
        self._lock = shard_lock(data, name)
        self._lock.acquire()
        self._obs_keys = manifest.obs_keys
        self._tokens = [action.token for action in manifest.actions]
        self._keys = [action.key for action in manifest.actions]
        recorded = {name: fields for name, fields in manifest.columns.items() if _is_recorded(name)}
        self._streams = {
            column: ColumnStream(column_path(data, name, column), fields) for column, fields in recorded.items()
        }
        self._events = ColumnStream(column_path(data, name, EVENTS), EPISODE_FIELDS)
        self._block = _Block({name: _empty(f) for name, f in recorded.items() if _is_of_steps(name)})
        self._values = {name: arrays["value"] for name, arrays in self._block.steps.items()}
        self._block.steps[ENV_REWARD]["valid"][:] = True
        self._num_steps = 0
        self._episode: _Episode | None = None

    # ---- playing

    def begin(self, seeds: EpisodeSeeds | None) -> None:
        """An episode begins.

        Args:
            seeds: None where they are not known.

        Raises:
            ValueError: the one before was not ended.
        """
        if self._episode is not None:
            raise ValueError(f"shard '{self.name}': an episode began before the one before it was ended")
        self._episode = _Episode(seeds or EpisodeSeeds(-1, -1, -1), self._num_steps)

    def step(
        self,
        *,
        action: int,
        log_prob: float | None,
        policy: int,
        reward: float,
        terminated: bool,
        truncated: bool,
        end_status: int,
        obs: Mapping[str, np.ndarray],
    ) -> None:
        """One step of the running episode.

        Args:
            action: index in the action table; its token and its key are stored.
            log_prob: of the behaviour policy; None where it gives none.
            policy: place in ``Manifest.policies``.
            reward: the environment's own.
            terminated: the step ended the episode.
            truncated: a limit ended it.
            end_status: ``envs.data.EndStatus`` after the step.
            obs: ``{key: [...]}`` before the action, every key of the data set; others are left out.

        Raises:
            ValueError: no episode is running, or it was over before.
        """
        episode = self._episode
        if episode is None or episode.over:
            raise ValueError(f"shard '{self.name}': a step without a running episode")
        if self._block.rows == BLOCK_STEPS:
            self._flush()
        row, values = self._block.rows, self._values
        for key in self._obs_keys:
            values[OBS + key][row] = obs[key]
        values["action"][row] = self._tokens[action]
        values["key"][row] = self._keys[action]
        values["log_prob"][row] = math.nan if log_prob is None else log_prob
        values["policy"][row] = policy
        values["terminated"][row] = terminated
        values["truncated"][row] = truncated
        values["end_status"][row] = end_status
        values[ENV_REWARD][row] = reward
        if episode.length == 0:
            episode.policy = policy
        episode.length += 1
        episode.env_return += float(values[ENV_REWARD][row])
        episode.end_status, episode.over = int(end_status), bool(terminated or truncated)
        self._block.rows += 1
        self._num_steps += 1

    def steps(
        self,
        *,
        action: np.ndarray,
        log_prob: np.ndarray | None,
        policy: int,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        end_status: np.ndarray,
        obs: Mapping[str, np.ndarray],
    ) -> None:
        """Consecutive steps of the running episode; many at once cost little more than one.

        Args:
            action: int [n], indices in the action table.
            log_prob: float32 [n], of the behaviour policy; None where it gives none.
            policy: place in ``Manifest.policies``.
            reward: float32 [n], the environment's own.
            terminated: bool [n]; only the last step may end the episode.
            truncated: bool [n].
            end_status: int8 [n].
            obs: ``{key: [n, ...]}`` before each action, every key of the data set; others are left out.

        Raises:
            ValueError: no episode is running, or it was over before the last of them.
        """
        over = terminated | truncated
        episode, num = self._episode, len(action)
        if episode is None or episode.over or over[:-1].any():
            raise ValueError(f"shard '{self.name}': a step without a running episode")
        given = {
            "action": np.array(self._tokens)[action],
            "key": np.array(self._keys)[action],
            "log_prob": np.full(num, math.nan) if log_prob is None else log_prob,
            "policy": np.full(num, policy),
            "terminated": terminated,
            "truncated": truncated,
            "end_status": end_status,
            ENV_REWARD: reward,
            **{OBS + key: obs[key] for key in self._obs_keys},
        }
        start = 0
        while start < num:
            if self._block.rows == BLOCK_STEPS:
                self._flush()
            row = self._block.rows
            stop = min(num, start + BLOCK_STEPS - row)
            for name, rows in given.items():
                self._values[name][row : row + stop - start] = rows[start:stop]
            if episode.length == 0:
                episode.policy = policy
            episode.length += stop - start
            episode.env_return = sum(self._values[ENV_REWARD][row : row + stop - start].tolist(), episode.env_return)
            self._block.rows += stop - start
            self._num_steps += stop - start
            start = stop
        episode.end_status, episode.over = int(end_status[-1]), bool(over[-1])

    def end(self, last_obs: Mapping[str, np.ndarray], digest: int = -1) -> None:
        """The episode ends, or is left unfinished if its last step neither terminated nor truncated it.

        Args:
            last_obs: ``{key: [...]}`` after its last action.
            digest: of all its observations; -1: none.

        Raises:
            ValueError: it has no step.
        """
        episode, self._episode = self._episode, None
        if episode is None or episode.length == 0:
            raise ValueError(f"shard '{self.name}': an episode ended before its first step")
        self._block.episodes.append(self._row(episode, episode.length, digest))
        for key in self._obs_keys:
            self._block.last.setdefault(key, []).append(np.array(last_obs[key]))
        if self._block.rows == BLOCK_STEPS:
            self._flush()

    def _row(self, episode: _Episode, length: int, digest: int) -> dict[str, Any]:
        return {
            "seeds": episode.seeds,
            "first": episode.first,
            "length": length,
            "finished": episode.over,
            "end_status": episode.end_status,
            "env_return": episode.env_return,
            "policy": episode.policy,
            "task": self._task,
            "digest": digest,
        }

    # ---- files

    def _flush(self) -> None:
        """Write the block; episodes first, so that every step that is there has one."""
        block, episode = self._block, self._episode
        if episode is not None and episode.length > 0 and not episode.written:
            block.episodes.append(self._row(episode, -1, -1))
            episode.written = True
        self._events.append(
            {
                name: np.array([row[name] for row in block.episodes], kind.dtype).reshape(-1, *kind.shape)
                for name, kind in EPISODE_FIELDS.items()
            }
        )
        for key, rows in block.last.items():
            self._streams[LAST + key].append({"value": np.stack(rows, dtype=self._values[OBS + key].dtype)})
        for name, arrays in block.steps.items():
            self._streams[name].append({f: array[: block.rows] for f, array in arrays.items()})
        block.rows = 0
        block.episodes.clear()
        block.last.clear()

    def finish(self) -> ShardRecord | None:
        """Write what is left and close the files, without a word to the manifest; None: no step was played.

        A running episode is left as a killed writer would leave it: without its last observation.
        """
        if self._block.rows:
            self._flush()
        self.closed = True
        self._events.close()
        files = {name: stream.close() for name, stream in self._streams.items()}
        if self._num_steps:
            files[EPISODES] = end_episodes(self._data, self.name)
        else:
            shutil.rmtree(shard_folder(self._data, self.name))
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)
        return ShardRecord(num_steps=self._num_steps, files=files) if self._num_steps else None

    def close(self) -> None:
        """Write what is left, close the files and enter the shard into the manifest; a second time does no harm."""
        if not self.closed and (record := self.finish()) is not None:
            self._on_close(record)


def _is_of_steps(column: str) -> bool:
    return column in STEP_COLUMNS or column.startswith((OBS, REWARD))


def _is_recorded(column: str) -> bool:
    """Not a reward that is made later; and what is said of episodes comes into another file first."""
    return column == ENV_REWARD or (column != EPISODES and not column.startswith(REWARD))


def _empty(fields: Mapping[str, FieldType]) -> Arrays:
    return {name: np.zeros((BLOCK_STEPS, *kind.shape), kind.dtype) for name, kind in fields.items()}
