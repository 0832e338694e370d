"""Games alone under random actions, in one process: ours, and a loop over ``gymnasium.make``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from envs.spec import GamesConfig
from launch.bench.contender import Contender, Round

_BLOCK_STEPS = 256
"""Steps, over all games, between looks at the clock (at least one of each game)."""
_WARM_UP_BLOCKS = 16


@dataclass(frozen=True)
class OurGames:
    """``NetHackVector`` with so many games."""

    name: str
    config: GamesConfig
    num_games: int
    seed: int
    stream: int = 0
    """Which process this is: each plays games of its own."""
    is_reference: bool = False

    def build(self) -> Contender:
        """In this process."""
        from envs.seeding import TrainingSeeds
        from envs.tasks import make

        games = make(self.config, self.num_games, TrainingSeeds(self.seed, self.stream, self.num_games))
        games.reset()
        actions = random_actions(games.spec.num_actions, self.num_games, self.seed, self.stream)
        return SteppedGames(games.step, games.close, actions)


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

    def build(self) -> Contender:
        """In this process."""
        from gymnasium.spaces import Discrete

        from launch.bench.gym_reference import gym_env

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


def random_actions(num_actions: int, num_games: int, seed: int, stream: int) -> np.ndarray:
    """Uniform actions int64 [4096, B]."""
    return np.random.default_rng((seed, stream)).integers(num_actions, size=(4096, num_games))


class SteppedGames:
    """Anything that plays one action in every game, driven by prepared actions, over and over.

    Args:
        step: plays actions [B].
        close: ends the games.
        actions: [K, B].
    """

    def __init__(self, step: Callable[[np.ndarray], object], close: Callable[[], None], actions: np.ndarray) -> None:
        self._step, self.close, self._actions = step, close, actions
        self._num_games = actions.shape[1]
        self._length = max(1, _BLOCK_STEPS // self._num_games)
        self._at = 0

    def warm_up(self) -> None:
        """Some thousand steps."""
        for _ in range(_WARM_UP_BLOCKS):
            self._block()

    def run_round(self, seconds: float) -> Round:
        """Blocks of steps, at least one, until the time is over."""
        steps, elapsed, began = 0, 0.0, time.perf_counter()
        while True:
            steps += self._block()
            elapsed = time.perf_counter() - began
            if elapsed >= seconds:
                return Round(steps=steps, seconds=elapsed)

    def _block(self) -> int:
        """Steps played, over all games."""
        block = self._actions[self._at : self._at + self._length]
        for actions in block:
            self._step(actions)
        self._at += len(block)
        if self._at == len(self._actions):
            self._at = 0
        return len(block) * self._num_games
