"""The studies behind the README's figures: which runs, how long, evaluated when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.benchmarks.studies.offline import OFFLINE_STUDIES, OfflineJob

SEEDS = (1, 2, 3)
EVALUATION_EPISODES = 200


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run and its evaluations.

    The run is trained to each milestone in turn (a resume continues it exactly) and evaluated there.
    """

    name: str
    preset: str
    seed: int
    milestones: tuple[int, ...]
    """Environment steps at which the run is evaluated; the last one ends it."""
    command: str = "train"
    """``train`` for Yendor's PPO, ``reference`` for Stable-Baselines3's."""
    flags: tuple[str, ...] = ()
    """Flags beyond those that every job has."""
    episodes: int = EVALUATION_EPISODES


@dataclass(frozen=True, kw_only=True)
class ControlJob:
    """One run of classic control, which evaluates itself along the way."""

    name: str
    env: str
    seed: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DesignJob:
    """One search for a reward program, ``yendor design``; it uses as many cores as it has trials side by side."""

    name: str
    preset: str
    flags: tuple[str, ...] = ()


AnyJob = Job | ControlJob | DesignJob | OfflineJob


def _seeds(
    preset: str, *milestones: int, command: str = "train", label: str | None = None, flags: tuple[str, ...] = ()
) -> Iterator[Job]:
    """The same run with each seed."""
    label = label or (preset if command == "train" else f"{preset}_{command}")
    for seed in SEEDS:
        yield Job(
            name=f"{label}-seed{seed}", preset=preset, seed=seed, milestones=milestones, command=command, flags=flags
        )


def _seed_by_seed(*runs: Iterator[Job]) -> tuple[Job, ...]:
    """Every run's first seed, then every second: a study that was cut has seeds of everything."""
    return tuple(job for same_seed in zip(*runs, strict=True) for job in same_seed)


TEN_TASKS = (
    "MiniHack-KeyRoom-S5-v0",
    "MiniHack-River-Narrow-v0",
    "MiniHack-WoD-Easy-Restricted-v0",
    "MiniHack-LockedDoor-v0",
    "MiniHack-Corridor-R5-v0",
    "MiniHack-Room-Ultimate-15x15-v0",
    "MiniHack-LavaCross-Levitate-Potion-Inv-Restricted-v0",
    "MiniHack-Freeze-Wand-Restricted-v0",
    "MiniHack-Quest-Easy-v0",
    "NetHackScoreExtended-v0",
)
"""Where the lexicon's coverage is measured."""


def _coverage() -> Iterator[Job]:
    """Short runs of PPO with labelled captions, one for each of ten tasks."""
    for task in TEN_TASKS:
        label = task.removeprefix("MiniHack-").removesuffix("-v0").replace("-", "_").lower()
        flags = ("--env.task", task, "--labels.mode", "barrier", "--logging.interval-s", "0.01")
        yield Job(name=f"{label}-seed1", preset="keyroom_oni", seed=1, milestones=(50_000,), flags=flags, episodes=16)


SYMMETRIC = ("--rollout.num-workers", "2", "--rollout.games-per-worker", "8", "--placement", "symmetric")
"""Two peers, with the games of one process between them; needs two cores to itself (``--parallel 1``)."""
_PLACEMENT_TASKS = {"room": 100_000, "keyroom": 300_000, "river_narrow": 300_000}


def _variants(suffix: str, *flags: str, command: str = "train") -> tuple[Job, ...]:
    """A way to train, on the three tasks that the placements are compared on."""
    return _seed_by_seed(
        *(
            _seeds(preset, steps, command=command, label=f"{preset}_{suffix}", flags=flags)
            for preset, steps in _PLACEMENT_TASKS.items()
        )
    )


_SCHEDULE = ("--reward.oni.steps-per-update", "4", "--reward.oni.refresh-updates", "4")
"""Twice the defaults, which were halved afterwards because of what they cost (`python -m tests.benchmarks rewards`)."""
_DISTILLED = {
    "classification": ("--reward.oni.kind", "classification", *_SCHEDULE),
    "ranking": ("--reward.oni.kind", "ranking", *_SCHEDULE, "--reward.oni.pairs-per-update", "16"),
}

_CONTROL_REWARDS: dict[str, tuple[str, ...]] = {
    "heron": ("--reward", "heron"),
    **{f"weighted_sum_{beta}": ("--reward", "weighted_sum", "--beta", beta) for beta in ("1.0", "0.3", "0.1", "0.01")},
    "powers_of_ten": ("--reward", "powers_of_ten"),
    "ensemble": ("--reward", "ensemble"),
    "sparse": ("--reward", "sparse"),
    "true": ("--reward", "true"),
}
_CONTROL_RUNS: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "pendulum": ("Pendulum-v1", _CONTROL_REWARDS),
    # Only here can an episode be ended by acting, so only here may a reward be collected by not ending it.
    "mountain_car": (
        "MountainCarContinuous-v0",
        _CONTROL_REWARDS | {"heron_clip": ("--reward", "heron", "--bound", "clip")},
    ),
}


