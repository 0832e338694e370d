"""A run that learns to plan from logged play: its loop, and what its checkpoints hold.

A checkpoint's ``model`` are the weights that plan (running means); its state has the learner's own, everything that the
next update depends on, and a few logged windows, by which a planner knows how likely and how good logged plans are.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.config import ENCODED_KEYS
from agents.devices import device
from agents.offline import LoggedPlay, OfflineLearner, PlanningModel, logged_play
from agents.policy import weights_of
from envs.datasets.dataset import Dataset
from envs.datasets.manifest import EPISODES, OBS, REWARD
from envs.files import write_atomic
from envs.protocols import ObsSpec
from launch.config.flags import validate
from launch.config.resolve import saved_config
from launch.errors import RunError, UserError
from launch.offline.config import OfflineRunConfig
from launch.processes.lifecycle import StopRequest
from launch.runs import checkpoint as checkpoints
from launch.runs.folder import RunFolder, installed_versions, open_data, read_config
from launch.runs.metrics import MetricsWriter
from launch.runs.progress import Progress
from launch.training.run import SUMMARY_FILE, TrainSummary, weights_sha256

_NUM_WINDOWS = 512
"""Logged windows that a checkpoint keeps."""


def build_planning_model(config: OfflineRunConfig, obs_spec: Mapping[str, ObsSpec], num_actions: int) -> PlanningModel:
    """The networks, with weights that the run's seed fixes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return PlanningModel(config.head, config.critic, config.encoder, obs_spec, num_actions)


def prepared(config: OfflineRunConfig) -> tuple[OfflineRunConfig, Dataset]:
    """A run's configuration with nothing left to decide, and its data set.

    Raises:
        UserError: the data set has no such columns, or the encoder's run reads other observations.
    """
    data = open_data(config.data)
    if config.critic_from is not None:
        config = _with_critic_of(config)
    have = data.manifest.obs_keys
    keys = config.obs_keys or tuple(key for key in ENCODED_KEYS if key in have)
    if not keys:
        raise UserError(f"data set {config.data} has no observation that the networks read ({', '.join(ENCODED_KEYS)})")
    read = [REWARD + _reward(config), *(OBS + key for key in keys)]
    if config.learn.goals != "none" and "blstats" not in keys:
        raise UserError("learn.goals: goals are squares, which the networks read from blstats; add it to obs_keys")
    for name in read:
        if name not in data.columns:
            raise UserError(f"data set {config.data} has no column '{name}'; it has {', '.join(data.columns)}")
    config = config.replace(obs_keys=keys)
    if config.encoder_from is not None:
        source = saved_config(config.encoder_from)
        if set(source.env.obs_keys) != set(keys):
            raise UserError(
                f"encoder_from: {config.encoder_from} reads {', '.join(source.env.obs_keys)}, and this run "
                f"{', '.join(keys)}; both must read the same"
            )
        config = config.replace(encoder=source.model.encoder)
    return config.replace(data_sha256=_sha256_of(data, ["action", EPISODES, *read])), data


def _with_critic_of(config: OfflineRunConfig) -> OfflineRunConfig:
    assert config.critic_from is not None
    source = saved_offline_config(config.critic_from)
    if config.obs_keys not in (None, source.obs_keys) or config.encoder != source.encoder:
        raise UserError(
            f"critic_from: the critic of {config.critic_from} reads {', '.join(source.obs_keys or ())}, by an encoder "
            "of other sizes or keys; obs_keys and encoder must be the same here"
        )
    return config.replace(critic=source.critic, obs_keys=source.obs_keys)


def saved_offline_config(run: Path) -> OfflineRunConfig:
    """The configuration of an offline run.

    Raises:
        UserError: there is none, or the run is one that plays.
    """
    config = read_config(run)
    if "kind" not in config:
        raise UserError(f"{run} is no offline run; 'yendor train --resume {run}' goes on with it")
    return validate(OfflineRunConfig, config)


def _sha256_of(data: Dataset, columns: Sequence[str]) -> str:
    """Of what is learned from: columns that were added later make no other data set of it."""
    files = {
        name: {column: shard.files[column].sha256 for column in columns if column in shard.files}
        for name, shard in data.manifest.shards.items()
    }
    return hashlib.sha256(json.dumps([files, data.num_steps], sort_keys=True).encode()).hexdigest()


def _reward(config: OfflineRunConfig) -> str:
    """The reward column that is read: goals are rewarded by themselves."""
    return "env" if config.critic.reward == "goal" else config.critic.reward


def _play(config: OfflineRunConfig, data: Dataset) -> LoggedPlay:
    try:
        return logged_play(data, config.obs_keys or (), _reward(config), config.learn.best_share)
    except ValueError as error:
        raise UserError(str(error)) from None


def learn(
    config: OfflineRunConfig,
    data: Dataset,
    folder: RunFolder,
    progress: Progress,
    stop: StopRequest,
    *,
    resume: bool = False,
) -> TrainSummary:
    """Learn until ``config.total_updates`` or until asked to stop, then save.

    Args:
        config: as ``prepared``.
        data: the data set.
        folder: the run's, locked by this process.
        progress: shows metrics.
        stop: checked between updates.
        resume: go on from the newest valid checkpoint.

    Raises:
        RunError: a gradient is not finite; the newest checkpoint is the one before.
        UserError: the data set does not fit the configuration, or is another one than the run began with.
    """
    torch.set_num_threads(config.threads)
    play = _play(config, data)
    run = _Run(config, data, play, folder, progress)
    if resume:
        saved = checkpoints.load_latest(folder.path, progress.note)
        if saved is not None:
            run.restore(saved)
    writer = MetricsWriter(
        folder.path,
        tensorboard=config.logging.tensorboard,
        resume_step=run.learner.updates if resume else None,
    )
    with writer:
        try:
            return run.until(stop, writer)
        except FloatingPointError as error:
            raise RunError(str(error)) from error


