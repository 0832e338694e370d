"""Reward programs of a run: found before it starts, kept in its folder, and replayed when it is resumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launch.config.train import TrainConfig
from launch.errors import UserError
from launch.runs.folder import read_events
from rewards.auto.archive import Archive, ArchiveEntry, is_file_name, source_of
from rewards.auto.audit import AuditLog, read
from rewards.auto.config import ContainmentConfig
from rewards.auto.language.admission import admit
from rewards.auto.program import Program, ProgramRejectedError, sha_of
from rewards.auto.reward import ProgramReward, Quarantined

PROGRAMS_FOLDER = "programs"
"""Of a run: an archive of the programs that it uses."""

AUDIT_FILE = "audit.jsonl"
"""In that folder: what was done with them (``rewards.auto.audit``)."""

QUARANTINED = "program_quarantined"
"""Kind of the event that says so."""


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """A program was taken out of use by one of those who score."""

    scorer: str
    """The process: ``learner``, ``worker 3``."""
    what: Quarantined


def settled(config: TrainConfig) -> tuple[TrainConfig, tuple[ArchiveEntry, ...]]:
    """The configuration with programs named by their whole SHAs, and these programs, the chosen one first.

    Games are told to record what the programs read.

    Raises:
        UserError: a program is not to be found, is not admitted, or its engine is less isolated than asked for.
    """
    reward = config.reward
    if not reward.pays_program:
        return config, ()
    assert reward.program is not None
    archive = Archive(reward.auto.archive)
    chosen = _entry(archive, reward.program, "reward.program")
    if reward.auto.fallback is None:
        others = _ancestors(archive, chosen)
    else:
        others = [_entry(archive, text, "reward.auto.fallback") for text in reward.auto.fallback]
    entries = tuple({entry.sha: entry for entry in (chosen, *others)}.values())
    columns = [name for entry in entries for name in _admitted(entry).needed_columns]
    auto = reward.auto.model_copy(update={"fallback": tuple(entry.sha for entry in entries[1:])})
    env = config.env.model_copy(update={"features": tuple(dict.fromkeys((*config.env.features, *columns)))})
    reward = reward.model_copy(update={"program": chosen.sha, "auto": auto})
    return config.model_copy(update={"env": env, "reward": reward}), entries


def _ancestors(archive: Archive, chosen: ArchiveEntry) -> list[ArchiveEntry]:
    """Accepted ancestors that can be used; nobody asked for these, so one that cannot is no reason to refuse a run."""
    if chosen.sha not in archive.shas():  # a file's need not be there
        return []
    try:
        found = archive.accepted_ancestors(chosen.sha)
    except ValueError:
        return []
    return [entry for entry in found if entry.task == chosen.task and _is_admitted(entry)]


def _is_admitted(entry: ArchiveEntry) -> bool:
    try:
        admit(entry.source)
    except ProgramRejectedError:
        return False
    return True


def _entry(archive: Archive, text: str, field: str) -> ArchiveEntry:
    try:
        if not is_file_name(text):
            return archive.get(text)
        source = source_of(Path(text))
        return ArchiveEntry(sha=sha_of(source), source=source, by=f"file {Path(text).name}")
    except ValueError as error:
        raise UserError(f"{field}: {error}") from None


def _admitted(entry: ArchiveEntry) -> Program:
    try:
        return admit(entry.source)
    except ProgramRejectedError as error:
        raise UserError(f"reward program {entry.sha[:12]} is not admitted: {error}") from None


def check_isolation(config: TrainConfig) -> str | None:
    """One line that says what stands between programs and the machine; None where the run uses none.

    Raises:
        UserError: it is less than ``reward.auto.containment.min_isolation``.
    """
    if not config.reward.pays_program:
        return None
    return isolation(config.reward.auto.containment, "reward.auto.containment")


def isolation(containment: ContainmentConfig, field: str) -> str:
    """One line that says what stands between programs and the machine.

    Args:
        containment: what is asked for.
        field: its name, for the error.

    Raises:
        UserError: it is less than ``min_isolation``.
    """
    from rewards.auto.sandbox.jail import IsolationError
    from rewards.auto.sandbox.monty import isolation_line

    try:
        return isolation_line(containment)
    except (IsolationError, ImportError) as error:
        raise UserError(f"{field}: {error}") from None


def keep(entries: Sequence[ArchiveEntry], run: Path) -> None:
    """Put the programs into the run's folder: what it uses is there as long as it is."""
    archive = Archive(run / PROGRAMS_FOLDER)
    for entry in entries:
        archive.put(entry)


def chain(config: TrainConfig, run: Path) -> tuple[Program, ...]:
    """The run's programs from its folder, the chosen one first; empty where it uses none.

    Raises:
        UserError: one is missing, was edited, or is no longer admitted.
    """
    reward = config.reward
    if not reward.pays_program:
        return ()
    assert reward.program is not None and reward.auto.fallback is not None, "programs are settled before a run starts"
    archive = Archive(run / PROGRAMS_FOLDER)
    return tuple(_admitted(_entry(archive, sha, "reward.program")) for sha in (reward.program, *reward.auto.fallback))


