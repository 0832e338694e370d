"""The studies behind the README's figures: which runs, how long, evaluated when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    episodes: int = EVALUATION_EPISODES


def _jobs(
    label: str, preset: str, *milestones: int, command: str = "train", flags: tuple[str, ...] = ()
) -> Iterator[Job]:
    for seed in SEEDS:
        yield Job(
            name=f"{label}-seed{seed}",
            preset=preset,
            seed=seed,
            milestones=milestones,
            command=command,
            flags=flags,
        )


STUDIES: dict[str, tuple[Job, ...]] = {
    # Interleaved so that a study that was cut has as many seeds of everything as possible.
    "soundness": (
        *_jobs("room", "room", 200_000),
        *_jobs("keyroom", "keyroom", 500_000, 1_000_000),
        *_jobs("river_narrow", "river_narrow", 1_000_000),
    ),
    "oni": (
        *_jobs("keyroom_oni", "keyroom_oni", 500_000, 1_000_000),
        *_jobs("locked_door", "locked_door", 1_000_000),
        *_jobs("locked_door_oni", "locked_door_oni", 1_000_000),
        *_jobs("corridor", "corridor", 1_000_000),
        *_jobs("corridor_oni", "corridor_oni", 1_000_000),
    ),
    "reference": tuple(_jobs("keyroom_sb3", "keyroom", 500_000, command="reference")),
    "nethack": (
        Job(name="nethack_score-seed1", preset="nethack_score", seed=1, milestones=(1_000_000,)),
        Job(name="nethack_score_oni-seed1", preset="nethack_score_oni", seed=1, milestones=(1_000_000,)),
    ),
}
"""``{name of the study: its runs}``."""
