"""Levels of ours, as des-files: mazes with many ways to a place, and a fork with two.

MiniHack's mazes are trees: one way leads from a place to another. In these, plans differ and are equally good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

MAZE_CELLS = {
    "Umaze": (
        "ooo",
        "  o",
        "ooo",
    ),
    "Medium": (
        "oo  oo",
        "oo ooo",
        " ooo  ",
        "oo ooo",
        "o oo o",
        "ooo oo",
    ),
    "Large": (
        "oooo ooooo",
        "o  o o o o",
        "oooooo ooo",
        "o    o   o",
        "oo o ooooo",
        " o o o o  ",
        "oo ooo ooo",
    ),
}  # fmt: skip
"""Where one can walk in D4RL's Maze2D (Fu et al. 2020, arXiv 2004.07219), without the walls around."""
CELL_SQUARES = 2
"""Sides of a cell on the map: with two, one may pass the corners of a wide corridor in several ways."""

_FORK = (
    "   ooooo   ",
    "  o     o  ",
    " o       o ",
    "o         o",
    " o       o ",
    "  o     o  ",
    "   ooooo   ",
)
_FORK_START, _FORK_STAIRS = (0, 3), (10, 3)
"""(column, row)."""


@dataclass(frozen=True, kw_only=True)
class OwnLevel:
    """What makes a task of a level."""

    des: str
    """Source of the level."""
    max_episode_steps: int
    """Time limit in steps."""


@cache
def own_levels() -> dict[str, OwnLevel]:
    """``{task id: level}``."""
    limits = {"Umaze": 30, "Medium": 40, "Large": 60}
    mazes = {
        f"Yendor-Maze2D-{size}-v0": OwnLevel(des=_maze(cells), max_episode_steps=limits[size])
        for size, cells in MAZE_CELLS.items()
    }
    fork = OwnLevel(des=_level(_FORK, start=_FORK_START, stairs=_FORK_STAIRS), max_episode_steps=30)
    return {**mazes, "Yendor-Fork-v0": fork}


def _maze(cells: Sequence[str]) -> str:
    rows = ["".join(cell * CELL_SQUARES for cell in row) for row in cells for _ in range(CELL_SQUARES)]
    return _level(rows)


def _level(rows: Sequence[str], *, start: tuple[int, int] | None = None, stairs: tuple[int, int] | None = None) -> str:
    """A lit level that the hero knows from the beginning.

    Args:
        rows: ``o`` for floor and a blank for rock; a wall of one square is put around them.
        start: column and row of the hero's first square, which shows stairs up once it is left; None = drawn in each
            episode, and never the stairs down.
        stairs: column and row of the stairs down; None = drawn in each episode.
    """
    width, height = len(rows[0]) + 2, len(rows) + 2
    drawn = ["".join(row).translate({ord("o"): "."}).center(width) for row in ("", *rows, "")]
    left, top, right, bottom = (0, 0, width - 1, height - 1) if start is None else (start[0] + 1, start[1] + 1) * 2
    down = "random" if stairs is None else f"({stairs[0] + 1},{stairs[1] + 1})"
    return "\n".join(
        (
            "MAZE: \"mylevel\",' '",
            "FLAGS:hardfloor,premapped",
            "INIT_MAP: solidfill,' '",
            "GEOMETRY:center,center",
            "MAP",
            *drawn,
            "ENDMAP",
            f'REGION:(0,0,{width - 1},{height - 1}),lit,"ordinary"',
            "WALLIFY",
            # The hero begins on the stairs of a branch. NetHack would find a place for them by itself, but with few
            # squares in a large level not each as often as any other.
            f"BRANCH:({left},{top},{right},{bottom}),(0,0,0,0)",
            f"STAIR:{down},down",
            "",
        )
    )
