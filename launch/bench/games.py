"""Speed of the games alone, random actions, episodes and resets included.

    yendor-N          N games in each process
    yendor-plain-N    ... on NLE's own module

The processes of a system work at the same time, systems in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt

from envs.data import Config
from envs.seeding import TrainingSeeds
from envs.tasks import GamesConfig, make
from launch.bench.harness import IsolatedSystem, Round, System, SystemSpec, compare
from launch.errors import UserError

_BLOCK_STEPS = 256
"""Steps, over all games, between looks at the clock (at least one of each game)."""
_WARM_UP_BLOCKS = 16

ENGINES: Mapping[str, Mapping[str, Any]] = {
    "yendor": {},
    "yendor-plain": {"engine": "plain"},
}
"""``{name: fields of GamesConfig}``: the ways in which games can run."""


class EnvBench(Config):
    """Steps per second of the games alone, measured in turn."""

    task: str = "MiniHack-Room-5x5-v0"
    """A task id."""
    processes: PositiveInt = 2
    """Processes of each system; they work at the same time."""
    games: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (8,)
    """Numbers of games side by side in each process."""
    rounds: PositiveInt = 5
    """Measurements of each."""
    seconds: Annotated[float, Field(gt=0)] = 5.0
    """Length of a measurement."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes games and actions."""

    def specs(self, obs_keys: tuple[str, ...] = ("glyphs_crop", "blstats")) -> list[SystemSpec]:
        """What is measured.

        Args:
            obs_keys: what is observed.

        Raises:
            UserError: the task cannot be played.
        """
        configs = {name: GamesConfig(task=self.task, obs_keys=obs_keys, **more) for name, more in ENGINES.items()}
        try:
            for config in configs.values():
                config.specs()
        except ValueError as error:
            raise UserError(f"task: {error}") from None
        return [self.parallel(f"{name}-{n}", self._games(configs[name], n)) for name in configs for n in self.games]

    def parallel(self, name: str, one: Callable[[str, int], SystemSpec], *, is_reference: bool = False) -> SystemSpec:
        """So many processes of a system, each made of its name and number."""
        return ParallelSpec(name, [one(f"{name}/{i}", i) for i in range(self.processes)], is_reference)

    def _games(self, config: GamesConfig, num_games: int) -> Callable[[str, int], SystemSpec]:
        return lambda name, process: VectorSpec(name, config, num_games, self.seed, process)


def measure(flags: EnvBench) -> tuple[str, dict[str, Any]]:
    """The table, and all that was measured."""
    return compare(flags.specs(), flags.rounds, flags.seconds)


# -- one process ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VectorSpec:
    """``NetHackVector`` with so many games, in one process."""

    name: str
    config: GamesConfig
    num_games: int
    seed: int
    stream: int = 0
    """Which process this is: each plays games of its own."""
    is_reference: bool = False

    def build(self) -> System:
        """In this process."""
        games = make(self.config, self.num_games, TrainingSeeds(self.seed, self.stream, self.num_games))
        games.reset()
        actions = random_actions(games.spec.num_actions, self.num_games, self.seed, self.stream)
        return SteppedGames(games.step, games.close, actions)


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


# -- several processes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParallelSpec:
    """Several processes that work at the same time, measured together."""

    name: str
    members: Sequence[SystemSpec]
    """What each process runs."""
    is_reference: bool

    def build(self) -> System:
        """Starts the processes, from this one."""
        return ParallelSystem(self.members)


class ParallelSystem:
    """Systems in a process each; a round begins in all of them at the same moment.

    Args:
        members: what each process runs.
    """

    def __init__(self, members: Sequence[SystemSpec]) -> None:
        with ExitStack() as stack:
            self._members = [IsolatedSystem(member) for member in members]
            for member in self._members:
                stack.callback(member.close)
            self._stack = stack.pop_all()

    def warm_up(self) -> None:
        """Each warms up, all at once."""
        self._together("warm_up")

    def run_round(self, seconds: float) -> Round:
        """The steps of all, within the time of the slowest."""
        # The shortest of rounds, not counted: wakes all, so that the next begins at once in each.
        self._together("run_round", 0.0)
        rounds = self._together("run_round", seconds)
        return Round(steps=sum(r.steps for r in rounds), seconds=max(r.seconds for r in rounds))

    def _together(self, method: str, *arguments: float) -> list[Any]:
        for member in self._members:
            member.ask(method, *arguments)
        return [member.answer() for member in self._members]

    def close(self) -> None:
        """End the processes."""
        self._stack.close()
