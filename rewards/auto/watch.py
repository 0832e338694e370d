"""How often a program has had no answer lately, and whether that is too often."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from envs.protocols import State
from rewards.auto.config import ContainmentConfig

MIN_ROWS = 500
"""Rows before which a share says nothing, unless the window is shorter."""


class FailureWatch:
    """Counts transitions without an answer over the newest ``failure_window``.

    It forgets whole batches: what counts are the fewest newest batches that fill the window.

    Args:
        config: length of the window, and the share that is too much.
    """

    def __init__(self, config: ContainmentConfig) -> None:
        self._config = config
        self._batches: deque[tuple[int, int]] = deque()
        self.num_rows = 0
        self.num_failed = 0

    def add(self, num_rows: int, num_failed: int) -> None:
        """Take in a batch."""
        self._batches.append((num_rows, num_failed))
        self.num_rows += num_rows
        self.num_failed += num_failed
        while self.num_rows - self._batches[0][0] >= self._config.failure_window:
            rows, failed = self._batches.popleft()
            self.num_rows -= rows
            self.num_failed -= failed

    @property
    def exceeded(self) -> bool:
        """More failed than may, of enough rows to say so."""
        enough = self.num_rows >= min(self._config.failure_window, MIN_ROWS)
        return enough and self.num_failed > self._config.max_failure_share * self.num_rows

    def state_dict(self) -> State:
        """The batches in the window."""
        return {"batches": [list(batch) for batch in self._batches]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._batches.clear()
        self.num_rows = self.num_failed = 0
        for rows, failed in state["batches"]:
            self.add(int(rows), int(failed))
