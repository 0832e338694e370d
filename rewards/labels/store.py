"""The label store: every answer an annotator ever gave, in one SQLite file that is only added to.

A label's key is a hash of everything the answer depends on, so that a second run or seed finds what
the first one asked, and a late or repeated answer changes nothing (the first one stays). Any number of
processes of one machine may write and read at the same time. Who is about to ask claims the keys first, for
a lease, so that nothing is asked twice; the claims of a process that died end with their lease. An
acknowledged ``append`` survives ``kill -9``.

The store also knows which answers each run has got, so that a run's budget outlives a crash.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from envs.files import file_lock

SCHEMA_VERSION = 3
"""2: claims; 3: spent. An older file is read as it is, and upgraded when it is opened for writing."""
_APPLICATION_ID = 0x59454E44
"""Marks the file as a Yendor label store ("YEND")."""

_LABELS_SCHEMA = f"""
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
"""

_RUNS_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, until_s REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS spent (run TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (run, key)) STRICT, WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""

_CLAIM = """
INSERT INTO claims SELECT :key, :owner, :until_s WHERE NOT EXISTS (SELECT 1 FROM labels WHERE key = :key)
ON CONFLICT (key) DO UPDATE SET until_s = excluded.until_s WHERE owner = excluded.owner
"""

_BUSY_S = 30.0
"""A write waits so long for those of other processes."""

_MOUNTS = Path("/proc/self/mounts")
_NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3"}
    | {f"fuse.{name}" for name in ("ceph", "glusterfs", "rclone", "s3fs", "sshfs")}
)

_COLUMNS = {
    "key": "l.key",
    "caption_id": "l.caption_id",
    "text": "a.text",
    "second_id": "l.second_id",
    "second_text": "coalesce(b.text, '')",
    "prompt_version": "l.prompt_version",
    "model": "l.model",
    "model_revision": "l.model_revision",
    "goal": "l.goal",
    "value": "l.value",
    "probability": "l.probability",
    "raw_reply": "l.raw_reply",
    "failed": "l.failed",
    "time_s": "l.time_s",
}
"""``{field of Label: where it is}``."""
_SELECT = f"""
SELECT l.seq, {", ".join(_COLUMNS.values())}
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
    """:func:`label_key` of what was asked of whom."""
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
    """Soft value: the expectation of ``value`` under the annotator's probabilities of its choices (a tie counts 0.5);
    None where it gives none, or ``value`` is None."""
    raw_reply: str
    failed: bool
    """The reply could not be parsed, or was a refusal. Never a value of 0. It is the answer to its key all the same:
    another prompt version, model or revision asks afresh."""
    time_s: float
    """Unix time of the answer."""
    second_id: int = 0
    """Second caption of an ordered pair; 0 = the label is about a single caption."""
    second_text: str = ""


def label_key(
    text: str, *, prompt_version: str, model: str, model_revision: str, goal: str, second_text: str = ""
) -> str:
    """Content address of an answer: 32 hex digits over what was asked of whom.

    ``model_revision`` holds whatever else changes the annotator's answers (see ``LabelClient.revision``).
    """
    digest = blake2b(digest_size=16)
    for part in (text, second_text, prompt_version, model, model_revision, goal):
        data = part.encode()
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


