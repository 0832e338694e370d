"""A run's reward programs in its report: their source, where they come from, and when one was taken out of use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.report.tables import Rows
from rewards.auto.archive import Archive, ArchiveEntry
from rewards.auto.program import SHORT_SHA
from rewards.auto.program_kind import PROGRAMS_FOLDER
from rewards.auto.program_teacher import QUARANTINED


def section(run: Path, config: Mapping[str, Any], events: Rows) -> dict[str, Any] | None:
    """What the page shows of a run's programs, the chosen one first; None where it uses none.

    Args:
        run: the run's folder.
        config: its flat configuration.
        events: the run's.

    Raises:
        ValueError: a program's file is damaged, or was edited; the text names it.
    """
    chosen = config.get("reward.program.code")
    if chosen is None or not config.get("reward.program.weight"):
        return None
    archive = Archive(run / PROGRAMS_FOLDER)
    fallbacks = config.get("reward.program.fallback") or ()
    quarantined = [event for event in events if event["kind"] == QUARANTINED]
    began = [event for event in events if event["kind"] == "programs"]
    return {
        "programs": [_program(archive.get(sha), place) for place, sha in enumerate((chosen, *fallbacks))],
        "isolation": began[-1]["isolation"] if began else "",
        "quarantines": [_quarantine(event) for event in quarantined],
    }


def _program(entry: ArchiveEntry, place: int) -> dict[str, Any]:
    judged = "" if entry.verdict is None else "accepted" if entry.verdict.accepted else "rejected"
    selection = entry.fitness.get("selection")  # where a search tried it
    return {
        "sha": entry.sha[:SHORT_SHA],
        "role": "chosen" if place == 0 else f"fallback {place}",
        "by": entry.by,
        "origin": ", ".join(parent[:SHORT_SHA] for parent in entry.parents),
        "verdict": judged,
        "fitness": f"{selection['success']:.3f} on seeds A" if selection else "",
        "source": entry.source,
    }


def _quarantine(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "step": event["step"],
        "time": str(event["time"])[:19].replace("T", " "),
        "sha": event["sha"][:SHORT_SHA],
        "scorer": event["scorer"],
        "why": event["why"],
        "after": event["fallback"][:SHORT_SHA] if event["fallback"] else "no reward program",
    }
