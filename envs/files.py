"""Files that survive a crash, locks that vanish with their process, and the temporary folders of games.

A file is replaced whole or not at all (``replacing``), or grows by lines of JSON whose torn end is cut off when
it is opened again (``JsonLines``). Locks are ``flock`` of the operating system (``file_lock``).

NLE makes a folder for each game and leaves it behind when its process is killed. Here all of a process's games
live under one folder (``hold_folder``), which goes when the last holder lets go, at exit and at SIGTERM. What even
that misses (SIGKILL) is found by ``sweep``: a folder whose lock nobody holds has no living owner.

Nothing but the standard library is imported here, so that commands can use it before they know what to do.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filelock import BaseFileLock

_PREFIX = "yendor-games-"
_OWNER_LOCK = "owner.lock"


# ---- whole files


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder (new files, renames) survive a power cut."""
    _fsync(folder, os.O_DIRECTORY)


def _fsync(path: Path, flags: int = 0) -> None:
    handle = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until the disk has it.

    Raises:
        FileExistsError: there is one already.
    """
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path``, to be written in the block, that takes its place in one step when the block ends.

    A reader, or a crash, sees the old content or the new, never a part; a failure leaves ``path`` as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_atomic(path: Path, text: str) -> None:
    """Replace a file by ``text`` in one step, as ``replacing`` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode())


def reason_of(error: OSError) -> str:
    """The operating system's own word for a failure, fit for the middle of a sentence: "no such file or directory"."""
    return (error.strerror or "it failed").lower()


def unreadable(name: object, error: OSError) -> str:
    """The sentence about a file that cannot be read: "run.json cannot be read: permission denied"."""
    return f"{name} cannot be read: {reason_of(error)}"


# ---- lines of JSON


def jsonable(value: Any) -> Any:
    """``value`` in JSON's own types.

    Numbers that JSON has no word for (nan, inf) become null, arrays and sets lists, keys and paths text.
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(inner) for inner in value]
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, PurePath) else value


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, in order; none if there is no file. A last line that a crash cut short is left out.

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


def cut_torn_line(path: Path) -> None:
    """Cut off a last line that a crash left unfinished; a file that does not exist is made, empty."""
    with path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


class JsonLines:
    """A JSONL file that one process appends to; every line is flushed as it is written.

    Opening it cuts off a last line that a crash left unfinished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()  # events come from other threads too
        cut_torn_line(path)
        self._file = path.open("a", encoding="utf-8")

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line of what ``jsonable`` makes of a record."""
        line = json.dumps(jsonable(record), allow_nan=False, ensure_ascii=False) + "\n"
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


# ---- locks


def file_lock(path: Path) -> BaseFileLock:
    """A lock between processes on a file, which is made (its folder too) where there is none and stays; not held yet.

    It vanishes with its process, however that dies. Any thread of the process may release it. What the file holds
    is left alone, so that an owner can write its name there.

    Returns:
        To be used in a ``with`` block, or by ``acquire(blocking=False)``, ``acquire(timeout=seconds)`` and
        ``release()``. ``acquire`` raises ``TimeoutError`` where another holds it, and ``OSError`` where the file
        cannot be opened or its file system has no locks.
    """
    from filelock import FileLock  # 60 ms: it brings asyncio

    return FileLock(path, thread_local=False, fallback_to_soft=False)


# ---- temporary folders of games


class _ProcessFolder:
    """This process's folder; a forked child gets its own and never removes its parent's."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        base = os.environ.get("YENDOR_TMPDIR") or tempfile.gettempdir()
        Path(base).mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{self.pid}-", dir=base))
        self._lock = file_lock(self.path / _OWNER_LOCK)
        self._lock.acquire()

    def remove(self) -> None:
        if self.pid == os.getpid():
            shutil.rmtree(self.path, ignore_errors=True)
            self._lock.release()


_folder: _ProcessFolder | None = None
_holders = 0
_handlers_pid = 0


def hold_folder() -> Path:
    """This process's temporary folder for games; balance with ``release_folder``."""
    global _folder, _holders
    if _folder is None or _folder.pid != os.getpid():
        _folder, _holders = _ProcessFolder(), 0
        _install_handlers()
    _holders += 1
    return _folder.path


def release_folder() -> None:
    """Let go of the temporary folder; the last holder removes it."""
    global _holders
    _holders -= 1
    if _holders <= 0:
        remove_folder()


def remove_folder() -> None:
    """Remove this process's temporary folder now, whether or not it is held."""
    global _folder, _holders
    if _folder is not None and _folder.pid == os.getpid():
        _folder.remove()
        _folder, _holders = None, 0


@contextmanager
def tempfile_inside(folder: Path) -> Iterator[None]:
    """Let ``tempfile`` make its files in ``folder``."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def sweep(run_tmp: Path) -> int:
    """Remove the temporary folders under ``run_tmp`` whose process is gone; returns how many."""
    removed = 0
    for folder in run_tmp.glob(f"{_PREFIX}*"):
        if not (folder / _OWNER_LOCK).exists():  # being made, or being removed, right now
            continue
        lock = file_lock(folder / _OWNER_LOCK)
        try:
            lock.acquire(blocking=False)
        except TimeoutError:  # its owner lives
            continue
        try:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
        finally:
            lock.release()
    return removed


def _install_handlers() -> None:
    """Once in each process; the SIGTERM handler passes on to the one that was there."""
    global _handlers_pid
    if _handlers_pid == os.getpid():
        return
    inherited, _handlers_pid = _handlers_pid != 0, os.getpid()
    if not inherited:  # a forked child has both already
        atexit.register(remove_folder)
    if inherited or threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)
    if before is None or before == signal.SIG_IGN:  # not Python's to replace, or deliberately ignored
        return

    def on_sigterm(number: int, frame: FrameType | None) -> Any:
        remove_folder()
        if callable(before):
            return before(number, frame)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        return None

    signal.signal(signal.SIGTERM, on_sigterm)
