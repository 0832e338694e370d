"""Classic control under rewards from ranked factors: Stable-Baselines3's TD3, HERON and what it is compared with.

    outcome = train_control(TASKS["Pendulum-v1"], control_defaults(TASKS["Pendulum-v1"]))

Every reward meets the same learner, the same network and the same evaluation: the environment's own return over listed
episodes, played without noise.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
from stable_baselines3 import TD3
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.evaluate import evaluate
from agents.sb3 import RewardReplayBuffer, RewardVecEnvWrapper, Sb3Policy
from agents.sb3.rewards import OnStep
from envs.data import EndStatus, EpisodeResult, FinalObs, Rollout
from envs.files import write_atomic
from envs.gym_games import GymnasiumGames
from envs.protocols import GamesSpec, Noise, Policy, PolicyStep, RewardModel
from envs.seeding import ListedSeeds, evaluation_seeds
from launch.errors import RunError, UserError
from launch.runs.folder import installed_versions
from rewards.bounded import bounded
from rewards.heron.columns import columns_of
from rewards.heron.config import PowersOfTenConfig, SumConfig, TreeConfig, WeightedSumConfig
from rewards.heron.factors import FactorError, FactorTable
from rewards.heron.heron_reward import FactorSum
from rewards.heron.online import OnlineHeron
from rewards.mix import EnvReward
from rewards.parts import PartConfig
from tests.benchmarks.control.config import ControlConfig, ControlTask, RewardName

_NUM_ENVS = 4
_WARMUP_STEPS = 1_000
_BATCH = 128
_LEARNING_RATE = 1e-3
_BUFFER_STEPS = 50_000
_LAYERS = (64, 64)
_DEFAULT_BETA = 0.3


@dataclass(frozen=True, kw_only=True)
class Paid:
    """What one policy learns from."""

    rewards: RewardModel
    on_step: OnStep | None = None
    figures: Callable[[], Mapping[str, float]] = dict
    """How a reward that learns is doing."""


@dataclass(kw_only=True)
class Outcome:
    """What a run came to; curves have one entry for each evaluation."""

    step: list[int] = field(default_factory=list)
    """Environment steps played by each policy."""
    env_return: list[list[float]] = field(default_factory=list)
    """The environment's own return of each listed episode."""
    ended: list[float] = field(default_factory=list)
    """Share of the episodes that ended by themselves: in MountainCar, at the goal."""
    figures: list[dict[str, float]] = field(default_factory=list)
    """Of the reward model, where one learns."""
    num_policies: int
    train_s: float = 0.0
    """Seconds of training, without evaluations."""

    def add(self, step: int, results: Sequence[EpisodeResult], figures: Mapping[str, float]) -> None:
        """One more evaluation."""
        self.step.append(step)
        self.env_return.append([result.env_return for result in results])
        self.ended.append(float(np.mean([result.end_status != EndStatus.ABORTED for result in results])))
        self.figures.append({name: float(value) for name, value in figures.items()})

    def as_json(self) -> dict[str, Any]:
        """Plain numbers, with the mean return of each evaluation."""
        means = [float(np.mean(returns)) for returns in self.env_return]
        curve = {"step": self.step, "env_return": means, "env_return_each": self.env_return, "ended": self.ended}
        return {"curve": curve, "figures": self.figures, "num_policies": self.num_policies, "train_s": self.train_s}


# -- what is paid -----------------------------------------------------------------------------------


def _sum(config: SumConfig) -> FactorSum:
    table = FactorTable.from_ranking(config.ranking)
    return FactorSum(table, config.weights(len(table.names)))


def _weighted_sum(config: ControlConfig, spec: GamesSpec) -> list[Paid]:
    beta = _DEFAULT_BETA if config.beta is None else config.beta
    return [Paid(rewards=_sum(WeightedSumConfig(ranking=config.ranking, beta=beta)))]


def _powers_of_ten(config: ControlConfig, spec: GamesSpec) -> list[Paid]:
    return [Paid(rewards=_sum(PowersOfTenConfig(ranking=config.ranking)))]


