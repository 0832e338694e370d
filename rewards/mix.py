"""Several reward models, one answer: weighted streams for the value heads, and the parts kept by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.data import RewardOutput, RewardPart, Rollout
from envs.protocols import Alone, Group, RewardModel, State
from rewards.bounded import bounded
from rewards.kinds import PlainReward, RewardError, RewardKind, ScoringContext
from rewards.normalise import RunningMoments, moments
from rewards.parts import PartConfig, StreamConfig

if TYPE_CHECKING:
    from rewards.config import RewardConfig


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """A reward model and how its parts enter the streams."""

    model: RewardModel
    config: PartConfig

    @property
    def name(self) -> str:
        """Of its kind, which is that of the first part."""
        return self.model.part_names[0]


class EnvReward(PlainReward):
    """Part ``env``: what the game itself pays."""

    part_names = ("env",)

    def score(self, rollout: Rollout, state: State) -> tuple[Mapping[str, RewardPart], State]:
        """The rollout's ``env_reward``."""
        value = rollout.env_reward.astype(np.float32)
        return {"env": RewardPart(value=value, valid=np.ones(value.shape, bool))}, state


class EnvKind(RewardKind[PartConfig]):
    """The environment's own reward, as one kind among others."""

    name = "env"
    config = PartConfig

    def model(self, config: PartConfig, context: ScoringContext) -> EnvReward:
        """See ``RewardKind.model``."""
        return EnvReward()


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
    def version(self) -> int:
        """Rises whenever an ingredient's does."""
        return sum(ingredient.model.version for ingredient in self._ingredients)

    def initial_state(self, num_games: int) -> State:
        """Each ingredient's memory of the running episodes, and each part's discounted sum where that is needed."""
        sums = {
            name: np.zeros(num_games)
            for ingredient in self._ingredients
            for name in ingredient.model.part_names
            if ingredient.config.normalise == "return"
        }
        return {"models": {i.name: i.model.initial_state(num_games) for i in self._ingredients}, "sums": sums}

    def score(self, rollout: Rollout, state: State) -> tuple[RewardOutput, State]:
        """Streams [T, B, S] and named parts, and the memory after the rollout."""
        parts: dict[str, RewardPart] = {}
        memories: dict[str, State] = {}
        sums = dict(state["sums"])
        terms: dict[str, list[np.ndarray]] = {name: [] for name in self.streams}
        for ingredient in self._ingredients:
            found, memories[ingredient.name] = ingredient.model.score(rollout, state["models"][ingredient.name])
            parts |= found
            config = ingredient.config
            if config.weight > 0:
                for name, part in found.items():
                    if not part.pays:
                        continue
                    samples = part.value[part.valid]
                    if config.normalise == "return":
                        gamma = self.streams[config.stream].gamma
                        so_far, sums[name] = discounted_sums(part, rollout.done, gamma, sums[name])
                        samples = so_far[part.valid]
                    terms[config.stream].append(self._term(name, part, config, samples))
        streams = [_combine(terms[name], config) for name, config in self.streams.items()]
        return RewardOutput(streams=np.stack(streams, axis=-1), parts=parts), {"models": memories, "sums": sums}

    def _term(self, name: str, part: RewardPart, config: PartConfig, samples: np.ndarray) -> np.ndarray:
        """The weighted part; what is invalid has no say: 0 in a sum, 1 in a product.

        Args:
            name: the part's.
            part: [T, B].
            config: the part's.
            samples: numbers whose standard deviation it is divided by, where it is normalised.
        """
        value = part.value
        if config.normalise != "none":
            running = self._moments[name]
            for batch in self.group.gather(moments(samples)):
                running.merge(batch)
            value = value / running.std
        value = config.weight * value
        if config.clip is not None:
            value = value.clip(-config.clip, config.clip)
        neutral = 1.0 if self.streams[config.stream].combine == "product" else 0.0
        return np.where(part.valid, value, neutral).astype(np.float32)

    def take(self, news: Mapping[str, Any]) -> None:
        """Score with what teachers have learned, ``{kind: news}``, from now on."""
        for ingredient in self._ingredients:
            if (own := news.get(ingredient.name)) is not None:
                ingredient.model.take(own)

    def evidence(self, rollout: Rollout, output: RewardOutput, state: State) -> tuple[dict[str, Any], State]:
        """What teachers need of a rollout that was just scored, ``{kind: evidence}``, and the memory after that."""
        found, memories = {}, {}
        for ingredient in self._ingredients:
            name = ingredient.name
            own, memories[name] = ingredient.model.evidence(rollout, output, state["models"][name])
            if own is not None:
                found[name] = own
        return found, {**state, "models": memories}

    def state_dict(self) -> State:
        """What the ingredients learned, and the running normalisers."""
        return {
            "models": {ingredient.name: ingredient.model.state_dict() for ingredient in self._ingredients},
            "moments": {name: running.state_dict() for name, running in self._moments.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        for ingredient in self._ingredients:
            ingredient.model.load_state_dict(state["models"][ingredient.name])
        for name, running in self._moments.items():
            running.load_state_dict(state["moments"][name])

    def own_state(self) -> State:
        """What belongs to this process alone, by kind."""
        return {ingredient.name: ingredient.model.own_state() for ingredient in self._ingredients}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Continue from ``own_state``."""
        for ingredient in self._ingredients:
            ingredient.model.load_own_state(state[ingredient.name])

    def close(self) -> None:
        """End the processes that ingredients started."""
        for ingredient in self._ingredients:
            ingredient.model.close()


def build_mix(
    config: RewardConfig, contexts: Callable[[str, PartConfig], ScoringContext], group: Group | None = None
) -> RewardMix:
    """Every reward that is paid, and the environment's own in any case: it is always measured.

    Args:
        config: which rewards there are.
        contexts: what each kind's model may use of this process.
        group: as of ``RewardMix``.

    Raises:
        RewardError: a model's parts are not called as its kind is.
    """
    kinds = {"env": (config.kinds["env"], config.env), **config.paid}
    ingredients = []
    for name, (kind, part) in kinds.items():
        model = kind.model(part, contexts(name, part))
        _check_names(name, model.part_names)
        ingredients.append(Ingredient(model=bounded(model, part), config=part))
    return RewardMix(ingredients, config.streams, group)


def _check_names(kind: str, parts: Sequence[str]) -> None:
    """News, evidence and metrics find a reward by its kind's name."""
    if not parts or parts[0] != kind or not all(part.startswith(f"{kind}/") for part in parts[1:]):
        raise RewardError(
            f"reward.{kind}: the first of its model's part_names must be '{kind}' and all others begin with '{kind}/'; "
            f"they are {', '.join(parts) or 'none'}"
        )


def discounted_sums(
    part: RewardPart, done: np.ndarray, gamma: float, before: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A part's discounted sums over the running episodes: ``sum_t = gamma * sum_(t-1) + value_t``.

    Args:
        part: [T, B]; what is invalid adds nothing.
        done: bool [T, B]; the sum begins at 0 after an end.
        gamma: discount.
        before: float64 [B], the sums before the first step.

    Returns:
        float64 [T, B], and [B] to go on with.
    """
    value = np.where(part.valid, part.value, 0.0)
    sums = np.empty(value.shape)
    for t, row in enumerate(value):
        sums[t] = before = gamma * before + row
        before = np.where(done[t], 0.0, before)
    return sums, before


def _combine(terms: Sequence[np.ndarray], config: StreamConfig) -> np.ndarray:
    stacked = np.stack(terms)
    if config.combine == "product":
        return stacked.prod(axis=0)
    return stacked.sum(axis=0)
