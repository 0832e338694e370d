"""Games in the native engine."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nle.nethack import nethack as nle_nethack

from envs.engine.protocol import Start

KNOWN_NLE = ("1.3.0",)
"""Versions of NLE whose C interface ``cpp/nle_abi.h`` describes."""


@cache
def _library() -> Any:
    """NLE's library.

    Raises:
        ImportError: the extension was not built.
        ValueError: NLE's version is unknown, or the loader does not accept its library.
    """
    from envs.engine import _native

    if version("nle") not in KNOWN_NLE:
        raise ValueError(f"it knows the interface of NLE {', '.join(KNOWN_NLE)}, and {version('nle')} is installed")
    return _native.Library(nle_nethack.DLPATH)


@cache
def why_not() -> str | None:
    """Why there is no native engine here; None where there is."""
    try:
        _library()
    except ImportError:
        return "its extension was not built when this package was installed (Linux on x86-64 with a C++ compiler)"
    except ValueError as error:
        return str(error)
    return None


def _options(start: Start) -> str:
    """As NLE words them for NetHack."""
    options = [*start.options, f"name:{start.playername}"]
    if start.playername.endswith("-@"):
        options += [
            f"{trait}:random"
            for trait in ("race", "gender", "align")
            if not any(option.startswith(f"{trait}:") for option in start.options)
        ]
    return ",".join(options)


def _make_folder(parent: Path) -> Path:
    """NetHack's own folder, with the files that it expects."""
    folder = Path(tempfile.mkdtemp(prefix="nle", dir=parent))
    (folder / "nhdat").symlink_to(Path(nle_nethack.HACKDIR) / "nhdat")
    for name in ("perm", "record", "logfile", "xlogfile"):
        os.close(os.open(folder / name, os.O_CREAT))
    (folder / "save").mkdir()
    return folder


class NativeNetHack:
    """``envs.engine.protocol.NetHack`` in an image of NLE's library of its own."""

    def __init__(self, start: Start) -> None:
        from envs.engine import _native

        self.folder = _make_folder(start.folder)
        low = _native.Game(_library(), self.folder, _options(start), start.spawn_monsters, True)
        low.set_buffers(**start.rows)
        self.press = low.step
        self.is_over = low.done
        self.in_normal_game = low.in_normal_game
        self._low = low

    def begin(self, core: int, disp: int, lgen: int) -> None:
        """Start an episode with these seeds and run to its first question for a key."""
        self._low.set_initial_seeds(core, disp, lgen)
        self._low.reset()

    def how_done(self) -> Any:
        """How NetHack ended: ``nle.nethack.game_end_types``."""
        return nle_nethack._pynethack.nethack.game_end_types(self._low.how_done())

    def birthday(self) -> int:
        """When the game began, in seconds, as NetHack sees it."""
        return self._low.birthday

    def set_birthday(self, seconds: int) -> None:
        """Let the game have begun then."""
        self._low.birthday = seconds

    def close(self) -> None:
        """Free the game's memory."""
        self._low.close()