def logged_quarantines(run: Path) -> list[Quarantine]:
    """What the run's events say of quarantines, in their order: a resumed run repeats them."""
    return [
        Quarantine(
            scorer=event["scorer"],
            what=Quarantined(**{name: event[name] for name in ("sha", "code", "why", "fallback", "batch")}),
        )
        for event in read_events(run)
        if event["kind"] == QUARANTINED
    ]


@dataclass(frozen=True, kw_only=True)
class RunPrograms:
    """What those who score are given when they start."""

    chain: tuple[Program, ...] = ()
    """The chosen program, and those that take its place."""
    logged: tuple[Quarantine, ...] = ()
    """What an interrupted run's events say, to be repeated."""

    def reward(self, config: TrainConfig, scorer: str) -> ProgramReward | None:
        """The reward of one of those who score; None without programs."""
        if not self.chain:
            return None
        auto = config.reward.auto
        reward = ProgramReward(self.chain, auto, gamma=config.reward.streams[auto.stream].gamma)
        reward.replay([one.what for one in self.logged if one.scorer == scorer])
        return reward


def programs_of(config: TrainConfig, run: Path) -> RunPrograms:
    """The programs of a run, and what happened to them so far.

    Raises:
        UserError: see ``chain``.
    """
    programs = chain(config, run)
    return RunPrograms(chain=programs, logged=tuple(logged_quarantines(run)) if programs else ())


class RunAudit:
    """The audit log of a run's programs; trouble with it in the middle of a run is told, and the run goes on.

    Args:
        run: the run's folder.
        run_id: names the run in the log.
        told: takes what went wrong, in one sentence.
    """

    def __init__(self, run: Path, run_id: str, told: Callable[[str], None]) -> None:
        self._path, self._run_id, self._told = run / PROGRAMS_FOLDER / AUDIT_FILE, run_id, told

    def begin(self, programs: RunPrograms, isolation: str) -> None:
        """Say what is used from now on, after what the events know of and a crash kept from the log.

        Raises:
            UserError: the log cannot be read.
        """
        try:
            lines = read(self._path) if self._path.exists() else []
        except ValueError as error:
            raise UserError(f"the audit log of the run's reward programs cannot be read: {error}") from None
        written = {line["program"] for line in lines if line["kind"] == "quarantined"}
        for one in programs.logged:
            if one.what.sha not in written:
                self.quarantined(one, None)
        bad = {one.what.sha for one in programs.logged}
        usable = [program.sha for program in programs.chain if program.sha not in bad]
        self._append("activated", program=usable[0] if usable else None, fallbacks=usable[1:], isolation=isolation)

    def quarantined(self, one: Quarantine, step: int | None) -> None:
        """A program was taken out of use at this step; None = before the last stop."""
        what = asdict(one.what)
        self._append("quarantined", program=what.pop("sha"), step=step, scorer=one.scorer, **what)

    def _append(self, kind: str, **fields: Any) -> None:
        try:
            AuditLog(self._path).append(kind, run=self._run_id, **fields)
        except OSError as error:
            self._told(f"the audit log of reward programs misses a line ({kind}): {error}")


class Quarantines:
    """The driver's side: logs what those who score took out of use, and tells the others.

    Args:
        logged: what the run's events say already; it is repeated, and not logged again.
        log: takes an event.
        audit: the run's.
        note: tells people.
    """

    def __init__(
        self,
        logged: Sequence[Quarantine],
        log: Callable[..., None],
        audit: RunAudit,
        note: Callable[[str], None],
    ) -> None:
        self._log, self._audit, self._note = log, audit, note
        self.logged = list(logged)
        self._untold: list[str] = []

    def add(self, found: Sequence[Quarantine], step: int) -> None:
        """Some were taken out of use in the update that ended at this step."""
        for one in found:
            self._untold.append(one.what.sha)
            if one not in self.logged:
                self.logged.append(one)
                self._log(QUARANTINED, step=step, scorer=one.scorer, **asdict(one.what))
                self._audit.quarantined(one, step)
                after = f"goes on with {one.what.fallback[:12]}" if one.what.fallback else "has no reward program left"
                self._note(f"reward program {one.what.sha[:12]} is quarantined: {one.what.why}; the run {after}")

    def take(self) -> tuple[str, ...]:
        """SHAs that all must stop to use, since the last call."""
        untold, self._untold = tuple(dict.fromkeys(self._untold)), []
        return untold

    def state_dict(self) -> list[str]:
        """SHAs that some may not have been told of."""
        return list(self._untold)

    def load_state_dict(self, untold: Sequence[str]) -> None:
        """Continue from ``state_dict``."""
        self._untold = list(untold)
