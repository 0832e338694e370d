"""Configuration of rewards: which parts there are, what they weigh, which stream they feed."""

from __future__ import annotations

from collections.abc import Mapping

from envs.data import Config
from rewards.auto.config import ProgramConfig
from rewards.heron.config import HeronConfig, TreeConfig
from rewards.oni.config import OniConfig, RetrievalConfig
from rewards.parts import PartConfig, StreamConfig


class RewardConfig(Config):
    """What a step is worth."""

    env: PartConfig = PartConfig()
    """The environment's own reward."""
    oni: OniConfig = RetrievalConfig()
    """What captions are worth by an annotator's labels."""
    heron: HeronConfig = TreeConfig()
    """What play is worth by a ranking of factors."""
    program: str | None = None
    """SHA of a reward program in the archive (its first digits will do), or a file: `yendor rewards list`."""
    auto: ProgramConfig = ProgramConfig()
    """How the program is composed, contained and weighed."""
    extrinsic: StreamConfig = StreamConfig()
    intrinsic: StreamConfig = StreamConfig()

    @property
    def parts(self) -> Mapping[str, PartConfig]:
        """Every part by its name; that of reward programs only where one is chosen."""
        parts: dict[str, PartConfig] = {"env": self.env, "oni": self.oni, "heron": self.heron}
        return parts if self.program is None else parts | {"program": self.auto}

    @property
    def pays_program(self) -> bool:
        """A reward program is part of what is learned from."""
        return self.program is not None and self.auto.weight > 0

    @property
    def streams(self) -> dict[str, StreamConfig]:
        """The streams that a part with a positive weight feeds, in the order of the value heads."""
        fed = {part.stream for part in self.parts.values() if part.weight > 0}
        streams = {"extrinsic": self.extrinsic, "intrinsic": self.intrinsic}
        return {name: config for name, config in streams.items() if name in fed}
