"""Memory of a process and all that it started, watched from outside."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import psutil

_INTERVAL_S = 0.5


def tree_memory_mb(pid: int) -> float:
    """Proportional set size of a process and its descendants, in MB (10**6 bytes).

    A page that several processes share is divided among them, so that the sum counts it once; library pages that
    processes outside the tree have mapped too are counted in part. Linux only.
    """
    total = 0
    # A process may end while it is looked at.
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                total += process.memory_full_info().pss
    return total / 1e6


class PeakMemory:
    """Looks at a process tree twice a second while the block lasts, and keeps the largest sum.

    Args:
        pid: the root of the tree.
    """

    def __init__(self, pid: int) -> None:
        self.mb = 0.0
        """The peak so far."""
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def _watch(self) -> None:
        while True:
            self.mb = max(self.mb, tree_memory_mb(self._pid))
            if self._over.wait(_INTERVAL_S):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