class _Run:
    """The loop; its steps are updates."""

    def __init__(
        self, config: OfflineRunConfig, data: Dataset, play: LoggedPlay, folder: RunFolder, progress: Progress
    ) -> None:
        self.config, self.folder, self.progress = config, folder, progress
        model, acting = (build_planning_model(config, play.obs_spec, play.num_actions) for _ in range(2))
        if config.encoder_from is not None:
            _take("encoder", config.encoder_from, model)
        if config.critic_from is not None:
            _take("critic", config.critic_from, model, acting)
        try:
            self.learner = OfflineLearner(
                model,
                config.learn,
                config.critic,
                play,
                device(config.device),
                config.seed,
                acting=acting,
                frozen_encoder=config.encoder_from is not None,
                frozen_critic=config.critic_from is not None,
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        self._fixed = {
            "games": data.manifest.games,
            "action_names": list(data.manifest.action_names),
            "obs_spec": {key: [list(s.shape), s.dtype.str] for key, s in play.obs_spec.items()},
            "legal": None if play.legal is None else play.legal.tolist(),
            "return_edges": self.learner.sampler.return_edges,
        }
        self._elapsed_before_s, self._started_s = 0.0, time.monotonic()
        self._last: dict[str, float] = {}

    @property
    def elapsed_s(self) -> float:
        return self._elapsed_before_s + time.monotonic() - self._started_s

    def restore(self, saved: checkpoints.Checkpoint) -> None:
        self.learner.load_state_dict(saved.state["learner"], saved.tensors["model"])
        self._elapsed_before_s = float(saved.state["elapsed_s"])
        self.folder.event("resumed", step=self.learner.updates, checkpoint=saved.path.name)
        self.progress.note(f"resumed at update {self.learner.updates:,} from {saved.path.name}")

    def until(self, stop: StopRequest, writer: MetricsWriter) -> TrainSummary:
        learner, when = self.learner, self.config.checkpoint
        began = line_updates = saved_updates = learner.updates
        line_s = saved_s = time.monotonic()
        sums: dict[str, float] = {}
        while learner.updates < self.config.total_updates and stop.signal is None:
            for name, value in learner.update(learner.updates / self.config.total_updates).items():
                sums[name] = sums.get(name, 0.0) + value
            now = time.monotonic()
            is_last = learner.updates == self.config.total_updates or stop.signal is not None
            if now - line_s >= self.config.logging.interval_s or is_last:
                since = learner.updates - line_updates
                self._last = {f"offline/{name}": total / since for name, total in sums.items()}
                self._last["time/updates_per_s"] = since / max(1e-9, now - line_s)
                self._last["time/elapsed_s"] = self.elapsed_s
                writer.write(learner.updates, self._last)
                self.progress.update(learner.updates, self._last)
                sums, line_s, line_updates = {}, now, learner.updates
            if when.interval_updates is not None:
                due = learner.updates - saved_updates >= when.interval_updates
            else:
                due = now - saved_s >= when.interval_s
            if due:
                self.save()
                saved_s, saved_updates = time.monotonic(), learner.updates
        if learner.updates > began:
            self.save()
        return self._finish(stop)

    def save(self) -> None:
        learner = self.learner
        state = {
            **self._fixed,
            "learner": learner.state_dict(),
            "elapsed_s": self.elapsed_s,
            "windows": self._windows(),
        }
        path = checkpoints.save(
            self.folder.path,
            learner.updates,
            {"model": weights_of(learner.acting)},
            state,
            keep=self.config.checkpoint.keep,
            versions=installed_versions(),
        )
        self.folder.event("checkpoint", step=learner.updates, path=path.name)

    def _windows(self) -> dict[str, Any]:
        """The same logged windows in every checkpoint."""
        batch = self.learner.sampler.draw(_NUM_WINDOWS, np.random.default_rng((self.config.seed, 6)))
        tensors = {
            **{f"obs.{key}": x for key, x in batch.obs.items()},
            **batch.condition,
            "plans": batch.plans,
            "weight": batch.weight,
            "critic_goal": batch.chunks.goal,
            "chunk": batch.chunks.chunk,
        }
        return {name: x.cpu().numpy() for name, x in tensors.items()}

    def _finish(self, stop: StopRequest) -> TrainSummary:
        summary = TrainSummary(
            steps=self.learner.updates,
            updates=self.learner.updates,
            elapsed_s=self.elapsed_s,
            weights_sha256=weights_sha256(weights_of(self.learner.acting)),
            metrics=self._last,
            stopped_by=None if stop.signal is None else stop.signal.name,
        )
        self.folder.event("stopped" if summary.stopped_by else "finished", step=self.learner.updates)
        text = json.dumps({**summary.__dict__, "metrics": dict(summary.metrics)}, indent=1)
        write_atomic(self.folder.path / SUMMARY_FILE, text)
        return summary


def _take(part: str, run: Path, *models: PlanningModel) -> None:
    """Give models the encoder or the critic of a run's newest checkpoint."""
    saved = checkpoints.load_latest(run, lambda text: None)
    if saved is None:
        raise UserError(f"{part}_from: run {run} has no checkpoint yet")
    prefix = f"{part}."
    weights = {
        name.removeprefix(prefix): torch.from_numpy(x)
        for name, x in saved.tensors["model"].items()
        if name.startswith(prefix)
    }
    for model in models:
        getattr(model, part).load_state_dict(weights)