def _alone(factor: str, spec: GamesSpec) -> Paid:
    return Paid(rewards=_sum(WeightedSumConfig(ranking=(factor,))))


def _ensemble(config: ControlConfig, spec: GamesSpec) -> list[Paid]:
    return [_alone(factor, spec) for factor in config.ranking]


def _sparse(config: ControlConfig, spec: GamesSpec) -> list[Paid]:
    return [_alone(config.goal, spec)]


def _true(config: ControlConfig, spec: GamesSpec) -> list[Paid]:
    return [Paid(rewards=EnvReward())]


def _heron(config: ControlConfig, spec: GamesSpec) -> list[Paid]:
    tree = TreeConfig(
        ranking=config.ranking,
        segment_steps=config.segment_steps,
        comparison=config.comparison,
        model=config.model,
    )
    heron = OnlineHeron(tree, spec, config.update_steps, config.seed)
    rewards = bounded(heron, PartConfig(bound=config.bound, bound_at=config.bound_at))
    return [Paid(rewards=rewards, on_step=heron.observe, figures=heron.trainer.metrics)]


REWARDS: Mapping[RewardName, Callable[[ControlConfig, GamesSpec], list[Paid]]] = {
    "heron": _heron,
    "weighted_sum": _weighted_sum,
    "powers_of_ten": _powers_of_ten,
    "ensemble": _ensemble,
    "sparse": _sparse,
    "true": _true,
}
"""What each of a run's policies learns from: one policy, except for the ensemble."""


# -- who learns -------------------------------------------------------------------------------------


def learner(task: ControlTask, paid: Paid, seed: int) -> TD3:
    """TD3 that is paid by a reward of ours; what it replays is scored by the reward's newest version.

    Args:
        task: environment and settings.
        paid: the reward.
        seed: of networks, exploration and episodes.
    """
    makers = [lambda: gymnasium.make(task.env)] * _NUM_ENVS
    venv = RewardVecEnvWrapper(DummyVecEnv(makers), paid.rewards, on_step=paid.on_step)
    (num_actions,) = venv.action_space.shape or (0,)
    noise = _noise(num_actions, task.noise_std, task.noise_steps)
    model = TD3(
        "MlpPolicy",
        venv,
        learning_rate=_LEARNING_RATE,
        buffer_size=_BUFFER_STEPS,
        learning_starts=_WARMUP_STEPS,
        batch_size=_BATCH,
        gamma=task.gamma,
        train_freq=1,
        gradient_steps=-1,  # as many as environment steps
        action_noise=VectorizedActionNoise(noise, _NUM_ENVS),
        replay_buffer_class=RewardReplayBuffer,
        policy_kwargs={"net_arch": list(_LAYERS)},
        seed=seed,
        device="cpu",
    )
    # SB3's own logger would make a temporary folder at each call of learn.
    model.set_logger(Logger(None, []))
    assert isinstance(model.replay_buffer, RewardReplayBuffer)
    model.replay_buffer.attach(venv)
    return model


def _noise(num_actions: int, std: float, steps: float) -> OrnsteinUhlenbeckActionNoise:
    """Noise with that standard deviation, which forgets at the rate ``1 / steps``."""
    forgets = 1.0 / steps
    fresh = std * np.sqrt(1.0 - (1.0 - forgets) ** 2)
    return OrnsteinUhlenbeckActionNoise(np.zeros(num_actions), np.full(num_actions, fresh), theta=forgets, dt=1.0)


