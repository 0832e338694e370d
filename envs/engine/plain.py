"""Games through NLE's own module."""

from __future__ import annotations

import _ctypes
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nle.nethack import nethack as nle_nethack

from envs.engine.protocol import Start
from envs.files import tempfile_inside


class PlainNetHack:
    """``envs.engine.protocol.NetHack`` through ``nle.nethack.Nethack``."""

    def __init__(self, start: Start) -> None:
        with tempfile_inside(start.folder):
            make_nethack: Any = nle_nethack.Nethack
            nle = make_nethack(
                observation_keys=(),
                playername=start.playername,
                ttyrec=None,
                options=list(start.options),
                spawn_monsters=start.spawn_monsters,
                fix_moon_phase=True,
            )
        low = nle._pynethack
        low.set_buffers(**start.rows)
        self.folder = Path(nle._vardir)
        self.press = low.step
        self.is_over = low.done
        self.in_normal_game = low.in_normal_game
        self._low, self._library, self._library_path = low, nle._dl, nle.dlpath
        # NLE would also close in a forked child, and so remove the parent's folder.
        nle._finalizer.detach()
        nle._tempdir._finalizer.detach()

    def begin(self, core: int, disp: int, lgen: int) -> None:
        """Start an episode with these seeds and run to its first question for a key."""
        self._low.set_initial_seeds(core, disp, False, lgen)
        self._low.reset()

    def how_done(self) -> Any:
        """How NetHack ended: ``nle.nethack.game_end_types``."""
        return self._low.how_done()

    @contextmanager
    def _birthday(self) -> Iterator[ctypes.c_long]:
        # The library must not stay referenced: NLE refuses to restart a game whose library is still loaded.
        library = _ctypes.dlopen(self._library_path, os.RTLD_NOLOAD | os.RTLD_NOW)
        yield ctypes.c_long.from_address(_ctypes.dlsym(library, "ubirthday"))
        _ctypes.dlclose(library)

    def birthday(self) -> int:
        """When the game began, in seconds, as NetHack sees it."""
        with self._birthday() as seconds:
            return seconds.value

    def set_birthday(self, seconds: int) -> None:
        """Let the game have begun then."""
        with self._birthday() as held:
            held.value = seconds

    def close(self) -> None:
        """Free the game's memory."""
        self._low.close()
        self._library.close()
