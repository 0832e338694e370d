"""Files that survive a crash: written whole or not at all, and lines that are appended and repaired."""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from launch.errors import UserError


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder (new files, renames) survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, text: str) -> None:
    """Replace a file in one step: a reader, or a crash, sees the old text or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        write_synced(temporary, text.encode())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def result_path(out: str | None) -> Path | None:
    """Where ``--json OUT`` is to be written once hours of work are over; its folder is made now.

    Args:
        out: as it was typed; None = nowhere.

    Raises:
        UserError: it is a folder, or its folder cannot be made or written.
    """
    if out is None:
        return None
    path = Path(out)
    try:
        is_folder = path.is_dir()
        if not is_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent):
                pass  # only to see that it can be
    except OSError as error:
        raise UserError(f"--json {out} cannot be written: {(error.strerror or 'it failed').lower()}") from None
    if is_folder:
        raise UserError(f"--json {path} is a folder; give the name of a file")
    return path


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, in order; a last line that a crash cut short is left out.

    Raises:
        ValueError: a complete line is not a JSON object; names the file and the line.
    """
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            return
        try:
            found = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{path}, line {number} is not a JSON object")
        yield found


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, PurePath) else value


class JsonLines:
    """A JSONL file that one process appends to; every line is flushed as it is written.

    Opening it cuts off a last line that a crash left unfinished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()  # events come from other threads too
        self._cut_unfinished()
        self._file = path.open("a", encoding="utf-8")

    def _cut_unfinished(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self.path, whole)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line. Numbers that JSON has no word for (nan, inf) become null; paths become text."""
        line = json.dumps(_jsonable(record), allow_nan=False, ensure_ascii=False) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> int:
        """Drop the lines that are not wanted; returns how many went."""
        lines = list(read_lines(self.path))
        kept = [line for line in lines if wanted(line)]
        if len(kept) < len(lines):
            self._file.close()
            write_atomic(self.path, "".join(json.dumps(k, ensure_ascii=False) + "\n" for k in kept))
            self._file = self.path.open("a", encoding="utf-8")
        return len(lines) - len(kept)

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        self._file.close()
