"""Configuration of rewards that come from a ranking of factors: HERON's, and what it is compared with.

A ranking is a list of factors, the most important first. Each is written as ``[-]NAME[=EXPRESSION][@MARGIN]``:
a name of the catalogue (``success``), an expression over the published schema with a name of the user's own
(``door = sum('WHAMM' in obs.message)``), or a factor in a module of the user's own (``kicks = my_module:kicks``). A
minus says that less is better; a margin, the difference from which two values count as different.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from envs.data import Config
from rewards.parts import PartConfig

DEFAULT_RANKING = ("success", "alive", "new_tiles", "-turns")


class FactorsConfig(PartConfig):
    """What all rewards over factors share."""

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Factor of the part; 0 switches it off."""
    ranking: Annotated[tuple[str, ...], Field(min_length=1)] = DEFAULT_RANKING
    """Factors, the most important first: [-]NAME[=EXPRESSION][@MARGIN]; `yendor rewards factors` lists the names."""


class ComparisonConfig(Config):
    """How the tree compares two stretches of play."""

    mode: Literal["margin", "bins"] = "bins"
    """margin: better by more than the margin decides (HERON's rule; three values can form a cycle). bins: values are
    first rounded down to whole margins, so that the order is transitive."""
    margin_quantile: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    """Of factors without a margin of their own: this quantile of the differences between segments of one policy."""
    stage_updates: PositiveInt | None = None
    """Updates after which margins are taken anew; none = once, from the first segments, for the whole run."""
    stage_segments: Annotated[int, Field(ge=8)] = 512
    """Segments that margins are taken from."""
    ties: Literal["half", "drop"] = "half"
    """What becomes of pairs that no level decides: a label of 1/2, or nothing."""


class ModelConfig(Config):
    """The reward model: Bradley-Terry on the sum of its output over a segment."""

    inputs: tuple[str, ...] = ()
    """Columns of the schema that it reads; empty = a default set. Columns that the factors read are left out."""
    see_factors: bool = False
    """Let it read the columns that the factors are made of, too."""
    encoder: bool = False
    """Read the policy network's encoding of what was seen before and after the action, instead of columns."""
    caption_buckets: Annotated[int, Field(ge=0)] = 32
    """Inputs that tell which message came, hashed; 0 = none."""
    members: PositiveInt = 3
    """Networks, which differ in initial weights and in the pairs that they learn from."""
    aggregate: Literal["mean", "median", "mean_minus_std", "min"] = "mean"
    """How the members' rewards become one."""
    hidden: PositiveInt = 64
    """Units of each of two hidden layers."""
    learning_rate: PositiveFloat = 1e-3
    """Of AdamW."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    """Of AdamW."""
    batch_pairs: PositiveInt = 64
    """Pairs in a gradient step."""
    steps_per_update: PositiveInt = 4
    """Gradient steps in one PPO update."""
    publish_updates: PositiveInt = 1
    """PPO updates between two versions of the reward."""
    min_segments: Annotated[int, Field(ge=8)] = 128
    """Segments before the first gradient step; until the first version the reward is not valid."""
    capacity_segments: Annotated[int, Field(ge=64)] = 2048
    """Newest segments that are kept to compare."""
    margin_scale: Annotated[float, Field(ge=0.0)] = 0.1
    """Adaptive margin of the loss: this much for each margin by which the deciding level differs; 0 = none."""
    max_loss_margin: Annotated[float, Field(ge=0.0)] = 1.0
    """Most that it comes to."""
    pin: Annotated[float, Field(ge=0.0)] = 0.01
    """Weight of the squared sum of both segments' rewards, which pins the constant that comparisons leave open."""
    held_out_share: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share of the episodes that only accuracy is measured on."""


class TreeConfig(FactorsConfig):
    """HERON: a model of what a preference tree over the ranking prefers."""

    kind: Literal["tree"] = "tree"
    segment_steps: PositiveInt | None = 16
    """Steps of the segments that are compared; none = whole episodes."""
    comparison: ComparisonConfig = ComparisonConfig()
    model: ModelConfig = ModelConfig()


class WeightedSumConfig(FactorsConfig):
    """The factors' weighted sum: what reward engineering does."""

    kind: Literal["weighted_sum"] = "weighted_sum"
    beta: PositiveFloat = 0.5
    """A factor weighs this power of its place: 1, beta, beta squared, ..."""


class PowersOfTenConfig(FactorsConfig):
    """The factors' sum with a weight of ten to the number of less important ones."""

    kind: Literal["powers_of_ten"] = "powers_of_ten"


HeronConfig = Annotated[TreeConfig | WeightedSumConfig | PowersOfTenConfig, Field(discriminator="kind")]
"""Every kind of reward over a ranking of factors."""
