"""What captions are worth, as sorted arrays, so that a whole rollout of caption ids is scored at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from envs.protocols import State


class CaptionValues:
    """``caption id -> value``: what a caption model says, on the learner's side.

    Silence (id 0) is known to be worth nothing: value 0, valid. A caption that the model has no value for
    is not valid.
    """

    def __init__(self) -> None:
        self.version = 0
        """Rises whenever some caption would be scored differently."""
        self._ids = np.zeros(1, np.int64)
        self._values = np.zeros(1, np.float32)

    def __len__(self) -> int:
        """Captions that have a value, silence not counted."""
        return len(self._ids) - 1

    def apply(self, values: Iterable[tuple[int, float]]) -> int:
        """Take in values ``(caption_id, value)``; those that are known already are replaced.

        Returns:
            How many captions are worth something else than before, or have a value for the first time.

        Raises:
            ValueError: silence was given another value than 0, or a value is not finite.
        """
        given = dict(values)
        if not given:
            return 0
        ids = np.fromiter(given.keys(), np.int64, len(given))
        new = np.fromiter(given.values(), np.float32, len(given))
        if not np.isfinite(new).all():
            at = int(np.flatnonzero(~np.isfinite(new))[0])
            raise ValueError(f"the value of caption {ids[at]} is not finite: {new[at]}")
        if given.get(0):
            raise ValueError(f"silence is worth 0 and cannot be worth {given[0]:g}")
        old, known = self.lookup(ids)
        changed = ~known | (old != new)
        if changed.any():
            ids, new = ids[changed], new[changed]
            kept = ~np.isin(self._ids, ids, assume_unique=True)
            all_ids = np.concatenate([self._ids[kept], ids])
            order = np.argsort(all_ids)
            self._ids = all_ids[order]
            self._values = np.concatenate([self._values[kept], new])[order]
            self.version += 1
        return len(ids) if changed.any() else 0

    def lookup(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of captions.

        Args:
            ids: int64, any shape ([T, B]).

        Returns:
            Values float32 and validity bool, both shaped like ``ids``; the value is 0 where not valid.
        """
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        valid = self._ids[at] == ids
        return np.where(valid, self._values[at], np.float32(0)), valid

    def state_dict(self) -> State:
        """Every value and the version."""
        return {"ids": self._ids.copy(), "values": self._values.copy(), "version": self.version}

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        self._ids = np.array(state["ids"], np.int64)
        self._values = np.array(state["values"], np.float32)
        self.version = int(state["version"])
