"""One game of NetHack in this process, writing into rows of shared arrays."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from nle.nethack import nethack as nle_nethack

from envs.data import EpisodeSeeds
from envs.engine import native, plain
from envs.engine.protocol import NetHack, Start
from envs.levels import Level
from envs.spec import Engine, TaskSpec

SPACE, ESC, ENTER = 32, 27, 13
BL_X, BL_Y, BL_SCORE, BL_DEPTH, BL_GOLD, BL_XP_LEVEL, BL_TIME = 0, 1, 9, 12, 13, 18, 20
"""Columns of ``blstats``."""
GAME_OVER, IN_MOVELOOP = 0, 3
"""Columns of ``program_state``."""
IN_YN, IN_GETLIN, WAITS_FOR_SPACE, ON_STAIRS_DOWN = 1, 2, 3, 4
"""Columns of ``internal``."""


def starter(engine: Engine) -> Callable[[Start], NetHack]:
    """What makes games under ``engine``.

    Raises:
        ValueError: ``native`` cannot be had here; the sentence says why.
    """
    if engine == "plain":
        return plain.PlainNetHack
    if reason := native.why_not():
        if engine == "native":
            raise ValueError(f"engine 'native' cannot be had: {reason}; 'plain' and 'auto' are allowed")
        return plain.PlainNetHack
    return native.NativeNetHack


class Game:
    """One game.

    Args:
        spec: the task.
        level: where its level comes from.
        rows: ``{NLE key: row}`` to write observations into; at least the keys of ``ALWAYS``.
        last_blstats: row for the last non-zero ``blstats``; kept by the vector between steps, by
            ``keep_blstats`` within one.
        folder: where temporary files go.
        engine: what runs NetHack.

    Raises:
        ValueError: the engine cannot be had here.
    """

    ALWAYS = ("glyphs", "blstats", "message", "program_state", "internal")

    def __init__(
        self,
        spec: TaskSpec,
        level: Level,
        rows: Mapping[str, np.ndarray],
        last_blstats: np.ndarray,
        folder: Path,
        engine: Engine = "auto",
    ) -> None:
        self.spec, self.level, self.rows = spec, level, rows
        nethack = starter(engine)(
            Start(
                folder=folder,
                options=spec.options,
                playername=f"Agent-{spec.character}",
                spawn_monsters=spec.spawn_monsters,
                rows=dict(rows),
            )
        )
        self.press = nethack.press
        """Press one key."""
        self.is_over = nethack.is_over
        """Whether NetHack has ended."""
        self.how_done = nethack.how_done
        self.in_normal_game = nethack.in_normal_game
        self.nethack = nethack
        self.internal = rows["internal"].data
        self.program_state = rows["program_state"].data
        self.blstats, self._last_blstats = rows["blstats"], last_blstats
        self._message = rows["message"]
        self.pages: list[bytes] = []
        """Messages that were shown and dismissed and not yet taken by the vector."""
        self.folder = nethack.folder
        self._finalizer = weakref.finalize(self, _close_in_owner, os.getpid(), nethack, self.folder)

    def message(self) -> bytes:
        """The message on show."""
        return self._message.tobytes().partition(b"\0")[0]

    def keep_page(self) -> None:
        """Remember the message on show before a key dismisses it."""
        page = self.message()
        if page and (not self.pages or self.pages[-1] != page):
            self.pages.append(page)
        self.keep_blstats()

    def keep_blstats(self) -> None:
        """Remember ``blstats`` while they are there: NetHack zeroes them when a game ends."""
        if self.blstats[BL_TIME]:
            self._last_blstats[:] = self.blstats

    def start(self, seeds: EpisodeSeeds) -> None:
        """Begin an episode and dismiss what NetHack asks before the first move.

        Raises:
            RuntimeError: the game does not reach its first move, or shows no hero.
        """
        self.level.install(self.folder, seeds)
        self.nethack.begin(*seeds)
        for attempt in range(200):
            if self.program_state[IN_MOVELOOP]:
                break
            # NLE presses SPACE for ever; ESC gets out of the rare question that SPACE cannot answer.
            self.press(SPACE if attempt < 100 else ESC)
            if self.is_over():
                raise RuntimeError(f"{self.spec.id}, {seeds}, ended before its first move: {self.message()!r}")
        else:
            raise RuntimeError(f"{self.spec.id}, {seeds}, does not reach its first move: {self.message()!r}")
        self.pages.clear()
        self._check_hero(seeds)
        # NetHack names its shopkeepers by the wall-clock time at which a game began; ours by its seed. Shops are
        # below the first level, so this comes in time for all of them.
        self.nethack.set_birthday(seeds.core)

    def _check_hero(self, seeds: EpisodeSeeds) -> None:
        """A level that NetHack could not load leaves an empty map, without any error."""
        x, y = int(self.blstats[BL_X]), int(self.blstats[BL_Y])
        glyphs = self.rows["glyphs"]
        inside = 0 <= y < glyphs.shape[0] and 0 <= x < glyphs.shape[1]
        if not inside or not nle_nethack._pynethack.nethack.glyph_is_monster(int(glyphs[y, x])):
            raise RuntimeError(f"{self.spec.id}, {seeds}, shows no hero at x={x}, y={y}: its level was not loaded")

    def close(self) -> None:
        """Free the game and its folder."""
        self._finalizer()


def _close_in_owner(owner: int, nethack: NetHack, folder: Path) -> None:
    if owner == os.getpid():
        nethack.close()
        shutil.rmtree(folder, ignore_errors=True)
