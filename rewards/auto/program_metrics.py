"""What a reward program reports while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "rewards/program/*/mean": "What this component of the reward program pays, composed; mean over valid steps.",
        "rewards/program/*/valid": "Share of the steps of the last update for which the reward program had an answer.",
        "rewards/program/*/episode_sum": "Mean sum of what this component pays over the last 100 episodes.",
        "rewards/program/*/raw/mean": "What the reward program itself gave for this component; mean over valid steps.",
        "rewards/program/*/raw/valid": "As rewards/program/*/valid.",
        "rewards/program/*/raw/episode_sum": "Mean sum of the component's own values over the last 100 episodes.",
    }
)
"""``{metric name: what it is}``; ``*`` stands for one name, that of a component."""
