"""Deaths of a run's actors: counted, told, and too many of them end the run."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable

from ray.exceptions import RayError

from launch.errors import RunError

_WINDOW_S = 600.0


class DeathWatch:
    """Counts deaths.

    Args:
        limit: deaths within ten minutes that are borne.
        what: what dies, as in "rollout worker".
        on_death: told of who died of what.

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
            RunError: it could not even start, or too many died of late.
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
    """What Ray's many lines come to, without colours: the cause of a failed start, else the first line."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return lines[-1] if "creation task" in str(error) else lines[0]
