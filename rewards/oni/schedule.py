"""When a caption model trains, and when it values captions anew: little enough to go unnoticed beside PPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envs.protocols import State


class StepBudget:
    """Gradient steps that labels pay for, so that the cost of training ends when labels stop coming.

    Args:
        steps_per_label: what one new label buys.
        steps_per_update: most steps an update.
        max_steps_owed: most steps that wait to be taken; where labels come faster, more are not bought.
    """

    def __init__(self, steps_per_label: float, steps_per_update: int, max_steps_owed: int) -> None:
        self._steps_per_label, self._most, self._max_owed = steps_per_label, steps_per_update, max_steps_owed
        self._credit = 0.0

    def earn(self, labels: int) -> None:
        """New labels arrived."""
        self._credit = min(self._credit + labels * self._steps_per_label, self._max_owed)

    def spend(self) -> int:
        """Steps to take in this update."""
        # What ten labels buy at 0.1 each is one step, though their sum is a little less in floating point.
        steps = min(int(self._credit + 1e-9), self._most)
        self._credit -= steps
        return steps

    def state_dict(self) -> State:
        """What is left."""
        return {"credit": self._credit}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._credit = float(state["credit"])


class RefreshClock:
    """Every so many updates, and less often where there is so much to value that it would cost more than allowed.

    Args:
        updates: fewest updates between two refreshes.
        captions_per_update: captions valued anew in an update, on average at most.
    """

    def __init__(self, updates: int, captions_per_update: int) -> None:
        self._updates, self._captions_per_update = updates, captions_per_update
        self._since = 0

    def tick(self) -> None:
        """An update has passed."""
        self._since += 1

    def is_due(self, captions: int) -> bool:
        """A refresh of so many captions may happen now."""
        return self._since >= max(self._updates, captions / self._captions_per_update)

    def restart(self) -> None:
        """A refresh has happened."""
        self._since = 0

    def state_dict(self) -> State:
        """Updates since the last refresh."""
        return {"since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._since = int(state["since"])
