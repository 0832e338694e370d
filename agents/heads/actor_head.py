"""What an actor head promises: to sample actions, and to say its own loss.

A head need not have a log-probability (a diffusion head has no cheap exact one), so the learner
never asks for it: each head owns its behaviour data (``record``) and its surrogate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from agents.config import PPOConfig
from envs.protocols import Noise


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSample:
    """Actions for N feature vectors."""

    actions: Tensor
    """[N, ...]."""
    log_prob: Tensor | None = None
    """[N], where the head has an exact one."""
    record: Mapping[str, Tensor] = field(default_factory=dict)
    """``{name: [N, ...]}``: what ``loss`` will need besides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadBatch:
    """N samples to improve on."""

    actions: Tensor
    """[N, ...]."""
    advantage: Tensor
    """[N], already normalised and weighed."""
    old_log_prob: Tensor | None
    """[N] under the policy that the ratio is clipped around."""
    action_mask: Tensor | None
    """bool [N, A]."""
    record: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadLoss:
    """What to minimise, and numbers to watch (detached)."""

    loss: Tensor
    """Scalar."""
    metrics: Mapping[str, Tensor]


class ActorHead(Protocol):
    """Turns features into actions, and advantages into a loss."""

    def sample(
        self, features: Tensor, action_mask: Tensor | None, noise: Noise, *, deterministic: bool = False
    ) -> HeadSample:
        """Choose actions for features [N, F]."""
        ...

    def log_prob(self, features: Tensor, batch: HeadBatch) -> Tensor | None:
        """[N] of the batch's actions; None for heads without an exact one."""
        ...

    def loss(self, features: Tensor, batch: HeadBatch, config: PPOConfig) -> HeadLoss:
        """The head's surrogate over features [N, F]."""
        ...
