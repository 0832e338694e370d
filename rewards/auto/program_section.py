"""A run's reward programs in its report: their source, where they come from, and when one was quarantined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewards.auto.archive import Archive, ArchiveEntry
from rewards.auto.program import SHORT_SHA
from rewards.reporting import Block, Cell, Column, Listing, Paragraph, Section, Table, whole


def program_section(
    archive: Archive, shas: Sequence[str], began: Mapping[str, Any], quarantines: Sequence[Mapping[str, Any]]
) -> Section:
    """What a report shows of a run's programs.

    Args:
        archive: the run's own.
        shas: the chosen program, then those that may take its place, in this order.
        began: the run's last event that says how programs are isolated; empty where there is none.
        quarantines: its events of programs that were put aside, in order.

    Raises:
        ValueError: a program's file is damaged, or was edited; the text names it.
    """
    blocks: list[Block] = [Paragraph(began.get("isolation", ""))]
    if quarantines:
        blocks.append(_quarantines(quarantines))
    blocks += [_listing(archive.get(sha), place) for place, sha in enumerate(shas)]
    return Section(anchor="programs", title="Reward program", blocks=blocks)


def _listing(entry: ArchiveEntry, place: int) -> Listing:
    role = "chosen" if place == 0 else f"fallback {place}"
    origin = ", ".join(parent[:SHORT_SHA] for parent in entry.parents)
    parts = [role, f"by {entry.by} from {origin}" if origin else f"by {entry.by}"]
    if entry.verdict is not None:
        parts.append("accepted" if entry.verdict.accepted else "rejected")
    if selection := entry.fitness.get("selection"):  # where a search tried it
        parts.append(f"{selection['success']:.3f} on seeds A")
    return Listing(title=entry.sha[:SHORT_SHA], subtitle=", ".join(parts), source=entry.source, is_open=place == 0)


def _quarantines(events: Sequence[Mapping[str, Any]]) -> Table:
    columns = (
        Column(title="step", kind="number"),
        Column(title="time", kind="time"),
        Column(title="quarantined", kind="code"),
        Column(title="why"),
        Column(title="from then on", kind="code"),
    )
    return Table(columns=columns, rows=[_quarantine(event) for event in events])


def _quarantine(event: Mapping[str, Any]) -> tuple[Cell, ...]:
    return (
        Cell(text=whole(event["step"])),
        Cell(text=str(event["time"])[:19].replace("T", " ")),
        Cell(text=event["sha"][:SHORT_SHA], note=event["scorer"]),
        Cell(text=event["why"]),
        Cell(text=event["fallback"][:SHORT_SHA] if event["fallback"] else "no reward program"),
    )
