"""An archive of reward programs, with their origin and their results.

A folder holds two files of each program, named by the SHA-256 of its source::

    <sha>.py        the source, byte for byte
    <sha>.json      who wrote it and from what, the critic's verdict, results of training with it

The source is written first, and the ``.json`` makes the pair count: what a crash leaves between the two is not seen by
readers, and goes when the next writer comes. Writers of several processes take turns (a lock on ``.lock``, which the
system releases when its holder dies); readers need no lock, because each file is replaced in one step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from envs.files import file_lock, jsonable, unreadable, write_atomic
from rewards.auto.program import SHORT_SHA, sha_of
from rewards.auto.search.proposal import Verdict, verdict_of

ARCHIVE_FORMAT = 1
"""Rises whenever an entry of before can no longer be read."""

MIN_PREFIX = 4
"""Digits of a SHA that may stand for the whole."""

_LOCK = ".lock"
_NAME = re.compile(r"[0-9a-f]{64}")
_FIXED = {"sha", "source"}


@dataclass(frozen=True, kw_only=True)
class ArchiveEntry:
    """One program, and all that is known of it."""

    sha: str
    source: str
    by: str
    """Who wrote it, as in ``Proposal.by``."""
    parents: tuple[str, ...] = ()
    """SHAs of the programs that it was made from; they need not be in this archive."""
    task: str = ""
    """Task id that it was written for."""
    round: int = 0
    """Of the search, from 1 on; 0 = outside of one."""
    created_at: str = ""
    """ISO 8601, UTC."""
    prompt: str = ""
    """Its author's prompt."""
    thoughts: str = ""
    """What its author wrote about it."""
    verdict: Verdict | None = None
    """The critic's; None where it has not been judged."""
    fitness: Mapping[str, Any] = field(default_factory=dict)
    """Results of training with it; empty where it was not trained. ``selection``, on seeds A, which choose between
    programs, and ``report``, on seeds B, which nothing was chosen on: each ``{"success": share of episodes, "n":
    episodes, "low": ..., "high": ...}`` with its interval. ``steps`` of training; ``seeds`` that were trained."""
    analysis: Mapping[str, Any] = field(default_factory=dict)
    """The analyzer's figures and text about its training."""
    search: str = ""
    """Name of the design run that it belongs to."""

    def as_json(self) -> dict[str, Any]:
        """For files: everything but the source; what is not finite becomes null."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "source"}
        values["verdict"] = None if self.verdict is None else self.verdict.as_json()
        return jsonable({"format": ARCHIVE_FORMAT, **values})


@dataclass(frozen=True)
class Branch:
    """A program in the forest of descent, and those that hang from it."""

    entry: ArchiveEntry
    children: tuple[Branch, ...]


class Archive:
    """Programs in a folder; nothing is written, nor made, before the first ``put``.

    Args:
        folder: where they are; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # ---- writing

    def put(self, entry: ArchiveEntry) -> ArchiveEntry:
        """Keep a program; one that is there already stays as it is.

        Returns:
            What the archive now holds of it.

        Raises:
            ValueError: the SHA is not the source's, or what the archive holds under it is damaged.
            OSError: the folder cannot be written.
        """
        if entry.sha != sha_of(entry.source):
            raise ValueError(f"a program is kept under the SHA of its source, {sha_of(entry.source)}, not {entry.sha}")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not self._facts(entry.sha).exists():
                write_atomic(self._source(entry.sha), entry.source)
                write_atomic(self._facts(entry.sha), _dumped(entry))
        return self._read(entry.sha)

    def update(self, sha: str, **changes: Any) -> ArchiveEntry:
        """Replace what is known of a program: ``update(sha, fitness=..., analysis=...)``.

        Raises:
            ValueError: there is no such program, it is damaged, or its SHA or source are to change.
            TypeError: there is no such field.
            OSError: the folder cannot be written.
        """
        if fixed := _FIXED.intersection(changes):
            raise ValueError(f"the {' and the '.join(sorted(fixed))} of a program cannot change: put another one")
        whole = self.get(sha).sha
        with self._locked():
            changed = replace(self._read(whole), **changes)
            write_atomic(self._facts(whole), _dumped(changed))
        return changed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time; it first clears away what a crash has left."""
        with file_lock(self.folder / _LOCK):
            self._heal()
            yield

    def _heal(self) -> None:
        """Under the lock no writer is between two files: what is half was left so."""
        for path in self.folder.glob("*.py"):
            if _NAME.fullmatch(path.stem) and not self._facts(path.stem).exists():
                path.unlink()
        for path in self.folder.glob(".?*.*"):  # beside the file that it was to replace
            path.unlink()

    # ---- reading

    def get(self, name: str) -> ArchiveEntry:
        """A program by its SHA, or by the first digits of it.

        Args:
            name: at least ``MIN_PREFIX`` digits.

        Raises:
            ValueError: none or several fit (names the nearest, or those that do), or the files of the one are damaged.
        """
        digits = name.lower()
        if not re.fullmatch(rf"[0-9a-f]{{{MIN_PREFIX},64}}", digits):
            raise ValueError(f"'{name}' is no SHA of a program: {MIN_PREFIX} to 64 digits of 0-9 and a-f are")
        known = self.shas()
        fitting = [sha for sha in known if sha.startswith(digits)]
        if len(fitting) > 1:
            raise ValueError(f"{name} fits {len(fitting)} programs in {self.folder}: {_listed(fitting)}")
        if not fitting:
            by_start = {sha[: len(digits)]: sha for sha in known}
            near = [by_start[start] for start in get_close_matches(digits, by_start, n=3, cutoff=0.0)]
            hint = f"nearest: {_listed(near)}" if near else "there are none"
            raise ValueError(f"no program {name} in {self.folder}; {hint}")
        return self._read(fitting[0])

    def shas(self) -> list[str]:
        """The SHAs of all programs, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.json") if _NAME.fullmatch(path.stem))

    def read_all(self) -> tuple[list[ArchiveEntry], list[str]]:
        """Every program that can be read, in order of round, time and SHA, and a sentence on every one that cannot."""
        entries, complaints = [], []
        for sha in self.shas():
            try:
                entries.append(self._read(sha))
            except ValueError as error:
                complaints.append(str(error))
        return sorted(entries, key=lambda one: (one.round, one.created_at, one.sha)), complaints

    def entries(self) -> list[ArchiveEntry]:
        """Every program, in order of round, time and SHA.

        Raises:
            ValueError: one is damaged; names its file.
        """
        entries, complaints = self.read_all()
        if complaints:
            raise ValueError(complaints[0])
        return entries

    def accepted_ancestors(self, sha: str) -> list[ArchiveEntry]:
        """Those that a program descends from and that the critic has accepted, the nearest first: its fallbacks.

        Raises:
            ValueError: there is no such program, or a file of it, or of an ancestor, is damaged.
        """
        known = set(self.shas())
        seen, near = {self.get(sha).sha}, [self.get(sha)]
        found: list[ArchiveEntry] = []
        while near:
            parents = dict.fromkeys(parent for entry in near for parent in entry.parents)
            near = [self._read(parent) for parent in parents if parent in known and parent not in seen]
            seen.update(entry.sha for entry in near)
            found += [entry for entry in near if entry.verdict is not None and entry.verdict.accepted]
        return found

    def _read(self, sha: str) -> ArchiveEntry:
        source_file, facts_file = self._source(sha), self._facts(sha)
        try:
            source, facts = source_file.read_bytes(), facts_file.read_bytes()
        except OSError as error:
            raise ValueError(unreadable(error.filename, error)) from None
        try:
            is_whole = sha_of(source.decode()) == sha
        except UnicodeDecodeError:
            is_whole = False
        if not is_whole:
            raise ValueError(f"{source_file} has been changed: its SHA is no longer its name, so it is not used")
        try:
            entry = _entry(json.loads(facts), source.decode())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{facts_file} is damaged, or of another version: {error}") from None
        if entry.sha != sha:
            raise ValueError(f"{facts_file} is damaged: it is about {entry.sha}")
        return entry

    def _source(self, sha: str) -> Path:
        return self.folder / f"{sha}.py"

    def _facts(self, sha: str) -> Path:
        return self.folder / f"{sha}.json"


