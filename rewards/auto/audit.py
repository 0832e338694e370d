"""What was done with reward programs: a JSONL file that is only ever appended to.

One object a line: ``{"time": "2026-03-01T12:00:00.000000+00:00", "kind": "quarantined", ...}``. Only printable ASCII is
written, so that no message can play tricks on a terminal. A last line that a crash left without an end is left out when
the log is read, and cut off by the next append.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MAX_TEXT = 2048
"""Bytes of a text, in UTF-8; what is longer is cut, and says so."""

MAX_SOURCE = 16_384
"""The same of the field ``source``: as long as a program may be."""

_OURS = frozenset({"time", "kind"})


class AuditLog:
    """Appends to a log, and goes on with one that is there.

    A search writes ``search``, ``round``, ``by``, ``program`` (SHA-256 of the source), ``source``, ``prompt``
    (SHA-256), ``codes`` and ``why``; a run ``program``, ``fallbacks`` and ``isolation``, or what ``Quarantined`` holds.

    Args:
        path: made on the first append, readable by its owner only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, kind: str, **fields: Any) -> None:
        """Write a line; it is on the disk when this returns.

        Args:
            kind: what happened, in a word: ``admitted``, ``rejected``, ``activated``, ``quarantined``, ...
            **fields: numbers, texts, booleans, None, and lists and mappings of these. Texts are cut at ``MAX_TEXT``;
                numbers that are not finite become texts.

        Raises:
            ValueError: a field is called ``time``, which the log writes itself.
            TypeError: a field is of another type.
            OSError: it could not be written; what was written in part is cut off by the next append.
        """
        if not _OURS.isdisjoint(fields):
            raise ValueError(f"a line's {', '.join(sorted(_OURS))} are written by the log itself")
        line = _line(kind, fields)
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                file.truncate(os.pread(descriptor, size, 0).rfind(b"\n") + 1)
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)


def read(path: Path) -> list[Mapping[str, Any]]:
    """The lines of a log; a last one that a crash cut short is left out.

    Raises:
        ValueError: a whole line is not a JSON object; names the file and the line.
        OSError: the file cannot be read.
    """
    *whole, _ = path.read_bytes().split(b"\n")
    return [_read(line, f"{path}, line {number}") for number, line in enumerate(whole, start=1)]


def _read(line: bytes, place: str) -> Mapping[str, Any]:
    try:
        stated = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place} is not JSON: {error}") from error
    if not isinstance(stated, dict):
        raise ValueError(f"{place} is not a JSON object")
    return stated


def _line(kind: str, fields: Mapping[str, Any]) -> bytes:
    caps = {"source": MAX_SOURCE}
    stated = {"time": datetime.now(UTC).isoformat(timespec="microseconds"), "kind": _plain(kind, MAX_TEXT)}
    stated |= {name: _plain(value, caps.get(name, MAX_TEXT)) for name, value in fields.items()}
    return json.dumps(stated, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"


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
