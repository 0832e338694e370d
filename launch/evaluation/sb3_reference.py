"""A known-good learner beside ours: Stable-Baselines3's PPO with our network, hyper-parameters and games.

SB3's code is left as it is. What is the same by construction: network and its initial distribution, Adam's
epsilon, advantages normalised in each minibatch, no clipping of values, gradient norm, the games and the
seeds of their episodes (each worker's, in one process). What differs: SB3's fp32 arithmetic, its own random
numbers for weights, actions and minibatches, and that it has no ``ppo.advantage_std_floor``.

The run folder is that of a training run: ``metrics.jsonl`` under the same names and a checkpoint of the
weights as ours (no pickle), so that ``yendor eval`` and ``yendor report`` take it; SB3's own ``model.zip`` is
there too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import stable_baselines3
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from agents.devices import device
from agents.sb3 import GamesVecEnv, RewardVecEnvWrapper, actor_critic_weights, network_kwargs
from envs.data import EpisodeSeeds
from envs.files import write_atomic
from envs.protocols import State
from envs.seeding import TrainingSeeds
from launch.config.train_config import TrainConfig
from launch.errors import UserError
from launch.processes.lifecycle import StopRequest
from launch.processes.wiring import build_games, build_rewards
from launch.runs import checkpoint as checkpoints
from launch.runs.folder import RunFolder, installed_versions
from launch.runs.metrics import MetricsWriter, WindowedEpisodes
from launch.runs.progress import Progress
from launch.training.run import SUMMARY_FILE, TrainSummary, weights_sha256
from rewards.config import PartConfig

MODEL_FILE = "model.zip"
_METRICS: Mapping[str, tuple[str, float]] = {
    "train/policy_gradient_loss": ("policy/policy_loss", 1.0),
    "train/value_loss": ("policy/value_loss", 1.0),
    "train/entropy_loss": ("policy/entropy", -1.0),
    "train/approx_kl": ("policy/approx_kl", 1.0),
    "train/clip_fraction": ("policy/clip_fraction", 1.0),
    "train/explained_variance": ("policy/explained_variance", 1.0),
}
"""SB3's names and ours, and the factor between them. (SB3 reports the KL of the last epoch alone.)"""


class WorkerSeeds:
    """The episodes of several rollout workers, for their games side by side in one process.

    Args:
        seed: the run's seed.
        num_workers: streams 0 ...
        games_per_worker: games of each.
    """

    def __init__(self, seed: int, num_workers: int, games_per_worker: int) -> None:
        self._workers = [TrainingSeeds(seed, stream, games_per_worker) for stream in range(num_workers)]
        self._games_per_worker = games_per_worker

    def next(self, game: int) -> EpisodeSeeds:
        """Seeds of this game's next episode."""
        worker, own = divmod(game, self._games_per_worker)
        return self._workers[worker].next(own)

    def state_dict(self) -> State:
        """Where each worker stands."""
        return {"workers": [worker.state_dict() for worker in self._workers]}

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        for worker, own in zip(self._workers, state["workers"], strict=True):
            worker.load_state_dict(own)


def check_reference(config: TrainConfig) -> None:
    """Refuse what SB3's PPO cannot do.

    Raises:
        UserError: a reward beside the environment's weighs something, or the network has memory.
    """
    for name, (_, part) in config.reward.paid.items():
        if name != "env":
            raise UserError(
                f"the reference learns from the environment's reward alone: reward.{name}.weight is {part.weight}, "
                "allowed: 0"
            )
    if config.model.core != "none":
        raise UserError(f"the reference has no memory: model.core is '{config.model.core}', allowed: none")


def reference_env(config: TrainConfig) -> VecEnv:
    """The run's games in this process, paying what the run's rewards say.

    Raises:
        UserError: the tasks have different actions, which SB3's policies cannot express.
    """
    num_workers, each = config.num_rollouts, config.rollout.games_per_worker
    games = build_games(config, num_workers * each, WorkerSeeds(config.seed, num_workers, each))
    try:
        venv = GamesVecEnv(games)
    except ValueError as error:
        games.close()
        raise UserError(f"env.task: {error}") from None
    if config.reward.env == PartConfig():
        return venv
    return RewardVecEnvWrapper(venv, build_rewards(config, games.spec))


def reference_ppo(config: TrainConfig, venv: VecEnv, policy_kwargs: dict[str, Any] | None = None) -> PPO:
    """SB3's PPO as the configuration says.

    Args:
        config: hyper-parameters, and the network where ``policy_kwargs`` give none.
        venv: the games.
        policy_kwargs: of SB3's policy; None = our network.
    """
    ppo = config.ppo
    # SB3 counts the batch at hand as done, we do not.
    batch = config.batch_steps / config.total_steps
    schedules: Mapping[str, Any] = {
        "none": ppo.learning_rate,
        "linear": lambda remaining: ppo.learning_rate * min(1.0, remaining + batch),
    }
    model = PPO(
        "MultiInputPolicy",
        venv,
        learning_rate=schedules[ppo.anneal],
        n_steps=config.rollout.num_steps,
        batch_size=ppo.minibatch,
        n_epochs=ppo.epochs,
        gamma=config.reward.extrinsic.gamma,
        gae_lambda=ppo.gae_lambda,
        clip_range=ppo.clip,
        clip_range_vf=None,
        normalize_advantage=ppo.normalise_advantage,
        ent_coef=ppo.entropy,
        vf_coef=ppo.value,
        max_grad_norm=ppo.max_grad_norm,
        policy_kwargs=network_kwargs(config.model) if policy_kwargs is None else policy_kwargs,
        seed=config.seed,
        device=device(config.device),
    )
    # SB3's own logger would make a temporary folder at each call of learn.
    model.set_logger(Logger(None, []))
    return model


