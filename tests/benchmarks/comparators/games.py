"""Speed of the games alone beside ``gymnasium.make``: random actions, episodes and resets included.

    gymnasium-N             N environments of ``gymnasium.make`` in each process, stepped in turn, with the
                            observation keys that its users get
    gymnasium-N-few-keys    ... with the keys that we observe, and no others

Ours are those of ``launch.bench.games``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from pydantic import PositiveInt

from envs.registered import registered_ids
from launch.bench.games import EnvBench, SteppedGames, random_actions
from launch.bench.harness import System, SystemSpec, compare
from launch.errors import UserError
from tests.benchmarks.comparators.gym_environments import cheap_keys, gym_env


class EnvComparison(EnvBench):
    """Steps per second of the games alone, ours beside gymnasium's, measured in turn."""

    gymnasium: tuple[PositiveInt, ...] = ()
    """Numbers of gymnasium environments in each process, stepped in turn; none = as many as ``games``."""

    def all_specs(self) -> list[SystemSpec]:
        """Ours and gymnasium's.

        Raises:
            UserError: the task cannot be played, or is not a registered one.
        """
        keys = cheap_keys(self.task)
        specs = self.specs(keys)
        check_registered(self.task)
        for n in self.gymnasium or self.games:
            specs.append(self.parallel(f"gymnasium-{n}", self._loop(None, n), is_reference=True))
            specs.append(self.parallel(f"gymnasium-{n}-few-keys", self._loop(keys, n), is_reference=True))
        return specs

    def _loop(self, obs_keys: tuple[str, ...] | None, num_games: int) -> Callable[[str, int], SystemSpec]:
        return lambda name, process: GymLoop(name, self.task, obs_keys, num_games, self.seed, process)


def check_registered(task: str) -> None:
    """Refuse tasks that gymnasium does not have.

    Raises:
        UserError: it is one of ours.
    """
    if task not in registered_ids():
        raise UserError(f"task '{task}' is Yendor's own: gymnasium has nothing to compare it with")


def measure(flags: EnvComparison) -> tuple[str, dict[str, Any]]:
    """The table, and all that was measured."""
    return compare(flags.all_specs(), flags.rounds, flags.seconds)


@dataclass(frozen=True)
class GymLoop:
    """So many environments of ``gymnasium.make``, stepped in turn and reset where they end."""

    name: str
    task: str
    obs_keys: tuple[str, ...] | None
    """None = the environment's own choice, which is what its users get."""
    num_games: int
    seed: int
    stream: int = 0
    is_reference: bool = True

    def build(self) -> System:
        """In this process."""
        arguments = {} if self.obs_keys is None else {"observation_keys": self.obs_keys}
        envs = [gym_env(self.task, **arguments) for _ in range(self.num_games)]
        for env in envs:
            env.reset()

        def step(actions: np.ndarray) -> None:
            for env, action in zip(envs, actions.tolist(), strict=True):
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    env.reset()

        def close() -> None:
            for env in envs:
                env.close()

        space = envs[0].action_space
        assert isinstance(space, Discrete)
        return SteppedGames(step, close, random_actions(int(space.n), self.num_games, self.seed, self.stream))
