"""Data sets of recorded episodes (``yendor eval --record``): played again, since a record holds no observations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from envs.datasets import Dataset, DatasetWriter, Manifest
from envs.datasets.writer import ShardWriter
from envs.recording import EpisodeRecord
from envs.replaying import LoggedEpisode, Replay, Replayed
from envs.spec import GamesConfig
from envs.tasks import specs_of
from launch.config.flags import validate
from launch.config.resolve import saved_config
from launch.errors import UserError
from launch.runs.folder import read_record

_LANES = 16
"""Games that are played side by side, each of which makes a shard."""


def import_records(paths: Sequence[Path], data: Path, obs_keys: Sequence[str] = ()) -> Dataset:
    """Make a data set of records.

    Args:
        paths: of the records; all of one task. Those in a run's folder are played as that run knew its games.
        data: of the new data set.
        obs_keys: observations that are kept; none = those that the run knew, else the usual ones.

    Raises:
        ValueError: there is something at ``data``, or a record is damaged, of other games, or goes another way.
    """
    records = [read_record(path) for path in paths]
    config = _games_of(paths, records, obs_keys)
    labels = list(dict.fromkeys(path.parent for path in paths))
    places = [labels.index(path.parent) for path in paths]
    episodes = [_episode(path, record) for path, record in zip(paths, records, strict=True)]
    num_lanes = min(_LANES, len(paths))
    with Replay(config, [episodes[lane::num_lanes] for lane in range(num_lanes)]) as replay:
        if replay.spec.action_names != records[0].action_names:
            raise UserError(f"{paths[0]} is of another action table: {', '.join(records[0].action_names)}")
        policies = [_provenance(label) for label in labels]
        manifest = Manifest.of_games(config, specs_of(config), replay.spec.obs, policies)
        writer = DatasetWriter.create(data, manifest)
        try:
            with writer:
                lanes = [
                    _Lane(writer.shard(f"{lane:04d}"), episodes[lane::num_lanes], places[lane::num_lanes])
                    for lane in range(num_lanes)
                ]
                for chunk in replay.chunks():
                    _write(lanes, chunk)
        except BaseException:
            shutil.rmtree(data)
            raise
    return Dataset.open(data)


def _games_of(paths: Sequence[Path], records: Sequence[EpisodeRecord], obs_keys: Sequence[str]) -> GamesConfig:
    for path, record in zip(paths, records, strict=True):
        if (record.task, record.action_names) != (records[0].task, records[0].action_names):
            raise UserError(f"{path} is of {record.task}, and {paths[0]} of {records[0].task}: import them one by one")
    runs = {run: None for path in paths for run in path.absolute().parents if (run / "config.json").is_file()}
    if len(runs) > 1:
        raise UserError(f"the records are of several runs ({', '.join(map(str, runs))}): import them one by one")
    games = saved_config(next(iter(runs))).env if runs else GamesConfig()
    changes: dict[str, Any] = {"task": records[0].task, "features": ()}
    changes |= {"obs_keys": tuple(obs_keys)} if obs_keys else {}
    return validate(GamesConfig, games.model_dump() | changes)


def _episode(path: Path, record: EpisodeRecord) -> LoggedEpisode:
    return LoggedEpisode(
        name=str(path),
        seeds=record.seeds,
        actions=record.actions.astype(np.int64),
        rewards=record.env_reward,
        end_status=int(record.end_status[-1]),
    )


def _provenance(folder: Path) -> dict[str, Any]:
    """What evaluation says of the policy whose records are in a folder."""
    said = folder.parent.parent / f"{folder.name}.json"
    known = json.loads(said.read_text())["provenance"] if said.is_file() else {"policy": "unknown"}
    return {**known, "imported_from": folder.name}


class _Lane:
    """Writes a lane's episodes into its shard."""

    def __init__(self, shard: ShardWriter, episodes: Sequence[LoggedEpisode], policies: Sequence[int]) -> None:
        self._shard, self._coming = shard, list(zip(episodes, policies, strict=True))[::-1]
        self._policy = 0
        self._is_running = False

    def step(self, **step: Any) -> None:
        if not self._is_running:
            episode, self._policy = self._coming.pop()
            self._shard.begin(episode.seeds)
            self._is_running = True
        self._shard.step(log_prob=None, policy=self._policy, **step)

    def end(self, last: dict[str, np.ndarray], digest: int) -> None:
        self._shard.end(last, digest)
        self._is_running = False


def _write(lanes: Sequence[_Lane], chunk: Replayed) -> None:
    rollout = chunk.rollout
    ends = {(t, b): digest for (t, b), digest in zip(chunk.ends.tolist(), chunk.digests.tolist(), strict=True)}
    reached = {key: rollout.reached(key) for key in rollout.obs} if ends else {}
    for t, b in np.argwhere(chunk.logged).tolist():
        lanes[b].step(
            action=int(rollout.actions[t, b]),
            reward=float(rollout.env_reward[t, b]),
            terminated=bool(rollout.terminated[t, b]),
            truncated=bool(rollout.truncated[t, b]),
            end_status=int(rollout.end_status[t, b]),
            obs={key: rows[t, b] for key, rows in rollout.obs.items()},
        )
        if (t, b) in ends:
            lanes[b].end({key: rows[t, b] for key, rows in reached.items()}, ends[t, b])
