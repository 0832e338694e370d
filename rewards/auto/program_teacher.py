"""Reward programs on the driver's side: a quarantine is repeated to every scorer and logged; nothing is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from envs.protocols import State
from rewards.auto.audit import AuditLog, read
from rewards.auto.program import Program
from rewards.auto.program_reward import Quarantined
from rewards.teacher import Event, Teacher

AUDIT_FILE = "audit.jsonl"
"""In the folder of a run's programs: what was done with them."""

QUARANTINED = "program_quarantined"
"""Kind of the event that says so."""


@dataclass(frozen=True, kw_only=True)
class RunPrograms:
    """What scorers are given when they start."""

    chain: tuple[Program, ...]
    """The chosen program, and those that take its place."""
    logged: tuple[Quarantined, ...] = ()
    """What an interrupted run's events say, to be repeated."""


def logged_quarantines(events: Sequence[Mapping[str, Any]]) -> list[Quarantined]:
    """What a run's events say of quarantines, in their order: a resumed run repeats them."""
    names = [field.name for field in fields(Quarantined)]
    return [Quarantined(**{name: event[name] for name in names}) for event in events if event["kind"] == QUARANTINED]


class ProgramTeacher(Teacher):
    """Logs what one scorer took out of use, and has the others do the same.

    Args:
        programs: the run's.
        isolation: one line that says what stands between programs and the machine.
        folder: of the run's programs.
    """

    def __init__(self, programs: RunPrograms, isolation: str, folder: Path) -> None:
        self._logged = list(programs.logged)
        """What the run's events say already; it is not logged again."""
        self._bad: list[str] = []
        """SHAs that all must stop to use."""
        self._is_news = False
        shas = [program.sha for program in programs.chain]
        self._events = [Event(kind="programs", fields={"programs": shas, "isolation": isolation}, note=isolation)]
        self._audit_path = folder / AUDIT_FILE
        self._begin_audit(shas, isolation)

    def update(self, captions: Mapping[int, str]) -> Sequence[str] | None:
        """Every SHA that is in quarantine, when one has been added."""
        news = tuple(self._bad) if self._is_news else None
        self._is_news = False
        return news

    def observe(self, evidence: Sequence[Sequence[Quarantined]]) -> None:
        """Some may have been taken out of use in the update that ended."""
        for one in (one for quarantines in evidence for one in quarantines):
            if one.sha not in self._bad:
                self._bad.append(one.sha)
                self._is_news = True
            if one not in self._logged:
                self._log(one)

    def _log(self, one: Quarantined) -> None:
        self._logged.append(one)
        after = f"goes on with {one.fallback[:12]}" if one.fallback else "has no reward program left"
        note = f"reward program {one.sha[:12]} is quarantined: {one.why}; the run {after}"
        self._events.append(Event(kind=QUARANTINED, fields=asdict(one), note=note))
        self._audit_quarantine(one)

    def events(self) -> Sequence[Event]:
        """Quarantines, and trouble with the audit log."""
        events, self._events = self._events, []
        return events

    def state_dict(self) -> State:
        """SHAs in quarantine."""
        return {"bad": list(self._bad)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``: some scorers may not know yet."""
        self._bad = [str(sha) for sha in state["bad"]]
        self._is_news = bool(self._bad)

    # -- the audit log: trouble with it is an event, and the run goes on

    def _begin_audit(self, shas: Sequence[str], isolation: str) -> None:
        """Say what is used from now on, after what the events know of and a crash kept from the log."""
        written = {line["program"] for line in self._audit_lines() if line["kind"] == "quarantined"}
        for one in self._logged:
            if one.sha not in written:
                self._audit_quarantine(one)
        bad = {one.sha for one in self._logged}
        usable = [sha for sha in shas if sha not in bad]
        self._append("activated", program=usable[0] if usable else None, fallbacks=usable[1:], isolation=isolation)

    def _audit_lines(self) -> Sequence[Mapping[str, Any]]:
        return read(self._audit_path) if self._audit_path.exists() else []

    def _audit_quarantine(self, one: Quarantined) -> None:
        what = asdict(one)
        self._append("quarantined", program=what.pop("sha"), **what)

    def _append(self, kind: str, **what: Any) -> None:
        try:
            AuditLog(self._audit_path).append(kind, **what)
        except OSError as error:
            note = f"the audit log of reward programs misses a line ({kind}): {error}"
            self._events.append(Event(kind="audit_incomplete", fields={"line": kind}, note=note))
