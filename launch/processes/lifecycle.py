"""The life of a run's processes: deaths are counted, growth is measured, signals ask the run to stop."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import deque
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

import psutil

from launch.errors import RunError

if TYPE_CHECKING:
    from ray.exceptions import RayError

_WINDOW_S = 600.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class DeathWatch:
    """Counts deaths of a run's actors; too many of them end the run.

    Args:
        limit: deaths within ten minutes that are tolerated.
        what: the kind of actor, as in "rollout worker".
        on_death: called with the actor's number and its cause of death.

    Attributes:
        deaths: so far.
    """

    def __init__(self, limit: int, what: str, on_death: Callable[[int, str], None]) -> None:
        self._limit, self._what, self._on_death = limit, what, on_death
        self._recent: deque[float] = deque()
        self.deaths = 0

    def record(self, who: int, error: RayError) -> None:
        """Count a death.

        Raises:
            RunError: the actor could not even start, or too many died of late.
        """
        cause = last_line(error)
        if "creation task" in str(error):
            raise RunError(f"{self._what} {who} cannot start: {cause}") from error
        now = time.monotonic()
        self.deaths += 1
        self._recent.append(now)
        while now - self._recent[0] > _WINDOW_S:
            self._recent.popleft()
        self._on_death(who, cause)
        if len(self._recent) > self._limit:
            raise RunError(
                f"{len(self._recent)} {self._what}s died within {_WINDOW_S / 60:.0f} minutes "
                f"(allowed: rollout.max_worker_deaths {self._limit}); the last one's cause: {cause}"
            ) from error


def last_line(error: RayError) -> str:
    """The line of Ray's message that matters, without colours: the cause of a failed start, else the first line."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return lines[-1] if "creation task" in str(error) else lines[0]


class MemoryGrowth:
    """Growth of this process's resident memory: NLE leaks about 2 KiB a reset, and a worker resets for days."""

    def __init__(self) -> None:
        self._settled_mb: float | None = None

    def settle(self) -> None:
        """Compare with the memory of this moment; only the first call counts."""
        if self._settled_mb is None:
            self._settled_mb = _resident_mb()

    @property
    def mb(self) -> float:
        """Megabytes since ``settle``; 0 before it."""
        return 0.0 if self._settled_mb is None else _resident_mb() - self._settled_mb


def _resident_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6


class StopRequest:
    """A flag that SIGTERM, Ctrl-C and a closed terminal raise; a second signal ends the process at once.

    A context manager that restores the previous handlers.

    Attributes:
        signal: the signal that asked to stop; None while nothing did.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def install(self) -> None:
        """Put the handlers in place (again: Ray replaces them with its own when it starts)."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """What the shell expects after a signal (128 + its number); 0 if there was none."""
        return 0 if self.signal is None else 128 + self.signal
