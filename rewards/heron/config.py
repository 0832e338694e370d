"""Configuration of rewards that come from a ranking of factors: HERON's, and what it is compared with.

A ranking is a list of factors, the most important first. Each is written as ``[-]NAME[=EXPRESSION][@MARGIN]``:
a name of the catalogue (``success``), an expression over the published schema with a name of the user's own
(``door = sum('WHAMM' in obs.message)``), or a factor in a module of the user's own (``kicks = my_module:kicks``). A
minus says that less is better. A margin is the width of the bins that values are rounded down to, or, in margin mode,
the difference that must be exceeded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from envs.data import Config
from rewards.parts import PartConfig

DEFAULT_RANKING = ("success", "alive", "new_tiles", "-turns")


class FactorsConfig(PartConfig):
    """What all rewards over factors share."""

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Factor of the part; 0 switches it off."""
    stream: Literal["extrinsic", "intrinsic"] = "intrinsic"
    """The stream, and so the value head, that it feeds."""
    normalise: Literal["none", "std", "return"] = "return"
    """Divide by a running standard deviation: of values (std), or of their discounted sums (return)."""
    ranking: Annotated[tuple[str, ...], Field(min_length=1)] = DEFAULT_RANKING
    """Factors, the most important first: [-]NAME[=EXPRESSION][@MARGIN]; `yendor rewards factors` lists the names."""


class ComparisonConfig(Config):
    """How the tree compares two stretches of play."""

    mode: Literal["margin", "bins"] = "bins"
    """margin: better by more than the margin decides (HERON's rule; three values can form a cycle). bins: values are
    first rounded down to whole margins, so that the order is transitive; two values on the two sides of a bin's border
    count as different, however close."""
    margin_quantile: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    """Margin of factors without one of their own: this quantile of the differences between segments. A factor that was
    the same in all of them when margins were taken gets its own later, once its quantile is above 0."""
    stage_updates: PositiveInt | None = None
    """Updates after which margins are taken anew; none = once, for the whole run, as soon as there are
    model.min_segments segments."""
    stage_segments: Annotated[int, Field(ge=8)] = 512
    """Most segments that margins are taken from, the newest; the first margins come from as many as there are by
    then."""
    ties: Literal["half", "drop"] = "half"
    """What becomes of pairs that are judged to be ties: a label of 1/2, or nothing. Ties of the tree are left to the
    other judges, where there are such."""


