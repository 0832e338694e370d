"""Training speed: our PPO beside those of public systems, with the same network, batch, task and observations.

    yendor            one process: games and learner take turns
    yendor-split      Ray rollout workers play while the learner learns
    yendor-symmetric  Ray peers play and learn, and average their gradients
    sb3-dummy         SB3's PPO over gymnasium environments in one process (``DummyVecEnv``)
    sb3-subproc       ... over gymnasium environments in a process each (``SubprocVecEnv``)
    sb3-games         ... over our games (``GamesVecEnv``): what part of the difference is theirs
    sample-factory    its asynchronous PPO, two workers, where it is installed

The defaults are the reference network: a 9x9 crop of glyphs and the bottom line statistics, embedding 32, two 3x3
convolutions of 32 channels, statistics through 64 twice, joined in 256, 0.9 million parameters; batches of 2,048 steps,
minibatches of 512, one epoch. The others get the environments in their cheap configuration: only what the network
reads, no environment checker, no ``Monitor``; and the network in plain PyTorch, as their users would write it. SB3
is measured with each number of threads in ``sb3_threads`` (``sb3-dummy-2``: two); the fastest reference counts.
Every round begins with one update that is not measured. All learn while they are measured, so that episodes get
shorter where a task is learned; ``--ppo.learning-rate 1e-12`` keeps all at the policy that they began with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from agents.config import EncoderConfig, ModelConfig, PPOConfig
from envs.data import Config
from launch.bench.contender import Maker
from launch.bench.sample_factory import SampleFactoryMaker, installed
from launch.bench.sb3_training import VEC_ENVS, Sb3Maker
from launch.bench.yendor_training import YendorMaker
from launch.config.flags import validate
from launch.config.train import TrainConfig
from launch.errors import UserError, unknown_name

REFERENCE_NETWORK = ModelConfig(
    encoder=EncoderConfig(glyph_embedding=32, crop_channels=32, crop_stride=1, blstats_layers=2, hidden=256)
)
"""What public systems were measured with."""
OBS_KEYS = ("glyphs_crop", "blstats")
"""What it reads."""

Positive = Annotated[int, Field(gt=0)]


class TrainBench(Config):
    """Steps per second of training, ours beside public systems', measured in turn."""

    task: str = "MiniHack-Room-5x5-v0"
    """A registered task id."""
    contenders: str | None = None
    """Who is measured, separated by commas; none = all of the list above but sb3-games, and sample-factory only where
    it is installed."""
    rounds: Positive = 5
    """Measurements of each."""
    seconds: Annotated[float, Field(gt=0)] = 10.0
    """Length of a measurement."""
    batch: Positive = 2048
    """Steps in a batch, over all games."""
    games: Positive = 16
    """Our games side by side, over all workers."""
    workers: Positive = 2
    """Our processes that play, where there are several; the games are dealt over them."""
    max_policy_lag: Annotated[int, Field(ge=0, le=64)] = 1
    """Updates that yendor-split's rollouts may be old."""
    threads: Positive = 1
    """Threads of our learner's arithmetic."""
    sb3_games: Positive = 8
    """Games of Stable-Baselines3 side by side."""
    sb3_threads: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 2)
    """Threads of Stable-Baselines3's arithmetic; each is measured."""
    sample_factory_python: str | None = None
    """An interpreter that has sample-factory, which needs older packages than ours; none = this one, if it has."""
    sample_factory_games: Positive = 16
    """Games of sample-factory side by side, over its two workers."""
    penalty_step: float = -0.001
    """Reward of a step in which game time stood still."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes games and weights."""
    ppo: PPOConfig = PPOConfig(minibatch=512, epochs=1)
    """The precision is ours alone: the others compute in fp32."""
    model: ModelConfig = REFERENCE_NETWORK

    def train_config(self, num_games: int, changes: Mapping[str, Any] | None = None) -> TrainConfig:
        """The run that is measured.

        Args:
            num_games: over all workers.
            changes: fields by dotted path (``rollout.num_workers``); without any, one process does everything.

        Raises:
            UserError: the flags do not fit together.
        """
        values: dict[str, Any] = {
            "preset": "bench",
            "seed": self.seed,
            "total_steps": 2**40,
            "threads": self.threads,
            "device": "cpu",
            "env": {"task": self.task, "obs_keys": OBS_KEYS, "penalty_step": self.penalty_step},
            "placement": "split",
            "rollout": {"num_workers": 0},
            "ppo": self.ppo.model_dump(),
            "model": self.model.model_dump(),
            "logging": {"tensorboard": False},
        }
        for path, value in (changes or {}).items():
            _put(values, path.split("."), value)
        if self.batch % num_games:
            raise UserError(f"batch {self.batch} cannot be dealt evenly over {num_games} games")
        num_workers = max(1, values["rollout"]["num_workers"])
        if num_games % num_workers:
            raise UserError(f"games {num_games} cannot be dealt evenly over workers {num_workers}")
        values["rollout"] |= {"games_per_worker": num_games // num_workers, "num_steps": self.batch // num_games}
        return validate(TrainConfig, values)


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value


def ours(flags: TrainBench) -> dict[str, dict[str, Any]]:
    """Our ways to train: each contender's name, and what its configuration has different, by dotted path."""
    return {
        "yendor": {"rollout.num_workers": 0},
        "yendor-split": {"rollout.num_workers": flags.workers, "rollout.max_policy_lag": flags.max_policy_lag},
        "yendor-symmetric": {"rollout.num_workers": flags.workers, "placement": "symmetric"},
    }


_DEFAULT = ("yendor", "yendor-split", "yendor-symmetric", "sb3-dummy", "sb3-subproc")


def makers(flags: TrainBench) -> list[Maker]:
    """The contenders that the flags name.

    Raises:
        UserError: one is unknown or not installed, the task cannot be compared, or the flags do not fit together.
    """
    _check_task(flags)
    if flags.model.core != "none":
        raise UserError(f"model.core is '{flags.model.core}', which the references have not; allowed: none")
    known: dict[str, Callable[[], list[Maker]]] = {
        name: partial(_yendor, flags, name, changes) for name, changes in ours(flags).items()
    }
    known |= {f"sb3-{kind}": partial(_sb3, flags, kind) for kind in VEC_ENVS}
    known["sample-factory"] = partial(_sample_factory, flags)
    names = [name.strip() for name in flags.contenders.split(",")] if flags.contenders else _default(flags)
    for name in names:
        if name not in known:
            raise unknown_name("contender", name, known)
    return [maker for name in dict.fromkeys(names) for maker in known[name]()]


def _check_task(flags: TrainBench) -> None:
    games = flags.train_config(flags.games).env
    try:
        (spec,) = games.specs()
    except ValueError as error:
        raise UserError(f"task: {error}") from None
    from envs.registered import registered_ids

    if spec.id not in registered_ids():
        raise UserError(f"task '{flags.task}' is Yendor's own: gymnasium has nothing to compare it with")


def _default(flags: TrainBench) -> list[str]:
    found = flags.sample_factory_python or installed()
    return [*_DEFAULT, *(["sample-factory"] if found else [])]


def _yendor(flags: TrainBench, name: str, changes: Mapping[str, Any]) -> list[Maker]:
    return [YendorMaker(name, flags.train_config(flags.games, changes))]


def _sb3(flags: TrainBench, kind: str) -> list[Maker]:
    config = flags.train_config(flags.sb3_games)
    return [
        Sb3Maker(f"sb3-{kind}-{n}", config.model_copy(update={"threads": n}), kind, is_reference=kind != "games")
        for n in flags.sb3_threads
    ]


def _sample_factory(flags: TrainBench) -> list[Maker]:
    python = flags.sample_factory_python or installed()
    if python is None:
        raise UserError(
            "sample-factory is not installed here; --sample-factory-python names an interpreter that has it"
        )
    return [SampleFactoryMaker("sample-factory", flags.train_config(flags.sample_factory_games), python)]


def measure(flags: TrainBench) -> tuple[str, dict[str, Any]]:
    """The table, and all that was measured."""
    from launch.bench.alternate import contest

    return contest(makers(flags), flags.rounds, flags.seconds)
