"""What the commands about reward programs share: finding one, refusing one, and showing what others wrote."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.data import Config
from launch.errors import UserError
from launch.rewards import words
from rewards.auto.archive import Archive, ArchiveEntry, is_file_name, source_of
from rewards.auto.config import AutoConfig
from rewards.auto.program import SHORT_SHA, Program, Rejection, sha_of
from rewards.auto.verdict import Verdict

if TYPE_CHECKING:
    from rich.text import Text

    from envs.recording import EpisodeRecord

NOT_JUDGED = "not judged"


class ArchiveFlags(Config):
    """Where programs are kept."""

    archive: Path = AutoConfig.model_fields["archive"].default
    """Folder of the programs that a SHA is looked up in."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A program that was named by its SHA or by a file."""

    name: str
    """As it was typed."""
    source: str
    entry: ArchiveEntry | None
    """What the archive knows of it; None where it is not there."""

    @property
    def label(self) -> str:
        """The file, or the first digits of the SHA."""
        return self.name if is_file_name(self.name) else sha_of(self.source)[:SHORT_SHA]


def find(name: str, folder: Path) -> Named:
    """A program by its SHA, the first digits of it, or its file.

    Raises:
        UserError: there is none, or a file of it is damaged.
    """
    archive = Archive(folder)
    try:
        if not is_file_name(name):
            entry = archive.get(name)
            return Named(name=name, source=entry.source, entry=entry)
        source = source_of(Path(name))
        sha = sha_of(source)
        return Named(name=name, source=source, entry=archive.get(sha) if sha in archive.shas() else None)
    except ValueError as error:
        raise UserError(str(error)) from None


def is_path(name: str) -> bool:
    """Whether it names a file rather than a SHA, be the file there or not."""
    return "/" in name or is_file_name(name)


def admitted(name: str, folder: Path) -> Program:
    """A program that may be run.

    Raises:
        UserError: there is none of this name, or it cannot be read.
        ProgramRejectedError: it may not be run.
    """
    from rewards.auto.admission import admit, admit_file

    if not is_path(name):
        return admit(find(name, folder).source)
    try:
        return admit_file(Path(name))
    except OSError as error:
        raise UserError(f"{name} cannot be read: {(error.strerror or 'it failed').lower()}") from None


def read_record(path: Path) -> EpisodeRecord:
    """A recorded episode.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    from envs.recording import EpisodeRecord

    try:
        return EpisodeRecord.load(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {(error.strerror or 'it failed').lower()}") from None
    except ValueError as error:
        raise UserError(str(error)) from None


def shown(text: str) -> str:
    """Text that others wrote, fit for a terminal: what is no visible character, tab or newline is spelled out."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character)[0] != "C" else ascii(character)[1:-1]
        for character in text
    )


def judged(verdict: Verdict | None) -> str:
    """A verdict in one line, with the first reason."""
    if verdict is None:
        return NOT_JUDGED
    return "accepted" if verdict.accepted else f"rejected, {verdict.reasons[0]}"


def success(fitness: Mapping[str, Any], seeds: str = "selection") -> str:
    """'62.0 % (52.0 % to 71.0 %, n = 100)', or '-'."""
    found = fitness.get(seeds) or {}
    return words.accuracy(found.get("success"), found.get("low"), found.get("high"), int(found.get("n") or 0))


def rejection_json(name: str, rejection: Rejection) -> dict[str, Any]:
    """A file that was refused before any of it ran, for programs."""
    return {
        "file": name,
        "verdict": "rejected",
        "code": rejection.code,
        "line": rejection.line,
        "column": rejection.column,
        "reason": rejection.reason,
        "hint": rejection.hint,
        "source_line": rejection.source_line,
    }


def rejection_text(name: str, rejection: Rejection) -> Text:
    """The same for people: the line, a caret under the place, the reason, what to write instead."""
    from rich.text import Text

    from rewards.auto.rejections import REJECTIONS

    place = "" if rejection.line is None else f", line {rejection.line}"
    text = Text.assemble((f"{shown(name)}{place}: ", "bold"), ("rejected before any of it ran", "bold red"))
    text.append(f"\n  {rejection.code}: {shown(rejection.reason)}")
    if rejection.line is not None and rejection.source_line:
        text.append(f"\n{rejection.line:>6} | {shown(rejection.source_line)}")
        if rejection.column is not None:
            before = shown(rejection.source_line[: rejection.column - 1])
            indent = "".join("\t" if character == "\t" else " " for character in before)
            text.append("\n       | " + indent).append("^", "bold red")
    if rejection.code in REJECTIONS:
        text.append(f"\n  why: {REJECTIONS[rejection.code].why}", "dim")
    if rejection.hint:
        text.append(f"\n  instead: {shown(rejection.hint)}")
    return text.append(f"\n  more: yendor rewards codes {rejection.code}\n", "dim")
