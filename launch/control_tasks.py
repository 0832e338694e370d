"""The classic control tasks: what their factors are, and how Stable-Baselines3 learns them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
