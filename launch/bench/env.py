"""Speed of the games alone, random actions, resets included: ours beside a loop over ``gymnasium.make``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from envs.data import Config
from envs.tasks import GamesConfig
from launch.bench.contender import Contender, Maker, Round
from launch.errors import UserError

_KEYS = {True: ("glyphs_crop", "blstats", "message"), False: ("glyphs", "blstats", "message")}
"""What is observed: of MiniHack's tasks, and of NLE's, which have no crops."""
_BLOCK = 64
"""Steps between looks at the clock."""


class EnvBench(Config):
    """Steps per second of the games alone, ours beside gymnasium's, measured in turn."""

    task: str = "MiniHack-Room-5x5-v0"
    """A registered task id."""
    games: tuple[int, ...] = (8, 16)
    """Numbers of games side by side in one process of ours."""
    gymnasium: tuple[int, ...] = (1, 16)
    """Numbers of gymnasium environments in one process, stepped in turn."""
    rounds: Annotated[int, Field(gt=0)] = 5
    """Measurements of each."""
    seconds: Annotated[float, Field(gt=0)] = 5.0
    """Length of a measurement."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes games and actions."""

    @property
    def obs_keys(self) -> tuple[str, ...]:
        """The same for all."""
        return _KEYS[self.task.startswith("MiniHack-")]


def makers(flags: EnvBench) -> list[Maker]:
    """The contenders that the flags name.

    Raises:
        UserError: there are none, or the task cannot be played, or is not a registered one.
    """
    if min((*flags.games, *flags.gymnasium), default=0) < 1 or not flags.games:
        raise UserError("games and gymnasium must be positive numbers of games, and at least one of games")
    try:
        (spec,) = GamesConfig(task=flags.task).specs()
    except ValueError as error:
        raise UserError(f"task: {error}") from None
    from envs.registered import registered_ids

    if spec.id not in registered_ids():
        raise UserError(f"task '{flags.task}' is Yendor's own: gymnasium has nothing to compare it with")
    ours: list[Maker] = [OurGames(f"yendor-{n}", flags, n) for n in flags.games]
    return ours + [GymLoop(f"gymnasium-{n}", flags, n) for n in flags.gymnasium]


@dataclass(frozen=True)
class OurGames:
    """``NetHackVector`` with so many games."""

    name: str
    flags: EnvBench
    num_games: int
    is_reference: bool = False

    def build(self) -> Contender:
        """In this process."""
        from envs.seeding import TrainingSeeds
        from envs.tasks import make

        flags = self.flags
        config = GamesConfig(task=flags.task, obs_keys=flags.obs_keys)
        games = make(config, self.num_games, TrainingSeeds(flags.seed, 0, self.num_games))
        games.reset()
        num_actions = games.spec.num_actions
        return SteppedGames(games.step, games.close, self.num_games, num_actions, flags.seed)


@dataclass(frozen=True)
class GymLoop:
    """So many environments of ``gymnasium.make``, without its checker, only the same observations."""

    name: str
    flags: EnvBench
    num_games: int
    is_reference: bool = True

    def build(self) -> Contender:
        """In this process."""
        import gymnasium

        from envs import registered  # noqa: F401  (imports minihack, whose tasks register themselves)

        flags = self.flags
        envs = [
            gymnasium.make(flags.task, observation_keys=flags.obs_keys, disable_env_checker=True)
            for _ in range(self.num_games)
        ]
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

        actions = envs[0].action_space
        assert isinstance(actions, gymnasium.spaces.Discrete)
        return SteppedGames(step, close, self.num_games, int(actions.n), flags.seed)


class SteppedGames:
    """Anything that plays one action in every game, driven by random actions.

    Args:
        step: plays actions [B].
        close: ends the games.
        num_games: B.
        num_actions: A.
        seed: fixes the actions.
    """

    def __init__(
        self,
        step: Callable[[np.ndarray], object],
        close: Callable[[], None],
        num_games: int,
        num_actions: int,
        seed: int,
    ) -> None:
        self._step, self.close, self._num_games = step, close, num_games
        self._actions = np.random.default_rng(seed).integers(num_actions, size=(4096, num_games))
        self._at = 0

    def warm_up(self) -> None:
        """Some hundred steps."""
        for _ in range(8):
            self._block()

    def run_round(self, seconds: float) -> Round:
        """Blocks of steps, until the time is over; the first is not measured."""
        self._block()
        began, blocks, elapsed = time.perf_counter(), 0, 0.0
        while elapsed < seconds:
            self._block()
            blocks += 1
            elapsed = time.perf_counter() - began
        return Round(steps=blocks * _BLOCK * self._num_games, seconds=elapsed)

    def _block(self) -> None:
        for actions in self._actions[self._at : self._at + _BLOCK]:
            self._step(actions)
        self._at = (self._at + _BLOCK) % len(self._actions)
