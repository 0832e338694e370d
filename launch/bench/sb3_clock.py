"""How long Stable-Baselines3 collects."""

from __future__ import annotations

import time

from stable_baselines3.common.callbacks import BaseCallback


class CollectClock(BaseCallback):
    """Adds up the seconds between the start and the end of each of SB3's rollouts."""

    def __init__(self) -> None:
        super().__init__()
        self.collect_s = 0.0
        self._began_s = 0.0

    def _on_rollout_start(self) -> None:
        self._began_s = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.collect_s += time.perf_counter() - self._began_s

    def _on_step(self) -> bool:
        return True
