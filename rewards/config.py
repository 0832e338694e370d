"""Configuration of rewards: which parts there are, what they weigh, which stream they feed."""

from __future__ import annotations

from envs.data import Config
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
    extrinsic: StreamConfig = StreamConfig()
    intrinsic: StreamConfig = StreamConfig()
