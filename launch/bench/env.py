"""Speed of the games alone, random actions, episodes and resets included: ours beside ``gymnasium.make``.

    yendor-N                N games of ours in each process
    yendor-plain-N          ... on NLE's own module
    gymnasium-N             N environments of ``gymnasium.make`` in each process, stepped in turn, with the
                            observation keys that its users get
    gymnasium-N-few-keys    ... with the keys that we observe, and no others

The processes of a contender work at the same time, contenders in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from envs.data import Config
from envs.spec import GamesConfig
from envs.tasks import specs_of
from launch.bench.contender import Maker
from launch.bench.crew import CrewMaker
from launch.bench.stepped_games import GymLoop, OurGames
from launch.errors import UserError

Positive = Annotated[int, Field(gt=0)]


class EnvBench(Config):
    """Steps per second of the games alone, ours beside gymnasium's, measured in turn."""

    task: str = "MiniHack-Room-5x5-v0"
    """A registered task id."""
    processes: Positive = 2
    """Processes of each contender; they work at the same time."""
    games: Annotated[tuple[Positive, ...], Field(min_length=1)] = (8,)
    """Numbers of games side by side in each process of ours."""
    gymnasium: tuple[Positive, ...] = ()
    """Numbers of gymnasium environments in each process, stepped in turn; none = as many as ``games``."""
    rounds: Positive = 5
    """Measurements of each."""
    seconds: Annotated[float, Field(gt=0)] = 5.0
    """Length of a measurement."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes games and actions."""


OURS: Mapping[str, Mapping[str, Any]] = {
    "yendor": {},
    "yendor-plain": {"engine": "plain"},
}
"""``{name: fields of GamesConfig}``: the ways in which our games can run."""


def makers(flags: EnvBench) -> list[Maker]:
    """The contenders that the flags name.

    Raises:
        UserError: the task cannot be played, or is not a registered one.
    """
    from launch.bench.gym_reference import cheap_keys

    try:
        (spec,) = specs_of(GamesConfig(task=flags.task))
    except ValueError as error:
        raise UserError(f"task: {error}") from None
    from envs.registered import registered_ids

    if spec.id not in registered_ids():
        raise UserError(f"task '{flags.task}' is Yendor's own: gymnasium has nothing to compare it with")
    keys = cheap_keys(flags.task)
    made: list[Maker] = []
    for name, fields in OURS.items():
        config = GamesConfig(task=flags.task, obs_keys=keys, **fields)
        made += [_crew(f"{name}-{n}", flags, _ours(config, n, flags.seed)) for n in flags.games]
    for n in flags.gymnasium or flags.games:
        made.append(_crew(f"gymnasium-{n}", flags, _gymnasium(flags, None, n), is_reference=True))
        made.append(_crew(f"gymnasium-{n}-few-keys", flags, _gymnasium(flags, keys, n), is_reference=True))
    return made


def _crew(name: str, flags: EnvBench, member: Callable[[str, int], Maker], *, is_reference: bool = False) -> Maker:
    members = [member(f"{name}/{process}", process) for process in range(flags.processes)]
    return CrewMaker(name, members, is_reference)


def _ours(config: GamesConfig, num_games: int, seed: int) -> Callable[[str, int], Maker]:
    return lambda name, process: OurGames(name, config, num_games, seed, process)


def _gymnasium(flags: EnvBench, obs_keys: tuple[str, ...] | None, num_games: int) -> Callable[[str, int], Maker]:
    return lambda name, process: GymLoop(name, flags.task, obs_keys, num_games, flags.seed, process)


def measure(flags: EnvBench) -> tuple[str, dict[str, Any]]:
    """The table, and all that was measured."""
    from launch.bench.alternate import contest

    return contest(makers(flags), flags.rounds, flags.seconds)
