"""Temporary folders of games: one folder for each process, removed at every kind of end that can be seen.

NLE makes a folder for each game and leaves it behind when its process is killed. Here all of a process's
games live under one folder, which goes at ``release`` (when the last holder lets go), at exit and at SIGTERM.
What even that misses (SIGKILL) is found by ``sweep``: a folder whose lock nobody holds has no living owner.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

_PREFIX = "yendor-games-"
_LOCK = "owner.lock"


class _ProcessFolder:
    """This process's folder; a forked child gets its own and never removes its parent's."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        base = os.environ.get("YENDOR_TMPDIR") or tempfile.gettempdir()
        Path(base).mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{self.pid}-", dir=base))
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        if self.pid == os.getpid():
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)


_folder: _ProcessFolder | None = None
_holders = 0
_handlers_pid = 0


def hold() -> Path:
    """This process's folder for games; balance with ``release``."""
    global _folder, _holders
    if _folder is None or _folder.pid != os.getpid():
        _folder, _holders = _ProcessFolder(), 0
        _install_handlers()
    _holders += 1
    return _folder.path


def release() -> None:
    """Let go of the folder; the last holder removes it."""
    global _holders
    _holders -= 1
    if _holders <= 0:
        remove()


def remove() -> None:
    """Remove this process's folder now, whoever holds it."""
    global _folder, _holders
    if _folder is not None and _folder.pid == os.getpid():
        _folder.remove()
        _folder, _holders = None, 0


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Let ``tempfile`` make its files in ``folder``."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def sweep(run_tmp: Path) -> int:
    """Remove the folders under ``run_tmp`` whose process is gone; returns how many."""
    removed = 0
    for folder in run_tmp.glob(f"{_PREFIX}*"):
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # being made, or being removed, right now
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
        finally:
            os.close(lock)
    return removed


def _install_handlers() -> None:
    """Once in each process; the SIGTERM handler passes on to the one that was there."""
    global _handlers_pid
    if _handlers_pid == os.getpid():
        return
    inherited, _handlers_pid = _handlers_pid != 0, os.getpid()
    if not inherited:  # a forked child has both already
        atexit.register(remove)
    if inherited or threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)
    if before is None or before == signal.SIG_IGN:  # not Python's to replace, or deliberately ignored
        return

    def on_sigterm(number: int, frame: FrameType | None) -> Any:
        remove()
        if callable(before):
            return before(number, frame)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        return None

    signal.signal(signal.SIGTERM, on_sigterm)
