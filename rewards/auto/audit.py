"""What was done with reward programs, in a file that shows when it was touched.

One JSON object a line, only ever appended::

    {"previous": "9f2c...", "time": "2026-03-01T12:00:00.000000+00:00", "kind": "quarantined", ..., "sha256": "41d0..."}

``previous`` is the SHA-256 of the line before (64 zeros in the first one), without its line end; ``sha256``, always
last, is that of the line up to the comma before it. So a change, an insertion or a removal breaks the chain where it
was made. Two things a chain alone cannot show: lines cut off at the end (compare ``AuditLog.head`` with what a
checkpoint remembers), and a file written anew as a whole.

A crash in the middle of a write leaves a last line without a line end. It is reported, never repaired: the next append
ends it, in the same line, with an object of kind ``seal`` whose ``previous`` is the SHA-256 of the torn text and whose
``after`` is that of the line before it. A line that is broken and not sealed stays an error for ever.

Only printable ASCII is written, so that no message can play tricks on a terminal.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NO_LINE = "0" * 64
"""What the first line has as ``previous``."""

MAX_TEXT = 2048
"""Bytes of a text, in UTF-8; what is longer is cut, and says so."""

MAX_SOURCE = 16_384
"""The same of the field ``source``: as long as a program may be."""

_SEAL = "seal"
_START = b'{"previous":"'
_TAIL = b',"sha256":"%s"}'
_TAIL_LENGTH = len(_TAIL) - 2 + 64
_OURS = frozenset({"previous", "time", "kind", "sha256"})


@dataclass(frozen=True)
class Break:
    """Where a log does not hold."""

    line: int
    """From 1 on."""
    why: str
    torn: bool = False
    """It is the last line and has no end, as a crash leaves it: the next append seals it."""


class BrokenLogError(Exception):
    """A log was touched, or is damaged; the message says at which line."""


class AuditLog:
    """Appends to a log, and goes on with one that is there.

    Conventional fields: ``run``, ``program`` (SHA-256 of the source), ``source``, ``model``, ``prompt`` (SHA-256),
    ``seed``, ``verdict``, ``codes``, ``dry_run``, ``engine``, ``isolation``, ``step``, ``batch``, ``why`` and
    ``counters``.

    Args:
        path: made on the first append, readable by its owner only.

    Raises:
        BrokenLogError: the file does not hold, other than by a torn last line.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read()

    def _read(self) -> None:
        content = self._path.read_bytes() if self._path.exists() else b""
        found = _examined(content)
        if found.broken is not None and not found.broken.torn:
            raise BrokenLogError(f"{self._path} line {found.broken.line}: {found.broken.why}")
        self.torn = found.broken
        """The torn last line, until an append seals it; None where there is none."""
        self.head = found.head
        """SHA-256 of the last whole line; ``NO_LINE`` where there is none."""
        self._tail = found.tail
        self._size = len(content)

    def append(self, kind: str, **fields: Any) -> None:
        """Write a line; it is on the disk when this returns.

        Args:
            kind: what happened, in a word: ``admitted``, ``rejected``, ``activated``, ``quarantined``, ...
            **fields: numbers, texts, booleans, None, and lists and mappings of these. Texts are cut at ``MAX_TEXT``;
                numbers that are not finite become texts.

        Raises:
            ValueError: ``kind`` is the log's own, or a field has a name of the log's own.
            TypeError: a field is of another type.
            BrokenLogError: somebody else has written to the file since.
            OSError: it could not be written; what was written in part is sealed by the next append.
        """
        if kind == _SEAL or not _OURS.isdisjoint(fields):
            raise ValueError(f"a line cannot be of kind '{_SEAL}' or have its own {', '.join(sorted(_OURS))}")
        seal = b"" if self.torn is None else _line(_sha(self._tail), _SEAL, {"after": self.head})
        head = self.head if self.torn is None else _sha(self._tail + seal)
        line = _line(head, kind, fields)
        self._write(seal + b"\n" + line + b"\n" if seal else line + b"\n")
        self.head, self.torn, self._tail = _sha(line), None, b""

    def _write(self, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_size != self._size:
                raise BrokenLogError(f"{self._path} was written to by somebody else")
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            self._read()
            raise
        finally:
            os.close(descriptor)
        self._size += len(content)


def verify(path: Path) -> Break | None:
    """The first line of a log that does not hold; None where all do.

    Raises:
        OSError: the file cannot be read.
    """
    return _examined(path.read_bytes()).broken


def read(path: Path) -> list[Mapping[str, Any]]:
    """The lines of a log that holds, seals among them; torn ones are left out.

    Raises:
        BrokenLogError: a line does not hold, other than by being torn.
        OSError: the file cannot be read.
    """
    found = _examined(path.read_bytes())
    if found.broken is not None and not found.broken.torn:
        raise BrokenLogError(f"{path} line {found.broken.line}: {found.broken.why}")
    return found.lines


# ---- writing


def _sha(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _line(previous: str, kind: str, fields: Mapping[str, Any]) -> bytes:
    caps = {"source": MAX_SOURCE}
    plain = {name: _plain(value, caps.get(name, MAX_TEXT)) for name, value in fields.items()}
    stated = {"previous": previous, "time": datetime.now(UTC).isoformat(timespec="microseconds")}
    stated |= {"kind": _plain(kind, MAX_TEXT), **plain}
    body = json.dumps(stated, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()[:-1]
    return body + _TAIL % _sha(body).encode()


def _plain(value: Any, cap: int) -> Any:
    """The same for JSON, with texts cut."""
    if isinstance(value, str):
        return _cut(value, cap)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {_cut(str(name), cap): _plain(entry, cap) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(entry, cap) for entry in value]
    return value


def _cut(text: str, cap: int) -> str:
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= cap:
        return text
    return encoded[:cap].decode("utf-8", "ignore") + f" ... ({len(encoded) - cap} bytes cut)"


# ---- checking


@dataclass(frozen=True)
class _Examined:
    broken: Break | None
    head: str
    """Of the last whole line before the break."""
    tail: bytes
    """The torn line."""
    lines: list[Mapping[str, Any]]


def _examined(content: bytes) -> _Examined:
    *whole, tail = content.split(b"\n")
    head, lines = NO_LINE, []
    for number, line in enumerate(whole, start=1):
        stated = _following(line, head) or _sealed(line, head)
        if stated is None:
            why = (
                "its text does not fit its own hash" if _stated(line) is None else "it does not follow the line before"
            )
            return _Examined(Break(number, why), head, b"", lines)
        lines.append(stated)
        head = _sha(line)
    torn = Break(len(whole) + 1, "it is torn: it has no end", torn=True) if tail else None
    return _Examined(torn, head, tail, lines)


def _stated(line: bytes) -> dict[str, Any] | None:
    """What a line says; None where its own hash does not fit."""
    body = line[:-_TAIL_LENGTH]
    if not body or line != body + _TAIL % _sha(body).encode():
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None


def _following(line: bytes, head: str) -> dict[str, Any] | None:
    """What a line says that follows the line whose hash is ``head``; None where it is another."""
    stated = _stated(line)
    fits = stated is not None and stated.get("previous") == head and stated.get("kind") != _SEAL
    return stated if fits else None


def _sealed(line: bytes, head: str) -> dict[str, Any] | None:
    """The seal of a torn line that followed the line whose hash is ``head``; None where it is another."""
    at = line.rfind(_START)
    stated = _stated(line[max(at, 0) :])
    if stated is None or stated.get("kind") != _SEAL:
        return None
    return stated if (stated.get("previous"), stated.get("after")) == (_sha(line[:at]), head) else None
