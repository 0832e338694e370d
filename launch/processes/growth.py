"""How much a process has grown: NLE's own engine leaks about 2 KiB a reset, and a worker may reset for days."""

from __future__ import annotations

import psutil


class MemoryGrowth:
    """Resident memory of this process against what it was once it had settled."""

    def __init__(self) -> None:
        self._settled_mb: float | None = None

    def settle(self) -> None:
        """Compare with now; only the first call counts."""
        if self._settled_mb is None:
            self._settled_mb = _resident_mb()

    @property
    def mb(self) -> float:
        """Megabytes since ``settle``; 0 before it."""
        return 0.0 if self._settled_mb is None else _resident_mb() - self._settled_mb


def _resident_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6
