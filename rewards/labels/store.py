"""The label store: every answer an annotator ever gave, in one SQLite file that is only added to.

A label's key is a hash of everything the answer depends on, so that a second run or seed finds what
the first one asked, and a late or repeated answer changes nothing (the first one stays). One process
writes, holding a lock file; any number may read while it does. An acknowledged ``append`` survives
``kill -9``.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x59454E44
"""Marks the file as a Yendor label store ("YEND")."""

_SCHEMA = f"""
BEGIN;
CREATE TABLE captions (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;
CREATE TABLE labels (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE,
    caption_id INTEGER NOT NULL REFERENCES captions(id), second_id INTEGER NOT NULL,
    prompt_version TEXT NOT NULL, model TEXT NOT NULL, model_revision TEXT NOT NULL, goal TEXT NOT NULL,
    value REAL, probability REAL, raw_reply TEXT NOT NULL, failed INTEGER NOT NULL, time_s REAL NOT NULL
) STRICT;
CREATE TRIGGER labels_stay BEFORE UPDATE ON labels BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END;
CREATE TRIGGER labels_last BEFORE DELETE ON labels BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END;
CREATE TRIGGER captions_stay BEFORE UPDATE ON captions
    BEGIN SELECT RAISE(ABORT, 'captions are append-only'); END;
CREATE TRIGGER captions_last BEFORE DELETE ON captions
    BEGIN SELECT RAISE(ABORT, 'captions are append-only'); END;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

_SELECT = """
SELECT l.seq, l.key, l.caption_id, a.text, l.prompt_version, l.model, l.model_revision, l.goal, l.value,
       l.probability, l.raw_reply, l.failed, l.time_s, l.second_id, coalesce(b.text, '')
FROM labels l JOIN captions a ON a.id = l.caption_id LEFT JOIN captions b ON b.id = l.second_id
"""


class LabelStoreError(ValueError):
    """The label store cannot be used as asked; the message names the file and the reason."""


class CaptionCollisionError(LabelStoreError):
    """Two captions with different texts have the same id; their labels would mix."""


@dataclass(frozen=True, slots=True)
class Label:
    """One answer of an annotator about one caption, or about an ordered pair of captions."""

    key: str
    """:func:`label_key` of everything the answer depends on."""
    caption_id: int
    text: str
    """Canonical text of the caption."""
    prompt_version: str
    model: str
    model_revision: str
    goal: str
    value: float | None
    """What the caption is worth; None where the annotator abstained or its reply could not be parsed."""
    probability: float | None
    """Soft value: the annotator's probability that ``value`` is 1; None where it gives none."""
    raw_reply: str
    failed: bool
    """The reply could not be parsed. Never a value of 0."""
    time_s: float
    """Unix time of the answer."""
    second_id: int = 0
    """Second caption of an ordered pair; 0 = the label is about a single caption."""
    second_text: str = ""


def label_key(
    text: str, *, prompt_version: str, model: str, model_revision: str, goal: str, second_text: str = ""
) -> str:
    """Content address of an answer: 32 hex digits over everything that it depends on."""
    digest = blake2b(digest_size=16)
    for part in (text, second_text, prompt_version, model, model_revision, goal):
        data = part.encode()
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


class LabelStore:
    """Labels in a SQLite file: appended by one process, read by many.

    Args:
        path: the file; made, with its folder, where it is missing (unless ``read_only``).
        read_only: open beside a writer, without taking the lock.

    Raises:
        LabelStoreError: another process writes the file, it is damaged, of another version, missing
            (``read_only``), or not a label store.
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._lock_fd: int | None = None
        if read_only and not self.path.is_file():
            raise LabelStoreError(f"there is no label store at {self.path}")
        if not read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_fd = _lock(self.path)
        try:
            self._db = self._open()
        except BaseException:
            self._unlock()
            raise

    def _open(self) -> sqlite3.Connection:
        mode = "ro" if self.read_only else "rwc"
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        # The owner may be another thread than the maker (an event loop's); never two at a time.
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA busy_timeout = 5000")
            is_new = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            if not (is_new and not self.read_only):
                _check(db, self.path)
            if not self.read_only:
                db.execute("PRAGMA journal_mode = WAL")
                # FULL: an acknowledged label outlives a power cut too, not only a killed process.
                db.execute("PRAGMA synchronous = FULL")
            if is_new:
                db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            db.close()
            raise LabelStoreError(f"label store {self.path} cannot be opened: {error}") from error
        except LabelStoreError:
            db.close()
            raise
        return db

    def append(self, labels: Iterable[Label]) -> int:
        """Add labels, all or none; those whose key is there already change nothing (first wins).

        Returns:
            How many were new.

        Raises:
            CaptionCollisionError: a caption id already stands for another text.
            LabelStoreError: the store was opened ``read_only``, or the disk refuses the write.
        """
        if self.read_only:
            raise LabelStoreError(f"label store {self.path} was opened read-only")
        labels = list(labels)
        texts: dict[int, str] = {}
        for label in labels:
            known = texts.setdefault(label.caption_id, label.text)
            _same_text(label.caption_id, label.text, known, self.path)
            if label.second_id:
                known = texts.setdefault(label.second_id, label.second_text)
                _same_text(label.second_id, label.second_text, known, self.path)
        rows = [tuple(getattr(label, name) for name in _ROW) for label in labels]
        try:
            with self._db as db:
                db.execute("BEGIN IMMEDIATE")
                self._append_captions(texts)
                before = db.total_changes
                marks = ", ".join("?" * len(_ROW))
                db.executemany(f"INSERT OR IGNORE INTO labels ({', '.join(_ROW)}) VALUES ({marks})", rows)
                return db.total_changes - before
        except sqlite3.OperationalError as error:
            raise LabelStoreError(f"label store {self.path} cannot be written: {error}") from error

    def _append_captions(self, texts: dict[int, str]) -> None:
        for ident, text in texts.items():
            self._db.execute("INSERT OR IGNORE INTO captions VALUES (?, ?)", (ident, text))
            (stored,) = self._db.execute("SELECT text FROM captions WHERE id = ?", (ident,)).fetchone()
            _same_text(ident, text, stored, self.path)

    def get(self, keys: Sequence[str]) -> dict[str, Label]:
        """``{key: label}`` for those of the keys that have one."""
        found: dict[str, Label] = {}
        for start in range(0, len(keys), 500):
            chunk = keys[start : start + 500]
            marks = ", ".join("?" * len(chunk))
            for row in self._db.execute(f"{_SELECT} WHERE l.key IN ({marks})", list(chunk)):
                found[row[1]] = _label(row)
        return found

    def since(self, cursor: int = 0, limit: int = 10_000) -> tuple[list[Label], int]:
        """The next ``limit`` labels after ``cursor`` in the order they were added, and the new cursor.

        An empty list means that there are none yet.
        """
        query = f"{_SELECT} WHERE l.seq > ? ORDER BY l.seq LIMIT ?"
        rows = self._db.execute(query, (cursor, limit)).fetchall()
        return [_label(row) for row in rows], rows[-1][0] if rows else cursor

    def count(self) -> int:
        """Labels stored, failures and abstentions included."""
        return self._db.execute("SELECT count(*) FROM labels").fetchone()[0]

    def snapshot(self, path: Path | str) -> None:
        """Write a consistent copy of the store to a new file, while labels may be added.

        Raises:
            LabelStoreError: the file exists.
        """
        if Path(path).exists():
            raise LabelStoreError(f"cannot write a snapshot of {self.path} to {path}: the file exists")
        with closing(sqlite3.connect(path)) as copy:
            self._db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")

    def close(self) -> None:
        """Close the file and give up the lock."""
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_ROW = tuple(f.name for f in fields(Label) if f.name not in ("text", "second_text"))


def _label(row: tuple[Any, ...]) -> Label:
    values = list(row[1:])
    values[10] = bool(values[10])
    return Label(*values)


def _same_text(ident: int, text: str, other: str, path: Path) -> None:
    if text != other:
        raise CaptionCollisionError(
            f"caption id {ident} stands for {other!r} in {path} and cannot also stand for {text!r}"
        )


def _lock(path: Path) -> int:
    lock_path = path.with_name(path.name + ".lock")
    fd = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise LabelStoreError(
            f"label store {path} is being written by process {owner}; open it read-only, or use another path"
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, str(os.getpid()).encode())
    return fd


def _check(db: sqlite3.Connection, path: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION_ID:
        raise LabelStoreError(f"{path} is a database, but not a label store")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise LabelStoreError(
            f"label store {path} has schema version {version}, this program reads version {SCHEMA_VERSION}"
        )
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise LabelStoreError(f"label store {path} is damaged ({verdict}); restore a snapshot or use another path")
