"""Several reward models, one answer: weighted streams for the value heads, and the parts kept by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.data import RewardOutput, RewardPart, Rollout
from envs.group import Alone, Group
from envs.protocols import RewardModel, State
from rewards.normalise import RunningMoments, moments
from rewards.parts import PartConfig, StreamConfig


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """A reward model and how its parts enter the streams."""

    model: RewardModel
    config: PartConfig


class RewardMix:
    """Scores rollouts with every ingredient.

    Args:
        ingredients: their part names must differ.
        streams: configuration of each stream by name; only those that an ingredient with a positive
            weight feeds are kept, in this order.
        group: processes that score rollouts of the same run: their running normalisers stay equal.

    Raises:
        ValueError: two ingredients share a part name, or nothing has a positive weight.
    """

    def __init__(
        self, ingredients: Sequence[Ingredient], streams: Mapping[str, StreamConfig], group: Group | None = None
    ) -> None:
        self._ingredients = list(ingredients)
        self.group = group or Alone()
        names = [name for i in ingredients for name in i.model.part_names]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two rewards are both called '{repeated[0]}'")
        fed = {i.config.stream for i in ingredients if i.config.weight > 0}
        self.streams = {name: config for name, config in streams.items() if name in fed}
        if not self.streams:
            raise ValueError("every reward has weight 0: there is nothing to learn")
        self.part_names = tuple(names)
        self._moments = {name: RunningMoments() for name in names}

    @property
    def gammas(self) -> list[float]:
        """Discount of each stream."""
        return [stream.gamma for stream in self.streams.values()]

    @property
    def version(self) -> int:
        """Rises whenever an ingredient's does."""
        return sum(ingredient.model.version for ingredient in self._ingredients)

    def initial_state(self, num_games: int) -> list[State]:
        """Each ingredient's memory of the running episodes."""
        return [ingredient.model.initial_state(num_games) for ingredient in self._ingredients]

    def score(self, rollout: Rollout, state: Sequence[State]) -> tuple[RewardOutput, list[State]]:
        """Streams [T, B, S] and named parts, and every ingredient's memory after the rollout."""
        parts: dict[str, RewardPart] = {}
        memories: list[State] = []
        terms: dict[str, list[np.ndarray]] = {name: [] for name in self.streams}
        for ingredient, memory in zip(self._ingredients, state, strict=True):
            found, memory = ingredient.model.score(rollout, memory)
            memories.append(memory)
            parts |= found
            if ingredient.config.weight > 0:
                terms[ingredient.config.stream].extend(
                    self._term(name, part, ingredient.config) for name, part in found.items()
                )
        streams = [_combine(terms[name], config) for name, config in self.streams.items()]
        return RewardOutput(streams=np.stack(streams, axis=-1), parts=parts), memories

    def _term(self, name: str, part: RewardPart, config: PartConfig) -> np.ndarray:
        """The weighted part; what is invalid has no say: 0 in a sum, 1 in a product."""
        value = part.value
        if config.normalise == "std":
            running = self._moments[name]
            for batch in self.group.gather(moments(value[part.valid])):
                running.merge(batch)
            value = value / running.std
        value = config.weight * value
        if config.clip is not None:
            value = value.clip(-config.clip, config.clip)
        neutral = 1.0 if self.streams[config.stream].combine == "product" else 0.0
        return np.where(part.valid, value, neutral).astype(np.float32)

    def state_dict(self) -> State:
        """What the ingredients learned, and the running normalisers."""
        return {
            "models": [ingredient.model.state_dict() for ingredient in self._ingredients],
            "moments": {name: running.state_dict() for name, running in self._moments.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        for ingredient, learned in zip(self._ingredients, state["models"], strict=True):
            ingredient.model.load_state_dict(learned)
        for name, running in self._moments.items():
            running.load_state_dict(state["moments"][name])


def _combine(terms: Sequence[np.ndarray], config: StreamConfig) -> np.ndarray:
    stacked = np.stack(terms)
    if config.combine == "product":
        return stacked.prod(axis=0)
    return stacked.sum(axis=0)
