"""What a game needs to be started, and what it can do then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class Start:
    """How a game is set up."""

    folder: Path
    """A folder of folders: the game makes its own in it."""
    options: tuple[str, ...]
    """NetHack options, without the name."""
    playername: str
    """``Agent-role-race-alignment-gender``, or ``Agent-@``."""
    spawn_monsters: bool
    rows: dict[str, np.ndarray]
    """``{NLE key: row}`` to write observations into."""


class NetHack(Protocol):
    """One game."""

    folder: Path
    """Where NetHack keeps its files."""
    press: Callable[[int], None]
    """Press one key and run to the next question for one.

    Raises:
        RuntimeError: NetHack has ended, or was not started.
    """
    is_over: Callable[[], bool]
    """Whether NetHack has ended."""
    in_normal_game: Callable[[], bool]
    """Whether a map is on show."""

    def begin(self, core: int, disp: int, lgen: int) -> None:
        """Start an episode with these seeds and run to its first question for a key."""
        ...

    def how_done(self) -> Any:
        """How NetHack ended: ``nle.nethack.game_end_types``."""
        ...

    def birthday(self) -> int:
        """When the game began, in seconds, as NetHack sees it."""
        ...

    def set_birthday(self, seconds: int) -> None:
        """Let the game have begun then."""
        ...

    def close(self) -> None:
        """Free the game's memory."""
        ...
