"""How our games differ from the registered gymnasium environments, as data for documentation and tests."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Difference:
    """One difference and why it is there."""

    tasks: str
    """Glob over task ids."""
    what: str
    """What differs: an observation key, a flag, or a behaviour."""
    reason: str


UNBUILDABLE = (
    Difference("MiniHack-*-Custom-v0", "id", "it has no level of its own; it needs a des_file argument"),
    Difference(
        "MiniHack-Boxoban-*-v0",
        "id",
        "its level files are not part of MiniHack and must be downloaded by hand",
    ),
    Difference(
        "MiniHack-LavaCrossing*-v0",
        "id",
        "MiniHack 1.0.2 passes width and height to minigrid, which minigrid 3 refuses for crossings",
    ),
    Difference(
        "MiniHack-SimpleCrossing*-v0",
        "id",
        "MiniHack 1.0.2 passes width and height to minigrid, which minigrid 3 refuses for crossings",
    ),
)
"""Registered ids that cannot be built here."""

DIFFERENCES = (
    Difference(
        "*",
        "time limit",
        "a task's own time limit is truncated=True, terminated=False; gymnasium has it the other way",
    ),
    Difference(
        "*",
        "last observation of an episode cut by success or a time limit",
        "NLE quits the game before it returns, so its observation shows the quitting; ours is the one before "
        "that, which is what a bootstrapped value needs",
    ),
    Difference(
        "*",
        "last blstats of a lost game",
        "NetHack has zeroed them; ours are the last non-zero ones, and crops are centred by them",
    ),
    Difference(
        "*",
        "last tty_chars, tty_colors, tty_cursor of a lost game",
        "they show a top-ten list that grows with every game played in the same folder",
    ),
    Difference("*", "pixel, pixel_crop", "not offered: they are a rendering of the glyphs"),
    Difference(
        "*",
        "screen_descriptions_crop",
        "MiniHack pads the text axis too, so that its array does not fit its own space; ours is [h, w, 80]",
    ),
    Difference(
        "*",
        "dice after the first remembered object that is no longer there, without screen_descriptions",
        "to describe such a cell NetHack makes a temporary object, which draws from its random numbers; "
        "MiniHack and most NLE tasks always have every cell described, ours only where obs_keys has "
        "screen_descriptions",
    ),
    Difference(
        "NetHack*",
        "names of shopkeepers",
        "NetHack picks them by the wall clock; ours by the seed, so that a game replays on another day",
    ),
    Difference(
        "MiniHack-*",
        "memory across episodes",
        "MiniHack shows its reward manager the last action of the previous episode at a reset; ours starts "
        "with none, so that an episode is a function of its seeds",
    ),
    Difference(
        "MiniHack-KeyRoom-*",
        "macro without end",
        "MiniHack pushes the unlocked door until it opens, for ever if the hero dies or the lock holds; "
        "ours stops at the end of the game and after 100 pushes",
    ),
    Difference(
        "NetHackChallenge-v0",
        "seeding",
        "NLE forbids it for the competition; our games are always seeded",
    ),
)
"""Differences between our games and ``gymnasium.make`` of the same id."""


def why_unbuildable(task_id: str) -> str | None:
    """The reason why a registered id cannot be built here; None if it can."""
    return next((e.reason for e in UNBUILDABLE if fnmatchcase(task_id, e.tasks)), None)