class LabelStore:
    """Labels in a SQLite file that processes of one machine share.

    One object is used by one thread at a time (not always the same).

    Args:
        path: the file; made, with its folder, where it is missing (unless ``read_only``). Beside it lie
            SQLite's ``-wal`` and ``-shm`` while it is open, and a ``.lock`` that is held while it is being
            opened. For writing it must be on a local disk: what SQLite shares between processes (its
            write-ahead log's index) does not work over a network.
        read_only: labels are only looked at.
        clock: Unix time in seconds; leases are counted by it.

    Raises:
        LabelStoreError: the file is damaged, of another version, missing (``read_only``), on a network file
            system, or not a label store.
    """

    def __init__(self, path: Path | str, *, read_only: bool = False, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._clock = clock
        if read_only and not self.path.is_file():
            raise LabelStoreError(f"there is no label store at {self.path}")
        if not read_only:
            _check_is_local(self.path)
        try:
            self._db = self._open()
        except (sqlite3.DatabaseError, OSError) as error:
            raise LabelStoreError(f"label store {self.path} cannot be opened: {error}") from error

    def _open(self) -> sqlite3.Connection:
        if not self.read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        uri = f"{self.path.absolute().as_uri()}?mode={'ro' if self.read_only else 'rwc'}"
        with ExitStack() as undo:
            # The user may be another thread than the maker (an event loop's); never two at a time.
            db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
            undo.callback(db.close)
            if self.read_only:
                _check(db, self.path)
            else:
                with _opening(self.path):
                    _prepare(db, self.path)
            undo.pop_all()
        return db

    @contextmanager
    def _writing(self, *, durably: bool) -> Iterator[sqlite3.Connection]:
        """A transaction that waits for those of other processes.

        ``durably``: what it writes outlives a power cut too, not only a killed process.
        """
        if self.read_only:
            raise LabelStoreError(f"label store {self.path} was opened read-only")
        try:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durably else 'NORMAL'}")
            with self._db as db:
                db.execute("BEGIN IMMEDIATE")
                yield db
        except sqlite3.DatabaseError as error:
            raise LabelStoreError(f"label store {self.path} cannot be written: {error}") from error

    def append(self, labels: Iterable[Label], run: str | None = None) -> int:
        """Add labels, all or none; those whose key is there already change nothing (first wins).

        Claims of their keys end, also those of other owners.

        Args:
            labels: what was answered.
            run: id of the run that asked; :meth:`spent` counts them, those that came second too.

        Returns:
            How many were new.

        Raises:
            CaptionCollisionError: a caption id already stands for another text.
            LabelStoreError: the store was opened ``read_only``, or the disk refuses the write.
        """
        labels = list(labels)
        texts: dict[int, str] = {}
        for label in labels:
            known = texts.setdefault(label.caption_id, label.text)
            _same_text(label.caption_id, label.text, known, self.path)
            if label.second_id:
                known = texts.setdefault(label.second_id, label.second_text)
                _same_text(label.second_id, label.second_text, known, self.path)
        rows = [tuple(getattr(label, name) for name in _ROW) for label in labels]
        marks = ", ".join("?" * len(_ROW))
        with self._writing(durably=True) as db:
            self._append_captions(texts)
            before = db.total_changes
            db.executemany(f"INSERT OR IGNORE INTO labels ({', '.join(_ROW)}) VALUES ({marks})", rows)
            new = db.total_changes - before
            db.executemany("DELETE FROM claims WHERE key = ?", [(label.key,) for label in labels])
            if run is not None:
                db.executemany("INSERT OR IGNORE INTO spent VALUES (?, ?)", [(run, label.key) for label in labels])
            return new

    def claim(self, keys: Iterable[str], owner: str, lease_s: float) -> set[str]:
        """Which of these keys the owner may ask about now, exclusively, for ``lease_s`` seconds.

        Those are the keys that have no label and no other owner's claim. A claim that the owner holds
        already is renewed.

        Args:
            keys: keys that the owner is about to ask about.
            owner: a name that no other process uses.
            lease_s: the claim ends after so many seconds, should the owner not come back.

        Raises:
            LabelStoreError: the store was opened ``read_only``, or the disk refuses the write.
        """
        with self._writing(durably=False) as db:
            now_s = self._clock()
            db.execute("DELETE FROM claims WHERE until_s <= ?", (now_s,))
            row = {"owner": owner, "until_s": now_s + lease_s}
            return {key for key in keys if db.execute(_CLAIM, row | {"key": key}).rowcount}

    def release(self, keys: Iterable[str], owner: str) -> None:
        """End the owner's claims of these keys.

        Raises:
            LabelStoreError: the store was opened ``read_only``, or the disk refuses the write.
        """
        with self._writing(durably=False) as db:
            db.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", [(key, owner) for key in keys])

    def claimed(self, keys: Sequence[str], *, besides: str) -> set[str]:
        """Those of the keys that an owner other than ``besides`` has claimed now.

        Raises:
            LabelStoreError: the file cannot be read any more.
        """
        found: set[str] = set()
        for chunk, marks in _chunks(keys):
            query = f"SELECT key FROM claims WHERE owner != ? AND until_s > ? AND key IN ({marks})"
            found.update(key for (key,) in self._read(query, [besides, self._clock(), *chunk]))
        return found

    def spent(self, run: str) -> int:
        """Questions that a run has asked and whose answers it has got, however often it was started.

        Raises:
            LabelStoreError: the file cannot be read any more, or is an older one that was opened ``read_only``.
        """
        return self._read("SELECT count(*) FROM spent WHERE run = ?", [run])[0][0]

    def _read(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise LabelStoreError(f"label store {self.path} cannot be read: {error}") from error

    def _append_captions(self, texts: dict[int, str]) -> None:
        for ident, text in texts.items():
            self._db.execute("INSERT OR IGNORE INTO captions VALUES (?, ?)", (ident, text))
            (stored,) = self._db.execute("SELECT text FROM captions WHERE id = ?", (ident,)).fetchone()
            _same_text(ident, text, stored, self.path)

    def get(self, keys: Sequence[str]) -> dict[str, Label]:
        """``{key: label}`` for those of the keys that have one.

        Raises:
            LabelStoreError: the file cannot be read any more.
        """
        found: dict[str, Label] = {}
        for chunk, marks in _chunks(keys):
            for row in self._read(f"{_SELECT} WHERE l.key IN ({marks})", chunk):
                found[row[1]] = _label(row)
        return found

    def since(self, cursor: int = 0, limit: int = 10_000) -> tuple[list[Label], int]:
        """The next ``limit`` labels after ``cursor`` in the order they were added, and the new cursor.

        An empty list means that there are none yet.

        Raises:
            LabelStoreError: the file cannot be read any more.
        """
        rows = self._read(f"{_SELECT} WHERE l.seq > ? ORDER BY l.seq LIMIT ?", (cursor, limit))
        return [_label(row) for row in rows], rows[-1][0] if rows else cursor

    def count(self) -> int:
        """Labels stored, failures and abstentions included.

        Raises:
            LabelStoreError: the file cannot be read any more.
        """
        return self._read("SELECT count(*) FROM labels")[0][0]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_ROW = tuple(f.name for f in fields(Label) if f.name not in ("text", "second_text"))


def _label(row: tuple[Any, ...]) -> Label:
    found: dict[str, Any] = dict(zip(_COLUMNS, row[1:], strict=True))
    found["failed"] = bool(found["failed"])
    if found["value"] is None:  # older rows may hold one that says nothing
        found["probability"] = None
    return Label(**found)


def _same_text(ident: int, text: str, other: str, path: Path) -> None:
    if text != other:
        raise CaptionCollisionError(
            f"caption id {ident} stands for {other!r} in {path} and cannot also stand for {text!r}"
        )


def _chunks(keys: Sequence[str], size: int = 500) -> Iterator[tuple[list[str], str]]:
    """Keys in lists that SQLite takes as parameters, and as many question marks."""
    for start in range(0, len(keys), size):
        chunk = list(keys[start : start + size])
        yield chunk, ", ".join("?" * len(chunk))


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """One process at a time makes or upgrades the file; a process that dies lets go."""
    lock = file_lock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire(timeout=_BUSY_S, poll_interval=0.02)
    except TimeoutError:
        raise LabelStoreError(
            f"label store {path} has been locked for {_BUSY_S:g} s by a process that opens it, or by an "
            "older version of this program that writes it"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make a new file a label store, or upgrade an old one."""
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    version = _check(db, path) if tables else 0
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LabelStoreError(f"label store {path} cannot be shared on this file system; use a path on a local disk")
    if version == 0:
        db.executescript(f"BEGIN IMMEDIATE; {_LABELS_SCHEMA} {_RUNS_SCHEMA} COMMIT;")
    elif version < SCHEMA_VERSION:
        db.executescript(f"BEGIN IMMEDIATE; {_RUNS_SCHEMA} COMMIT;")


def _check(db: sqlite3.Connection, path: Path) -> int:
    """The schema version of a sound label store."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION_ID:
        raise LabelStoreError(f"{path} is a database, but not a label store")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if not 1 <= version <= SCHEMA_VERSION:
        raise LabelStoreError(
            f"label store {path} has schema version {version}, this program reads versions 1 to {SCHEMA_VERSION}"
        )
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise LabelStoreError(f"label store {path} is damaged ({verdict}); restore a copy of it or use another path")
    return version


def _check_is_local(path: Path) -> None:
    mounts = ""
    with suppress(OSError):  # not on this system: nothing can be said
        mounts = _MOUNTS.read_text()
    kind = file_system(path.absolute().parent.resolve(), mounts)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise LabelStoreError(
            f"label store {path} is on a network file system ({kind}), where SQLite cannot share it safely; "
            "use a path on a local disk"
        )


def file_system(folder: Path, mounts: str) -> str:
    """Type of the file system that a folder is on, "" where it is not known.

    Args:
        folder: absolute, without links.
        mounts: lines of ``/proc/self/mounts``.
    """
    kind, depth = "", -1
    for line in mounts.splitlines():
        _, point, found, *_ = line.split()
        # Blanks and the like are written as octal numbers.
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point))
        if folder.is_relative_to(point) and len(point.parts) >= depth:  # the later mount hides the earlier one
            kind, depth = found, len(point.parts)
    return kind
