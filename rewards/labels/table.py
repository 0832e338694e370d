"""Labels as sorted arrays, so that a whole rollout of caption ids is scored at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from envs.protocols import State


class LabelTable:
    """``caption id -> value`` of one annotator and one goal.

    Silence (id 0) is known to be worth nothing: value 0, valid. A caption that nobody has judged, or
    whose judge abstained or failed, is not valid.
    """

    def __init__(self) -> None:
        self.version = 0
        """Rises whenever some caption would be scored differently."""
        self._ids = np.zeros(1, np.int64)
        self._values = np.zeros(1, np.float32)

    def __len__(self) -> int:
        """Captions that have a value, silence not counted."""
        return len(self._ids) - 1

    def apply(self, labels: Iterable[tuple[int, float | None]]) -> int:
        """Add labels; those without a value change nothing. The order they come in does not matter.

        Args:
            labels: ``(caption_id, value)``, value None where there is none.

        Returns:
            How many captions have a value now that had none.

        Raises:
            ValueError: a caption has another value already (values never change: the first answer stays).
        """
        given = {ident: value for ident, value in labels if value is not None}
        if not given:
            return 0
        ids = np.fromiter(given.keys(), np.int64, len(given))
        values = np.fromiter(given.values(), np.float32, len(given))
        known_values, known = self.lookup(ids)
        differs = known & (known_values != values)
        if differs.any():
            at = int(np.flatnonzero(differs)[0])
            raise ValueError(f"caption {ids[at]} is worth {known_values[at]:g} and cannot be relabelled {values[at]:g}")
        ids, values = ids[~known], values[~known]
        if len(ids):
            order = np.argsort(all_ids := np.concatenate([self._ids, ids]))
            self._ids = all_ids[order]
            self._values = np.concatenate([self._values, values])[order]
            self.version += 1
        return len(ids)

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
        """Every label and the version."""
        return {"ids": self._ids.copy(), "values": self._values.copy(), "version": self.version}

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        self._ids = np.array(state["ids"], np.int64)
        self._values = np.array(state["values"], np.float32)
        self.version = int(state["version"])
