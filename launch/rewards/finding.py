"""Finds what the commands about reward programs are given: a program by its name, a recorded episode by its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from envs.data import Config
from envs.files import unreadable
from launch.errors import UserError
from rewards.auto.archive import Archive, ArchiveEntry, is_file_name, source_of
from rewards.auto.config import AutoConfig
from rewards.auto.program import SHORT_SHA, Program, sha_of

if TYPE_CHECKING:
    from envs.recording import EpisodeRecord


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
    from rewards.auto.language.admission import admit, admit_file

    if not is_path(name):
        return admit(find(name, folder).source)
    try:
        return admit_file(Path(name))
    except OSError as error:
        raise UserError(unreadable(name, error)) from None


def read_record(path: Path) -> EpisodeRecord:
    """A recorded episode.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    from envs.recording import EpisodeRecord

    try:
        return EpisodeRecord.load(path)
    except OSError as error:
        raise UserError(unreadable(path, error)) from None
    except ValueError as error:
        raise UserError(str(error)) from None
