"""Classic control under a reward from ranked factors: the tasks, and the configuration of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from envs.data import Config
from launch.errors import UserError
from rewards.heron.config import ComparisonConfig, ModelConfig
from rewards.heron.factors import FactorTable


@dataclass(frozen=True, kw_only=True)
class ControlTask:
    """One environment and the settings of TD3 that learn its own reward."""

    env: str
    ranking: tuple[str, ...]
    """Factors, the most important first; see ``rewards.heron.config``."""
    goal: str
    """The one factor that the sparse reward pays."""
    steps: int
    """Environment steps of a run."""
    gamma: float
    noise_std: float
    """Standard deviation of what explores, an Ornstein-Uhlenbeck process; the range of actions is 2."""
    noise_steps: float
    """Steps that the noise persists for; 1 = none depends on the one before."""
    segment_steps: int
    """Length of the segments that HERON compares."""


TASKS: Mapping[str, ControlTask] = {
    task.env: task
    for task in (
        ControlTask(
            env="Pendulum-v1",
            # 1 - cos(angle) is 0 upright and 2 hanging.
            ranking=("-angle = 1 - obs[0]", "-speed = obs[2] * obs[2]", "-torque = action[0] * action[0]"),
            # Nothing ends a swing, so there is no success: upright to within 18 degrees stands in for it.
            goal="upright = obs[0] > 0.95",
            steps=20_000,
            gamma=0.98,
            noise_std=0.1,
            noise_steps=1,
            segment_steps=16,
        ),
        ControlTask(
            env="MountainCarContinuous-v0",
            # The valley's lowest point is at -0.5236. A time limit is no goal: it truncates.
            ranking=(
                "goal = info.terminated @ 0",
                "height = max(abs(obs[0] + 0.5236))",
                "-energy = action[0] * action[0]",
            ),
            goal="goal = info.terminated @ 0",
            steps=25_000,
            gamma=0.99,
            noise_std=0.9,
            noise_steps=27,
            segment_steps=32,
        ),
    )
}
"""``{gymnasium id: task}``."""

RewardName = Literal["heron", "weighted_sum", "powers_of_ten", "ensemble", "sparse", "true"]
"""heron: a model of what the tree prefers. weighted_sum, powers_of_ten: of the factors. ensemble: a policy for each
factor, whose actions are averaged. sparse: the goal alone. true: the environment's own."""


class ControlConfig(Config):
    """Train with one reward; the environment's own return is measured along the way, whatever is learned from."""

    reward: RewardName = "heron"
    """What the policy learns from. ensemble trains one policy a factor and averages their actions; true is the
    environment's own."""
    beta: PositiveFloat | None = None
    """weighted_sum: a factor weighs this power of its place: 1, beta, beta squared, ...; none = 0.3."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Of networks, exploration and training episodes; the evaluated episodes are the same for all."""
    steps: PositiveInt
    """Environment steps; an ensemble plays as many for each of its policies."""
    ranking: Annotated[tuple[str, ...], Field(min_length=1)]
    """Factors, the most important first: [-]NAME[=EXPRESSION][@MARGIN]."""
    goal: str
    """The one factor that reward=sparse pays."""
    evaluations: PositiveInt = 10
    """Times that the policy is evaluated, at equal distances; the last one is at the end."""
    episodes: PositiveInt = 20
    """Episodes of each evaluation, always the same ones."""
    segment_steps: PositiveInt
    """heron: steps of the segments that are compared."""
    update_steps: PositiveInt = 200
    """heron: environment steps between two updates of the reward model."""
    bound: Literal["none", "clip"] = "none"
    """heron: clip pays only fines, for what falls short of ``bound_at``, so that nothing is earned by going on."""
    bound_at: float = 3.0
    """heron: the threshold of bound=clip; the reward's mean is 0 and its standard deviation 1."""
    comparison: ComparisonConfig = ComparisonConfig()
    model: ModelConfig = ModelConfig(learning_rate=3e-3, pin=1e-3, publish_updates=1)


def control_defaults(task: ControlTask) -> ControlConfig:
    """What a task is run with unless something else is said."""
    return ControlConfig(
        steps=task.steps,
        ranking=task.ranking,
        goal=task.goal,
        segment_steps=task.segment_steps,
    )


_RANKED: tuple[RewardName, ...] = ("heron", "weighted_sum", "powers_of_ten", "ensemble")

_REWARDS_OF: Mapping[str, tuple[RewardName, ...]] = {
    "beta": ("weighted_sum",),
    "ranking": _RANKED,
    "goal": ("sparse",),
    "segment_steps": ("heron",),
    "update_steps": ("heron",),
    "bound": ("heron",),
    "bound_at": ("heron",),
    "comparison": ("heron",),
    "model": ("heron",),
}
"""Flags that have a meaning for some rewards only."""

_NOT_OF_VECTORS = ("inputs", "see_factors", "encoder", "caption_buckets")
"""What says how a model reads NetHack: here it reads the action and the whole observation before and after it."""


def check_control(config: ControlConfig, defaults: ControlConfig) -> None:
    """Refuse what cannot be run, before anything is.

    Args:
        config: what is asked for.
        defaults: the environment's; what differs from them was asked for.

    Raises:
        UserError: a ranking cannot be read, or a flag has no meaning for the reward or for these environments.
    """
    for name, rewards in _REWARDS_OF.items():
        if config.reward not in rewards and getattr(config, name) != getattr(defaults, name):
            raise UserError(f"{name} belongs to reward={' or '.join(rewards)}; the reward is {config.reward}")
    for name in _NOT_OF_VECTORS:
        if getattr(config.model, name) != getattr(defaults.model, name):
            raise UserError(f"model.{name} has no meaning here: the model reads the action and the observation vector")
    if config.steps < config.evaluations:
        raise UserError(f"{config.evaluations} evaluations do not fit into {config.steps} steps")
    for name, ranking in (("ranking", config.ranking), ("goal", (config.goal,))):
        try:
            FactorTable.from_ranking(ranking)
        except ValueError as error:
            raise UserError(f"{name}: {error}") from None
