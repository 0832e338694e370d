"""``yendor rewards diff A B``: what changed from one program to another, and what came of it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from launch.arguments import parse
from launch.errors import UserError
from launch.rewards.finding import ArchiveFlags, Named, find
from launch.rewards.terminal import judged, shown, success

_STYLES = {"---": "bold", "+++": "bold", "@@": "cyan", "-": "red", "+": "green"}
"""By how a line begins; the first that fits."""


class DiffFlags(ArchiveFlags):
    """Show what changed from one program to another."""


def run(argv: Sequence[str]) -> int:
    """Print a unified diff of two programs, and how their verdicts and fitness differ."""
    if len(argv) < 2 or argv[1].startswith("-"):
        raise UserError("rewards diff needs two programs: yendor rewards diff A B, each a SHA or a file")
    flags = parse(DiffFlags(), argv[2:], f"yendor rewards diff {argv[0]} {argv[1]}")
    old, new = (find(name, flags.archive) for name in argv[:2])
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line in unified(old, new) or ["the sources are the same"]:
        style = next((style for start, style in _STYLES.items() if line.startswith(start)), "")
        console.print(Text(shown(line), style), soft_wrap=True)
    for what, before, after in _outcomes(old, new):
        changed = f"{before} -> {after}" if before != after else f"{before}, both"
        console.print(Text.assemble((f"{what}  ", "bold"), shown(changed)), soft_wrap=True)
    return 0


def unified(old: Named, new: Named) -> list[str]:
    """The lines of a unified diff of two programs' sources; none where they are equal."""
    lines = [one.source.split("\n") for one in (old, new)]
    return list(difflib.unified_diff(*lines, fromfile=old.label, tofile=new.label, lineterm=""))


def _outcomes(old: Named, new: Named) -> list[tuple[str, str, str]]:
    """``(what, of the old, of the new)`` where the archive knows either."""
    if old.entry is None and new.entry is None:
        return []
    verdicts = [judged(one.entry.verdict) if one.entry else "not in the archive" for one in (old, new)]
    found = [("verdict", *verdicts)]
    for what, seeds in (("success", "selection"), ("success on other seeds", "report")):
        values = [success(one.entry.fitness, seeds) if one.entry else "-" for one in (old, new)]
        if values != ["-", "-"]:
            found.append((what, *values))
    return found  # pyright: ignore[reportReturnType]  # both are pairs
