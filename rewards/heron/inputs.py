"""What a reward model reads of each step: what was seen before the action, the action, and what it led to; scaled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from envs.data import Rollout
from envs.features import COLUMNS, check_names, rollout_columns
from envs.protocols import GamesSpec
from rewards.heron.columns import is_text
from rewards.heron.config import ModelConfig

Encode = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""Observations ``{key: [N, ...]}`` to float32 [N, W]."""

_NEARBY = ("stairs_down", "closed_door", "doorway", "boulder", "water", "monster", "wand", "tool")
_BEFORE_AND_AFTER = ("x", "y", "hp", "depth", "gold", "xp_points")
DEFAULT_COLUMNS: tuple[str, ...] = (
    *(f"{when}.{name}" for name in _BEFORE_AND_AFTER for when in ("prev_obs", "obs")),
    "obs.max_hp",
    "obs.hunger",
    "info.new_tiles_seen",
    "info.tiles_seen",
    "info.visits_here",
    "info.steps_since_change",
    "info.inventory_count",
    "info.inventory_change",
    *(f"info.{name}_{what}" for name in _NEARBY for what in ("distance", "approach")),
)
"""Columns that are read where none are named."""

_DISTANCE = "_distance"
_LIMIT = 5.0
_WIDER = 2.0


class StepInputs(Protocol):
    """Turns the steps of a rollout into numbers, each step by itself."""

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """float32 [T, B, D]."""
        ...


