"""``yendor rewards list``: the programs of an archive, and which came from which."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from launch.arguments import parse
from launch.errors import UserError
from launch.rewards.finding import ArchiveFlags
from launch.rewards.stored import take_switch
from launch.rewards.terminal import judged, shown, success
from rewards.auto.archive import Archive, ArchiveEntry, Branch, forest
from rewards.auto.program import SHORT_SHA

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree


class ListFlags(ArchiveFlags):
    """List the programs of an archive, each under the one that it was made from."""


def run(argv: Sequence[str]) -> int:
    """Print the tree of descent; ``--json`` prints a list for programs. What is damaged is named and left out."""
    as_json, rest = take_switch(argv, "--json")
    flags = parse(ListFlags(), rest, "yendor rewards list")
    if not flags.archive.is_dir():
        raise UserError(f"there is no archive of programs at {flags.archive}; --archive names another folder")
    entries, complaints = Archive(flags.archive).read_all()
    for complaint in complaints:
        sys.stderr.write(f"yendor: {complaint}\n")
    if as_json:
        sys.stdout.write(json.dumps([_as_json(entry) for entry in entries], indent=1) + "\n")
        return 0
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    root = Tree(Text(f"{len(entries):,} program{'s' * (len(entries) != 1)} in {flags.archive}", style="dim"))
    for branch in forest(entries):
        _hang(root, branch)
    Console().print(root)
    return 0


def _hang(tree: Tree, branch: Branch) -> None:
    below = tree.add(_line(branch.entry))
    for child in branch.children:
        _hang(below, child)


def _line(entry: ArchiveEntry) -> Text:
    from rich.text import Text

    is_accepted = entry.verdict is not None and entry.verdict.accepted
    style = "green" if is_accepted else "dim" if entry.verdict is None else "red"
    where = ", ".join(word for word in (f"round {entry.round}", entry.task, entry.search) if word)
    line = Text.assemble((entry.sha[:SHORT_SHA], "bold"), f"  {shown(entry.by)}, {shown(where)}")
    line.append(f"\n{shown(judged(entry.verdict))}", style)
    if entry.fitness:
        line.append(f"\nsuccess {success(entry.fitness)}; on other seeds {success(entry.fitness, 'report')}")
    return line


def _as_json(entry: ArchiveEntry) -> dict[str, Any]:
    verdict = entry.verdict
    return {
        "sha": entry.sha,
        "parents": entry.parents,
        "by": entry.by,
        "task": entry.task,
        "round": entry.round,
        "search": entry.search,
        "created_at": entry.created_at,
        "accepted": None if verdict is None else verdict.accepted,
        "reasons": [] if verdict is None else verdict.reasons,
        "fitness": entry.as_json()["fitness"],
    }
