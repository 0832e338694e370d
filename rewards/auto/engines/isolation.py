"""How far a process is cut off from the machine: a level, from the layers that hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from rewards.auto.config import IsolationLevel

LEVELS: tuple[IsolationLevel, ...] = get_args(IsolationLevel)
"""From the least to the most."""

OFF = "off"
"""What a layer that does not hold is reported as."""

KERNEL_LAYERS = ("no new privileges", "limits", "landlock", "seccomp")
"""Layers of the level ``kernel``."""

OUTER_LAYERS = ("user", "bubblewrap")
"""With one of these it is ``full``."""


class IsolationError(ValueError):
    """Programs would run with less isolation than is asked for."""


def level_of(layers: Mapping[str, str]) -> IsolationLevel:
    """The level that these layers of a process come to; what is not named is off."""
    if any(layers.get(name, OFF) == OFF for name in KERNEL_LAYERS):
        return "process"
    return "full" if any(layers.get(name, OFF) != OFF for name in OUTER_LAYERS) else "kernel"


def check_level(layers: Mapping[str, str], at_least: IsolationLevel) -> None:
    """Refuse less than a level.

    Raises:
        IsolationError: it is less; says which layers are off.
    """
    level = level_of(layers)
    if LEVELS.index(level) < LEVELS.index(at_least):
        missing = ", ".join(name for name in (*KERNEL_LAYERS, *OUTER_LAYERS) if layers.get(name, OFF) == OFF)
        raise IsolationError(
            f"reward programs would run at isolation level '{level}', and min_isolation is '{at_least}': "
            f"off are {missing}"
        )


def describe(layers: Mapping[str, str]) -> str:
    """``isolation full (user 65534, seccomp on, landlock ABI 7, bubblewrap off)``."""
    return f"isolation {level_of(layers)} ({', '.join(f'{name} {state}' for name, state in layers.items())})"
