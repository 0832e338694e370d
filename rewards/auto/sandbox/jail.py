"""Finds out how far a program can be locked in on this machine, and the command that does so.

The layers are laid by ``jail_exec.py``, which the command starts; here the strongest set of them is found under which
the target still runs, by running it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from rewards.auto.config import IsolationLevel

NOBODY = 65534
"""User and group that programs run as where we are root."""

SYSTEM_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache")
"""What an executable must read to be linked."""

_SCRIPT = Path(__file__).with_name("jail_exec.py")
_LINKERS = ("/lib*/ld-*.so*", "/lib/*/ld-*.so*")
_PROBE_S = 20.0
_WEAKER = (
    (),
    ("user",),
    ("user", "landlock"),
    ("user", "landlock", "seccomp"),
    ("user", "landlock", "seccomp", "limits"),
)
"""Layers left out, from the strongest set to the weakest."""
_BUBBLEWRAP = (
    "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
    "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",
)  # fmt: skip


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
    """The level that these layers of a process reach; what is not named is off."""
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


@dataclass(frozen=True)
class Target:
    """A program that is to be locked in."""

    path: str
    """An executable file, or a ``.py`` file that the locked process runs itself."""
    probe: tuple[str, ...] = ()
    """Arguments with which it ends at once, with status 0, given no input."""
    memory: int | None = None
    """Most bytes of address space; for a ``.py`` file, beyond what it starts with."""
    imports: tuple[str, ...] = ()
    """Modules that a ``.py`` file needs."""
    read: tuple[str, ...] = ()
    """Files and folders that it may read."""

    @property
    def is_script(self) -> bool:
        """Whether it is a ``.py`` file."""
        return self.path.endswith(".py")


@dataclass(frozen=True)
class Jail:
    """A way of locking a target in that works on this machine."""

    target: Target
    layers: Mapping[str, str]
    """``{"user": "65534", "seccomp": "on", "bubblewrap": "off", ...}``."""
    skip: tuple[str, ...] = ()
    bubblewrap: str | None = None
    """Its path, where it is used."""

    def command(self, *, report: bool = False) -> list[str]:
        """What to start, without any environment; the target's arguments follow. Only this process may start it."""
        config: dict[str, Any] = {
            "parent": 0 if self.bubblewrap else os.getpid(),
            "user": NOBODY,
            "memory": self.target.memory,
            "imports": self.target.imports,
            "read": self.target.read,
            "skip": self.skip,
            "require": [name for name, state in self.layers.items() if state != OFF and name != "bubblewrap"],
            "report": report,
        }
        if not self.target.is_script:
            config["read"] = [*SYSTEM_LIBRARIES, *self.target.read]
            config["execute"] = [self.target.path, *_linkers()]
        outer = [self.bubblewrap, *_BUBBLEWRAP] if self.bubblewrap else []
        inner = [sys.executable, "-I", "-S", "-B", str(_SCRIPT), json.dumps(config), self.target.path]
        return [*outer, *inner]


def find_jail(target: Target) -> Jail:
    """The strongest jail in which the target runs; every way is tried once in the life of this process.

    Raises:
        IsolationError: it does not run in any.
    """
    return _find(target, shutil.which("bwrap"), sys.executable)


@lru_cache(maxsize=64)
def _find(target: Target, bubblewrap: str | None, python: str) -> Jail:
    said = ""
    for way in _ways(target, bubblewrap):
        layers, said = _probe(way)
        if layers is not None:
            return Jail(target=target, layers=layers, skip=way.skip, bubblewrap=way.bubblewrap)
    raise IsolationError(f"{target.path} cannot be started in a process of its own by {python}: {said}")


def _ways(target: Target, bubblewrap: str | None) -> Iterator[Jail]:
    for outer in dict.fromkeys((bubblewrap, None)):
        for skip in _WEAKER if outer is None else _WEAKER[:2]:
            yield Jail(target=target, layers={}, skip=skip, bubblewrap=outer)


def _probe(way: Jail) -> tuple[Mapping[str, str] | None, str]:
    """The layers that hold when the target is run this way; None where it does not run, and what was said then."""
    try:
        ran = subprocess.run(
            [*way.command(report=True), *way.target.probe],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_S,
            env={},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if ran.returncode != 0:
        return None, ran.stderr.decode(errors="replace")[-300:].strip() or f"exit status {ran.returncode}"
    layers = json.loads(ran.stdout.partition(b"\n")[0])
    return {**layers, "bubblewrap": "on" if way.bubblewrap else OFF}, ""


def _linkers() -> Sequence[str]:
    """The dynamic linkers of this machine: to execute a file is to execute its linker too."""
    return sorted({str(path) for pattern in _LINKERS for path in Path("/").glob(pattern.lstrip("/"))})
