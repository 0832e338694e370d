"""How a named part of the reward enters the streams, and what a stream is."""

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
    normalise: Literal["none", "std", "return"] = "none"
    """std: divide by the running standard deviation of the part's valid values. return: by that of its discounted
    sums, so that a dense part weighs what an episode sums to, and not what it pays a step (Burda et al. 2018,
    arXiv 1810.12894, section 2.4)."""
    clip: Annotated[float, Field(gt=0.0)] | None = None
    """Bound of the weighted part, both ways."""
    bound: Literal["none", "clip", "delta"] = "none"
    """Keep a dense reward from paying for length. clip: only what falls short of ``bound_at`` is fined. delta: each
    step pays its reward less the next step's, so that what follows a step sums up to its own reward."""
    bound_at: float = 0.0
    """The threshold of bound=clip."""

    @property
    def pays(self) -> bool:
        """The part is learned from."""
        return self.weight > 0