def forest(entries: Sequence[ArchiveEntry]) -> tuple[Branch, ...]:
    """Programs by descent: each hangs from the first of its parents that is among them and does not descend from it.

    Args:
        entries: in the order in which siblings are to stand.
    """
    known = {entry.sha for entry in entries}
    parent_of: dict[str, str] = {}
    for entry in entries:
        for parent in entry.parents:
            if parent in known and entry.sha not in _upwards(parent, parent_of):
                parent_of[entry.sha] = parent
                break
    children: dict[str | None, list[ArchiveEntry]] = {}
    for entry in entries:
        children.setdefault(parent_of.get(entry.sha), []).append(entry)
    branches: dict[str, Branch] = {}
    depth = {entry.sha: len(_upwards(entry.sha, parent_of)) for entry in entries}
    for entry in sorted(entries, key=lambda one: -depth[one.sha]):
        branches[entry.sha] = Branch(entry, tuple(branches[child.sha] for child in children.get(entry.sha, ())))
    return tuple(branches[root.sha] for root in children.get(None, ()))


def _upwards(sha: str, parent_of: Mapping[str, str]) -> list[str]:
    """A program, and those that it hangs from, the root last."""
    path = [sha]
    while path[-1] in parent_of:
        path.append(parent_of[path[-1]])
    return path


def is_file_name(text: str) -> bool:
    """Whether a program is named by a file."""
    try:
        return text.endswith(".py") or Path(text).exists()
    except OSError:  # no file can have a name like this
        return False


def source_of(path: Path) -> str:
    """What a source file holds, byte for byte: line ends are not translated, since the SHA counts them.

    Raises:
        ValueError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise ValueError(unreadable(path, error)) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}") from None


def _entry(stored: Mapping[str, Any], source: str) -> ArchiveEntry:
    if stored["format"] != ARCHIVE_FORMAT:
        raise ValueError(f"format {stored['format']}, not {ARCHIVE_FORMAT}")
    values = {one.name: stored[one.name] for one in fields(ArchiveEntry) if one.name != "source"}
    values["parents"] = tuple(values["parents"])
    values["verdict"] = None if values["verdict"] is None else verdict_of(values["verdict"])
    return ArchiveEntry(source=source, **values)


def _dumped(entry: ArchiveEntry) -> str:
    return json.dumps(entry.as_json(), indent=1, allow_nan=False) + "\n"


def _listed(shas: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(sha[:SHORT_SHA] for sha in shas[:most])
    return shown + (", ..." if len(shas) > most else "")