class ColumnInputs:
    """Columns of the schema as numbers.

    A distance d is read as ``1 / (1 + d)``: the last few steps matter, and what is not on the map is 0 nearly.

    Args:
        columns: names, no strings among them.

    Raises:
        ValueError: a name is unknown, or its column holds text.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        check_names(columns)
        texts = [name for name in columns if COLUMNS[name].dtype == "str"]
        if texts:
            raise ValueError(f"a reward model reads numbers, and the schema field '{texts[0]}' is text")
        self._columns = tuple(columns)

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """One input a column."""
        found = rollout_columns(rollout, self._columns)
        inputs = np.empty((*rollout.env_reward.shape, len(self._columns)), np.float32)
        for i, name in enumerate(self._columns):
            inputs[..., i] = 1.0 / (1.0 + found[name]) if name.endswith(_DISTANCE) else found[name]
        return inputs


class VectorInputs:
    """The vector before the action and the one after it: for games whose observation is one vector."""

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """Both, side by side."""
        before, after = rollout.obs["vector"][:-1], rollout.reached("vector")
        return np.concatenate([before, after], axis=-1, dtype=np.float32)


class EncodedInputs:
    """The policy network's encoding of what was seen before the action, and of what it led to.

    Args:
        encode: the encoder; as it improves, the same step reads differently: segments keep what it said when they
            were played.
        keys: observation keys that it reads.
    """

    def __init__(self, encode: Encode, keys: Sequence[str]) -> None:
        self._encode, self._keys = encode, tuple(keys)

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """Both encodings, side by side; final observations are encoded besides."""
        T, B = rollout.env_reward.shape
        at = rollout.final_obs.at
        seen = {
            key: np.concatenate([rollout.obs[key].reshape(-1, *rollout.obs[key].shape[2:]), rollout.final_obs.obs[key]])
            for key in self._keys
        }
        encoded = self._encode(seen)
        steps = encoded[: (T + 1) * B].reshape(T + 1, B, -1)
        after = steps[1:].copy()
        after[at[:, 0], at[:, 1]] = encoded[(T + 1) * B :]
        return np.concatenate([steps[:-1], after], axis=-1)


class ActionInputs:
    """The action: one input for each of A, or the values of a continuous one.

    Args:
        num_actions: A; 0 = continuous.
    """

    def __init__(self, num_actions: int) -> None:
        self._names = np.eye(num_actions, dtype=np.float32)

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """One-hot, or as it is."""
        if len(self._names):
            return self._names[rollout.actions]
        return rollout.actions.reshape(*rollout.env_reward.shape, -1).astype(np.float32)


class CaptionInputs:
    """Which message came: its id, hashed into a few buckets; silence has none.

    Args:
        buckets: inputs; different messages may share one.
    """

    def __init__(self, buckets: int) -> None:
        self._buckets = buckets

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """One-hot.

        Raises:
            ValueError: the rollout carries no captions.
        """
        ids = rollout.caption_id
        if ids is None:
            raise ValueError("model.caption_buckets needs games with messages; set it to 0")
        return (ids[..., None] % self._buckets == np.arange(self._buckets)) & (ids[..., None] != 0)


class JoinedInputs:
    """Several side by side.

    What was read of the last rollout is kept: scoring it and cutting it into segments reads it once.

    Args:
        pieces: at least one.
    """

    def __init__(self, pieces: Sequence[StepInputs]) -> None:
        self._pieces = tuple(pieces)
        self._last: tuple[Rollout, np.ndarray] | None = None

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """All of them."""
        if self._last is None or self._last[0] is not rollout:
            self._last = rollout, np.concatenate([p(rollout) for p in self._pieces], axis=-1, dtype=np.float32)
        return self._last[1]


def read_columns(config: ModelConfig, factor_columns: Iterable[str]) -> tuple[str, ...]:
    """Columns of the schema that a model reads: the named or default ones, without those of the factors.

    With ``see_factors``, those of the factors are read besides, but for text (the message is read as a caption).

    Args:
        config: the model's.
        factor_columns: what the factors are made of: a model that read them would copy the tree instead of learning
            what leads to what it prefers.
    """
    names, hidden = config.inputs or DEFAULT_COLUMNS, tuple(factor_columns)
    if not config.see_factors:
        return tuple(name for name in names if name not in hidden)
    return tuple(dict.fromkeys((*names, *(name for name in hidden if not is_text(name)))))


def step_inputs(
    config: ModelConfig, factor_columns: Collection[str], spec: GamesSpec, encode: Encode | None
) -> JoinedInputs:
    """What a model reads in some games.

    Args:
        config: the model's.
        factor_columns: see ``read_columns``; where the message is among them, it is not an input either.
        spec: the games' observations and actions.
        encode: the policy's encoder, for ``config.encoder``.

    Raises:
        ValueError: a column is unknown or holds text.
    """
    pieces: list[StepInputs] = [ActionInputs(spec.num_actions)]
    if config.encoder and encode is not None:
        pieces.append(EncodedInputs(encode, tuple(spec.obs)))
    elif "vector" in spec.obs:
        pieces.append(VectorInputs())
    else:
        pieces.append(ColumnInputs(read_columns(config, factor_columns)))
    reads_captions = spec.has_messages and config.caption_buckets > 0
    if reads_captions and (config.see_factors or "obs.message" not in factor_columns):
        pieces.append(CaptionInputs(config.caption_buckets))
    return JoinedInputs(pieces)


@dataclass(frozen=True, kw_only=True, eq=False)
class InputScale:
    """Mean and spread of each input.

    A column keeps what it had when it first varied, so that weights learned with it stay valid; until then it is read
    as 0, whatever it holds. Only a column whose spread has doubled since, as the depth does when an agent gets deeper,
    is measured anew: the weights then see it at half its size, which a few gradient steps make up for. It is not
    folded into the weights, as that would extrapolate what was learned of a narrow column far beyond it.
    """

    mean: np.ndarray
    """float32 [D]."""
    std: np.ndarray
    """float32 [D]; 0 = has not varied yet."""

    @classmethod
    def unknown(cls, num_inputs: int) -> InputScale:
        """Nothing has varied yet."""
        return cls(mean=np.zeros(num_inputs, np.float32), std=np.zeros(num_inputs, np.float32))

    def widened(self, inputs: np.ndarray) -> InputScale:
        """The scale to go on with after these inputs, float32 [M, D] with M at least 1."""
        # A column that never changes would have a spread by rounding alone.
        varies = (inputs != inputs[0]).any(0)
        mean = inputs.mean(0, dtype=np.float64).astype(np.float32)
        std = np.where(varies, inputs.std(0, dtype=np.float64), 0).astype(np.float32)
        anew = std > _WIDER * self.std
        return InputScale(mean=np.where(anew, mean, self.mean), std=np.where(anew, std, self.std))

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [M, D], in standard deviations from the mean, at most 5 of them."""
        inverse = np.divide(1, self.std, out=np.zeros_like(self.std), where=self.std > 0)
        scaled = (inputs - self.mean) * inverse
        return np.clip(scaled, -_LIMIT, _LIMIT, out=scaled)
