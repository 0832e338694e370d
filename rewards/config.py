"""Configuration of rewards: which parts there are, what they weigh, which stream they feed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from envs.data import Config


class StreamConfig(Config):
    """One value head learns one stream."""

    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.99
    """Discount."""
    combine: Literal["sum", "product"] = "sum"
    """How the weighted parts of the stream combine."""


class PartConfig(Config):
    """How one named part enters the streams."""

    weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Factor of the part; 0 switches it off (the environment's own is still measured)."""
    stream: Literal["extrinsic", "intrinsic"] = "extrinsic"
    """The stream, and so the value head, that it feeds."""
    normalise: Literal["none", "std"] = "none"
    """Divide by the running standard deviation of the part's valid values."""
    clip: Annotated[float, Field(gt=0.0)] | None = None
    """Bound of the weighted part, both ways."""


class RetrievalConfig(PartConfig):
    """ONI retrieval: the label of the caption, divided by its count in the episode to a power."""

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    stream: Literal["extrinsic", "intrinsic"] = "intrinsic"
    count_exponent: Annotated[float, Field(ge=0.0)] = 3.0
    """Power of the within-episode count (3 in ONI)."""


class RewardConfig(Config):
    """What a step is worth."""

    env: PartConfig = PartConfig()
    """The environment's own reward."""
    oni: RetrievalConfig = RetrievalConfig()
    """Labels of captions."""
    extrinsic: StreamConfig = StreamConfig()
    intrinsic: StreamConfig = StreamConfig()