class ModelConfig(Config):
    """The reward model: Bradley-Terry on the sum of its output over a segment."""

    inputs: tuple[str, ...] = ()
    """Columns of the schema that it reads; empty = a default set. Columns that the factors read are left out."""
    see_factors: bool = False
    """Let it read the columns that the factors are made of, too: these besides the others."""
    encoder: bool = False
    """Read the policy network's encoding of what was seen before and after the action, instead of columns. The
    encoder learns with the policy, so the reward of a step then drifts between versions, too."""
    caption_buckets: Annotated[int, Field(ge=0)] = 32
    """Inputs that tell which message came, hashed; 0 = none."""
    members: PositiveInt = 3
    """Networks, which differ in initial weights and in the pairs that they learn from."""
    aggregate: Literal["mean", "median", "mean_minus_std", "min"] = "mean"
    """How the members' rewards become one."""
    hidden: PositiveInt = 64
    """Units of each of two hidden layers."""
    learning_rate: PositiveFloat = 1e-2
    """Of AdamW."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    """Of AdamW."""
    batch_pairs: PositiveInt = 32
    """Pairs in a gradient step."""
    judged_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Most of them that are pairs judged by others than the tree, where there are such."""
    steps_per_update: PositiveInt = 4
    """Gradient steps in one PPO update."""
    first_steps: PositiveInt = 64
    """Gradient steps before the first version, all in one PPO update: its reward should not be that of chance."""
    publish_updates: PositiveInt = 4
    """PPO updates between two versions of the reward."""
    min_segments: Annotated[int, Field(ge=8)] = 128
    """Segments before the first gradient step; until the first version the reward is not valid."""
    capacity_segments: Annotated[int, Field(ge=64)] = 2048
    """Segments that are kept to compare: half of them the newest, the others older ones of every kind. Of pairs that
    others than the tree judge, half as many are kept, the newest; of those that people judge, all."""
    margin_scale: Annotated[float, Field(ge=0.0)] = 0.1
    """Adaptive margin of the loss: this much for each margin by which the deciding level differs; 0 = none."""
    max_loss_margin: Annotated[float, Field(ge=0.0)] = 1.0
    """Bound of that margin."""
    pin: Annotated[float, Field(ge=0.0)] = 1e-4
    """Weight of the squared sum of both segments' rewards, which pins the constant that comparisons leave open."""
    held_out_share: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share of the episodes that only accuracy is measured on."""


class JudgesConfig(Config):
    """Who says which of two segments is better."""

    sources: Annotated[tuple[Literal["tree", "labeller", "human"], ...], Field(min_length=1)] = ("tree",)
    """tree: the ranking. labeller: the annotator of labels.client, given each segment in words; after the tree it is
    asked about the pairs that the tree does not decide, without it about any. human: the pairs in the file below."""
    pairs_per_update: PositiveInt = 8
    """Pairs that the labeller is asked about in one PPO update, at most."""
    human: Path | None = None
    """JSON lines, each {"first": EPISODE_FILE, "second": EPISODE_FILE, "preferred": "first"|"second"|"equal"}; files
    of recorded episodes, relative to this one."""

    @model_validator(mode="after")
    def _stacked(self) -> Self:
        twice = next((name for at, name in enumerate(self.sources) if name in self.sources[:at]), None)
        if twice is not None:
            raise ValueError(f"judges.sources names '{twice}' twice; each judge is asked once")
        if "tree" in self.sources[1:]:
            raise ValueError("judges.sources: the tree, which costs nothing, comes before all others")
        if ("human" in self.sources) != (self.human is not None):
            raise ValueError("judges.human, the file of pairs, goes with 'human' in judges.sources: give both or none")
        return self


class TreeConfig(FactorsConfig):
    """HERON: a model of what a preference tree over the ranking prefers, or others who compare play."""

    kind: Literal["tree"] = "tree"
    segment_steps: PositiveInt | None = 16
    """Steps of the segments that are compared; none = whole episodes."""
    comparison: ComparisonConfig = ComparisonConfig()
    model: ModelConfig = ModelConfig()
    judges: JudgesConfig = JudgesConfig()

    @model_validator(mode="after")
    def _records_hold_no_observations(self) -> Self:
        if self.model.encoder and self.judges.human is not None:
            raise ValueError("model.encoder reads observations, which the episodes of judges.human do not hold")
        return self


class SumConfig(FactorsConfig):
    """What the sums of factors share."""

    def weights(self, num_factors: int) -> tuple[float, ...]:
        """Of each factor, the most important first."""
        raise NotImplementedError


class WeightedSumConfig(SumConfig):
    """The factors' weighted sum: what reward engineering does."""

    kind: Literal["weighted_sum"] = "weighted_sum"
    beta: PositiveFloat = 0.5
    """A factor weighs this power of its place: 1, beta, beta squared, ..."""

    def weights(self, num_factors: int) -> tuple[float, ...]:
        """Of each factor, the most important first."""
        return tuple(self.beta**place for place in range(num_factors))


class PowersOfTenConfig(SumConfig):
    """The factors' sum with a weight of ten to the number of less important ones."""

    kind: Literal["powers_of_ten"] = "powers_of_ten"

    def weights(self, num_factors: int) -> tuple[float, ...]:
        """Of each factor, the most important first; the last one's is 1."""
        return tuple(10.0 ** (num_factors - 1 - place) for place in range(num_factors))


HeronConfig = Annotated[TreeConfig | WeightedSumConfig | PowersOfTenConfig, Field(discriminator="kind")]
"""Every kind of reward over a ranking of factors."""