def train_reference(config: TrainConfig, folder: RunFolder, progress: Progress, stop: StopRequest) -> TrainSummary:
    """Train SB3's PPO until ``config.total_steps`` or until asked to stop, and save it.

    Raises:
        UserError: the configuration asks for what SB3's PPO cannot do.
    """
    check_reference(config)
    torch.set_num_threads(config.threads)
    venv = reference_env(config)
    writer = MetricsWriter(folder.path, tensorboard=config.logging.tensorboard)
    try:
        model = reference_ppo(config, venv)
        metrics = ReferenceMetrics(config.logging.interval_s, writer, progress, stop)
        model.learn(config.total_steps, metrics, log_interval=None)  # pyright: ignore[reportArgumentType]
        return _save(config, folder, model, metrics, stop)
    finally:
        writer.close()
        venv.close()


class ReferenceMetrics(BaseCallback):
    """Writes what SB3 does under our metrics' names, between updates.

    Args:
        interval_s: seconds between lines.
        writer: takes the lines.
        progress: shows them.
        stop: checked at each step.
    """

    def __init__(self, interval_s: float, writer: MetricsWriter, progress: Progress, stop: StopRequest) -> None:
        super().__init__()
        self._interval_s, self._writer, self._shown, self._stop = interval_s, writer, progress, stop
        self._episodes = WindowedEpisodes()
        self._times = {"collect_s": 0.0, "learn_s": 0.0}
        self._started_s = self._line_s = self._mark_s = time.monotonic()
        self._line_steps = self._line_updates = 0
        self._is_learning = False
        self.updates = 0
        self.last: dict[str, float] = {}

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started_s

    def _on_rollout_start(self) -> None:
        self._after_update()
        is_due = time.monotonic() - self._line_s >= self._interval_s
        if is_due and self.updates > self._line_updates:
            self._write_line()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "result" in info:
                self._episodes.add([info["result"]])
        return self._stop.signal is None

    def _on_rollout_end(self) -> None:
        self._times["collect_s"] += self._lap()
        self._is_learning = True

    def _on_training_end(self) -> None:
        self._after_update()
        if self.updates > self._line_updates:
            self._write_line()

    def _after_update(self) -> None:
        if self._is_learning:
            self._times["learn_s"] += self._lap()
            self.updates += 1
            self._is_learning = False
        self._lap()

    def _lap(self) -> float:
        before, self._mark_s = self._mark_s, time.monotonic()
        return self._mark_s - before

    def _write_line(self) -> None:
        now, updates, steps = time.monotonic(), self.updates - self._line_updates, self.model.num_timesteps
        theirs = self.model.logger.name_to_value
        metrics = {ours: sign * float(theirs[name]) for name, (ours, sign) in _METRICS.items() if name in theirs}
        metrics |= self._episodes.metrics()
        metrics |= {f"time/{name}": seconds / max(1, updates) for name, seconds in self._times.items()}
        metrics["time/steps_per_s"] = (steps - self._line_steps) / max(1e-9, now - self._line_s)
        metrics["time/elapsed_s"] = self.elapsed_s
        self._writer.write(steps, metrics)
        self._shown.update(steps, metrics)
        self._times = dict.fromkeys(self._times, 0.0)
        self._line_s, self._line_steps, self._line_updates = now, steps, self.updates
        self.last = metrics


def _save(
    config: TrainConfig, folder: RunFolder, model: PPO, metrics: ReferenceMetrics, stop: StopRequest
) -> TrainSummary:
    weights = actor_critic_weights(model.policy)
    steps = model.num_timesteps
    model.save(folder.path / MODEL_FILE)
    checkpoints.save(
        folder.path,
        steps,
        {"model": weights},
        {"steps": steps, "updates": metrics.updates, "learner": "stable-baselines3 PPO"},
        keep=config.checkpoint.keep,
        versions=installed_versions() | {"stable-baselines3": stable_baselines3.__version__},
    )
    summary = TrainSummary(
        steps=steps,
        updates=metrics.updates,
        elapsed_s=metrics.elapsed_s,
        weights_sha256=weights_sha256(weights),
        metrics=metrics.last,
        stopped_by=None if stop.signal is None else stop.signal.name,
    )
    folder.event("stopped" if summary.stopped_by else "finished", step=steps)
    write_atomic(folder.path / SUMMARY_FILE, json.dumps(asdict(summary), indent=1))
    return summary
