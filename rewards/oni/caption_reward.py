"""What ONI pays a step: the value of its caption, over the caption's count in the episode to a power.

Values stand in sorted arrays, so that a whole rollout of caption ids is scored at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.data import RewardOutput, RewardPart, Rollout
from envs.protocols import State
from rewards.kinds import PlainReward


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


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionEvidence:
    """The captions of one rollout."""

    ids: np.ndarray
    """int64 [N], distinct; 0 = silence."""
    counts: np.ndarray
    """int64 [N]."""
    num_valued: int
    """Occurrences, silence aside, that the reward had a value for."""

    @property
    def num_spoken(self) -> int:
        """Occurrences, silence aside."""
        return int(self.counts[self.ids != 0].sum())


class CaptionReward(PlainReward):
    """Part ``oni``: ``value(caption) / count(caption in this episode) ** exponent``.

    Zheng et al. 2024, "Online intrinsic rewards for decision making agents from large language model feedback"
    (arXiv 2410.23022).

    Unlike the public code, which reads the message before the action, the caption is that of the
    observation which the action led to, so that the message that ends a game is paid too. A caption
    without a value yet is invalid, not 0; a step without a message is worth 0.

    Args:
        values: what captions are worth at first; ``take`` renews it between rollouts.
        count_exponent: 3 in ONI.
    """

    part_names = ("oni",)

    def __init__(self, values: CaptionValues | None = None, count_exponent: float = 3.0) -> None:
        self.values = values or CaptionValues()
        self._exponent = count_exponent

    @property
    def version(self) -> int:
        """That of the values."""
        return self.values.version

    def take(self, news: Iterable[tuple[int, float]]) -> None:
        """Score with these values ``(caption_id, value)`` from now on, beside those that are known."""
        self.values.apply(news)

    def score(self, rollout: Rollout, state: State) -> tuple[Mapping[str, RewardPart], State]:
        """Values of the resulting captions, decayed by their counts.

        Raises:
            ValueError: the rollout carries no captions.
        """
        if rollout.caption_id is None or rollout.caption_count is None:
            raise ValueError("the ONI reward needs captions; these games give no messages")
        value, valid = self.values.lookup(rollout.caption_id)
        count = np.maximum(rollout.caption_count, 1).astype(np.float32)
        value = (value / count**self._exponent).astype(np.float32)
        return {"oni": RewardPart(value=np.where(valid, value, np.float32(0)), valid=valid)}, state

    def evidence(self, rollout: Rollout, output: RewardOutput, state: State) -> tuple[CaptionEvidence, State]:
        """Which captions came, how often, and how many of them had a value."""
        assert rollout.caption_id is not None, "it was scored"
        ids, counts = np.unique(rollout.caption_id, return_counts=True)
        known = self.values.lookup(ids)[1] & (ids != 0)
        return CaptionEvidence(ids=ids, counts=counts, num_valued=int(counts[known].sum())), state

    def state_dict(self) -> State:
        """The values that this reward knows."""
        return self.values.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.values.load_state_dict(state)