class AveragedPolicy:
    """Plays the mean of several policies' actions; of one, its actions.

    Args:
        policies: without memory, of continuous actions; at least one.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = tuple(policies)
        self.version = policies[0].version

    def initial_state(self, num_games: int) -> None:
        """No memory."""

    def act(
        self,
        obs: Mapping[str, np.ndarray],
        recurrent_state: np.ndarray | None,
        action_mask: np.ndarray | None,
        noise: Noise,
        *,
        deterministic: bool = False,
    ) -> PolicyStep:
        """Actions for observations ``{key: [B, ...]}``."""
        each = [p.act(obs, None, action_mask, noise, deterministic=deterministic).actions for p in self._policies]
        return PolicyStep(actions=np.mean(each, axis=0))


def games_spec(env: str) -> GamesSpec:
    """Observations and actions of an environment."""
    games = GymnasiumGames(env, 1, ListedSeeds([]))
    games.close()
    return games.spec


def check_columns(config: ControlConfig, env: str, spec: GamesSpec) -> None:
    """Refuse factors of what the environment does not show.

    Raises:
        UserError: names the column.
    """
    shown = {key: np.zeros((2, 1, *each.shape), each.dtype) for key, each in spec.obs.items()}
    nothing = np.zeros((1, 1), np.int64)
    blank = Rollout(
        obs=shown,
        actions=np.zeros((1, 1, *spec.action_shape), spec.action_dtype),
        env_reward=np.zeros((1, 1), np.float32),
        terminated=nothing > 0,
        truncated=nothing > 0,
        end_status=nothing.astype(np.int8),
        final_obs=FinalObs(at=np.zeros((0, 2), np.int64), obs={key: x[0, :0] for key, x in shown.items()}),
        policy_version=nothing,
        episode_id=nothing,
        step_in_episode=nothing.astype(np.int32),
    )
    try:
        for ranking in (config.ranking, (config.goal,)):
            columns_of(blank, FactorTable.from_ranking(ranking).columns)
    except ValueError as error:
        raise UserError(f"{env} cannot be ranked so: {error}") from None


def true_results(env: str, policy: Policy, num_episodes: int) -> list[EpisodeResult]:
    """The listed episodes, played without noise, in order of their seeds."""
    seeds = evaluation_seeds(num_episodes)
    played = evaluate(
        policy, lambda num, source: GymnasiumGames(env, num, source), seeds, num_games=num_episodes, deterministic=True
    )
    return sorted(played, key=lambda result: seeds.index(result.seeds) if result.seeds else -1)


def train_control(
    task: ControlTask, config: ControlConfig, say: Callable[[int, float], None] = lambda step, mean: None
) -> Outcome:
    """Train, and evaluate along the way.

    Args:
        task: the environment.
        config: everything else.
        say: told of each evaluation: steps and mean true return.

    Raises:
        ValueError: the ranking cannot be read, or reads what the environment does not show (``check_columns``).
        RunError: a factor cannot be computed, or a gradient is not finite.
    """
    try:
        return _train(task, config, say)
    except (FactorError, FloatingPointError) as error:
        raise RunError(str(error)) from error


def _train(task: ControlTask, config: ControlConfig, say: Callable[[int, float], None]) -> Outcome:
    torch.set_num_threads(1)
    spec = games_spec(task.env)
    paid = REWARDS[config.reward](config, spec)
    models = [learner(task, each, config.seed) for each in paid]
    policy = AveragedPolicy([Sb3Policy(model, spec) for model in models])
    outcome = Outcome(num_policies=len(models))
    for number in range(1, config.evaluations + 1):
        started = time.monotonic()
        for model in models:
            _train_to(model, config.steps * number // config.evaluations)
        outcome.train_s += time.monotonic() - started
        results = true_results(task.env, policy, config.episodes)
        figures = {name: value for each in paid for name, value in each.figures().items()}
        outcome.add(models[0].num_timesteps, results, figures)
        say(outcome.step[-1], float(np.mean(outcome.env_return[-1])))
    for model in models:
        venv = model.get_env()
        assert venv is not None
        venv.close()
    return outcome


def _train_to(model: TD3, steps: int) -> None:
    """Go on until so many environment steps were played."""
    model.learn(
        steps - model.num_timesteps,
        reset_num_timesteps=model.num_timesteps == 0,
        log_interval=None,  # pyright: ignore[reportArgumentType]  # nothing is logged, so nothing is due
    )


def write_result(path: Path, env: str, config: ControlConfig, outcome: Outcome, command: str) -> None:
    """One JSON file with everything that a run came to, whole or not at all."""
    result = {
        "command": command,
        "env": env,
        "config": config.model_dump(),
        "versions": installed_versions() | {"stable-baselines3": stable_baselines3.__version__},
        "finished_at": time.time(),
        **outcome.as_json(),
    }
    write_atomic(path, json.dumps(result))
