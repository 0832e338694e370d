"""What an actor head promises the learner: to sample actions, and to say its own loss.

A head need not have a log-probability (a diffusion head has no cheap exact one). What its loss needs of the moment
of acting it records itself (``HeadSample.record``), and the learner hands it back. Only corrections for play of older
policies (V-trace) ask for log-probabilities, and only heads that give them (``LikelihoodHead``) can be trained so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from agents.config import PPOConfig
from envs.protocols import Noise


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSample:
    """Actions for N feature vectors."""

    actions: Tensor
    """[N, ...]."""
    log_prob: Tensor | None = None
    """[N]; every ``LikelihoodHead`` gives it."""
    record: Mapping[str, Tensor] = field(default_factory=dict)
    """``{name: [N, ...]}``: what ``loss`` will need besides, kept with the rollout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadBatch:
    """N samples to improve on."""

    actions: Tensor
    """[N, ...]."""
    advantage: Tensor
    """[N], summed over streams, normalised where ``ppo.normalise_advantage`` says so."""
    old_log_prob: Tensor | None
    """[N] under the policy that the ratio is clipped around; None for heads without a likelihood."""
    action_mask: Tensor | None
    """bool [N, A]; None where every game has every action."""
    record: Mapping[str, Tensor]
    """``{name: [N, ...]}`` as sampled."""
    generator: np.random.Generator
    """Where a loss takes random numbers from (noise levels, masks); the same after a resume."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadLoss:
    """What to minimise, and numbers to watch (detached)."""

    loss: Tensor
    """Scalar."""
    metrics: Mapping[str, Tensor]


class ActorHead(Protocol):
    """Turns features into actions, and samples with their advantages into a loss: an ``nn.Module``."""

    def sample(
        self, features: Tensor, action_mask: Tensor | None, noise: Noise, *, deterministic: bool = False
    ) -> HeadSample:
        """Choose actions for features [N, F], with no randomness but ``noise``."""
        ...

    def loss(self, features: Tensor, batch: HeadBatch, config: PPOConfig) -> HeadLoss:
        """What to minimise over features [N, F]."""
        ...


@runtime_checkable
class LikelihoodHead(ActorHead, Protocol):
    """A head that knows how probable an action is, so that play of older policies can be weighed (V-trace)."""

    def log_prob(
        self, features: Tensor, actions: Tensor, action_mask: Tensor | None, record: Mapping[str, Tensor]
    ) -> Tensor:
        """[N] of actions [N, ...], as sampled with their ``record``, given features [N, F]."""
        ...