_HERON = ("--reward", "heron")
_WEIGHTED_SUM = ("--reward", "weighted_sum", "--beta", "0.1")
_FAST = "-speed = 1000 * obs[2] * obs[2]"
_FAST_PENDULUM = ("--ranking", "-angle = 1 - obs[0]", _FAST, "-torque = action[0] * action[0]")
_GOAL_AND_HEIGHT = ("--ranking", "goal = info.terminated @ 0", "height = max(abs(obs[0] + 0.5236))")
_DEAR_ENERGY = (*_GOAL_AND_HEIGHT, "-energy = 1000 * action[0] * action[0]")
_MISLED = (*_GOAL_AND_HEIGHT, "-energy = action[0] * action[0]", "-speed = mean(abs(obs[1]))")
_ROBUST_RUNS: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "pendulum": (
        "Pendulum-v1",
        {"heron_x1000": (*_HERON, *_FAST_PENDULUM), "weighted_sum_0.1_x1000": (*_WEIGHTED_SUM, *_FAST_PENDULUM)},
    ),
    "mountain_car": (
        "MountainCarContinuous-v0",
        {
            "heron_x1000": (*_HERON, *_DEAR_ENERGY),
            "weighted_sum_0.1_x1000": (*_WEIGHTED_SUM, *_DEAR_ENERGY),
            "heron_misled": (*_HERON, *_MISLED),
        },
    ),
}


def _control(runs: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]]) -> tuple[ControlJob, ...]:
    """Every reward in every environment, seed by seed."""
    return tuple(
        ControlJob(name=f"{label}_{reward}-seed{seed}", env=env, seed=seed, flags=flags)
        for seed in SEEDS
        for label, (env, rewards) in runs.items()
        for reward, flags in rewards.items()
    )


_HERON_MILESTONES = (200_000, 500_000, 1_000_000)

_RANKED = {
    "heron": (),
    "weighted_sum": ("--reward.heron.kind", "weighted_sum", "--reward.heron.beta", "0.3"),
}

_SEARCH = ("--rounds", "3", "--candidates", "4", "--trial-steps", "200000", "--report.steps", "500000")
_DESIGNERS = {
    "grammar": ("--designer", "grammar"),
    # The same budget; training without a program is in the search above.
    "random": ("--designer", "random", "--report.no-sparse"),
}

STUDIES: dict[str, tuple[AnyJob, ...]] = {
    # Does plain PPO learn what it should?
    "soundness": (
        *_seed_by_seed(_seeds("keyroom", 500_000), _seeds("river_narrow", 500_000)),
        *_seeds("room", 100_000),
    ),
    # The same network, hyper-parameters, games and steps under Stable-Baselines3's PPO.
    "reference": tuple(_seeds("keyroom", 300_000, command="reference")),
    "nethack": (Job(name="nethack_score-seed1", preset="nethack_score", seed=1, milestones=(1_000_000,)),),
    # How much of what games say does the lexicon judge?
    "coverage": tuple(_coverage()),
    # Do two peers learn what one process learns? What the wall clock says needs --parallel 1.
    "symmetric": _variants("symmetric", *SYMMETRIC, "--ppo.precision", "fp32"),
    "symmetric_bf16": _variants("symmetric_bf16", *SYMMETRIC, "--ppo.precision", "bf16"),
    "synchronous": _variants("synchronous", "--ppo.precision", "fp32"),
    # SB3's PPO for the wall clock: over our games, which are faster than gymnasium's, with one thread (a second one
    # adds little: `python -m tests.benchmarks train`).
    "sb3": _variants("sb3", command="reference"),
    # Does the labelled reward help where the environment's is sparse?
    "sparse": _seed_by_seed(
        _seeds("locked_door", 1_000_000),
        _seeds("locked_door_oni", 1_000_000),
        _seeds("corridor", 1_000_000),
        _seeds("corridor_oni", 1_000_000),
    ),
    # ... and ONI's distilled rewards? Plain PPO and retrieval are in "sparse".
    "oni": _seed_by_seed(
        *(
            _seeds(f"{task}_oni", 1_000_000, label=f"{task}_{kind}", flags=flags)
            for kind, flags in _DISTILLED.items()
            for task in ("locked_door", "corridor")
        )
    ),
    # Plain PPO where HERON is tried; LockedDoor is in "sparse".
    "heron_sparse": _seed_by_seed(
        _seeds("wod_easy", *_HERON_MILESTONES, label="wod_easy_sparse"),
        _seeds("river_narrow", *_HERON_MILESTONES, label="river_narrow_sparse"),
    ),
    "heron": _seed_by_seed(
        *(
            _seeds(f"{task}_heron", *_HERON_MILESTONES, label=f"{task}_{kind}", flags=flags)
            for kind, flags in _RANKED.items()
            for task in ("locked_door", "river_narrow", "wod_easy")
        )
    ),
    # HERON under an off-policy learner of others, beside what else a ranking can be made into.
    "heron_control": _control(_CONTROL_RUNS),
    # The same, with a factor in another unit (times 1000), and with one that contradicts a more important one.
    "heron_robust": _control(_ROBUST_RUNS),
    # Does a search find a reward program, and does looking at play help it? Each takes two cores: --parallel 1.
    "design": tuple(
        DesignJob(name=f"{preset}_{designer}", preset=preset, flags=(*_SEARCH, *flags))
        for designer, flags in _DESIGNERS.items()
        for preset in ("locked_door", "corridor")
    ),
    # Does it hurt where PPO alone is enough?
    "dense": tuple(_seeds("keyroom_oni", 500_000)),
    # The same, longer: goes on from the runs of "dense" and "soundness".
    "dense_long": _seed_by_seed(_seeds("keyroom_oni", 500_000, 1_000_000), _seeds("keyroom", 500_000, 1_000_000)),
    # Logged play, plan heads and planners.
    **OFFLINE_STUDIES,
}
"""``{name of the study: its runs}``."""
