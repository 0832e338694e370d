"""A critic of chunks of actions, learned from logged play by implicit Q-learning.

Implicit Q-learning (Kostrikov et al. 2022) never asks what an action that was not logged is worth: the value of a state
is an upper expectile of the values of the chunks that were played there. With chunks of E actions as the actions
(Q-chunking, Li et al. 2025) one bootstrap spans E steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.config import CriticConfig, EncoderConfig
from agents.encoders import CoordinateEmbedding, Encoder
from envs.protocols import ObsSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkBatch:
    """N chunks of logged play."""

    obs: Mapping[str, Tensor]
    """``{key: [N, ...]}`` before the chunk."""
    next_obs: Mapping[str, Tensor]
    """``{key: [N, ...]}`` after it; of an episode that ended, its last."""
    hero: Tensor
    """int64 [N, 2]: column and row before the chunk; -1 where not known."""
    next_hero: Tensor
    """int64 [N, 2] after it."""
    goal: Tensor
    """int64 [N, 2]; -1 = none."""
    chunk: Tensor
    """int64 [N, E]: actions, and ``num_actions`` after the steps that ``reward`` is of: an end, a goal, a cut."""
    reward: Tensor
    """float32 [N]: discounted sum over the chunk."""
    discount: Tensor
    """float32 [N]: what the value after the chunk is multiplied by; 0 where nothing follows."""
    weight: Tensor
    """float32 [N]: 0 for what must not be learned from."""


class ChunkCritic(nn.Module):
    """Two members ``Q(z, a_1:E, goal)`` and one ``V(z, goal)``.

    Args:
        config: sizes.
        encoder: of its own encoder, so that the critic is the same whichever head is learned beside it.
        obs_spec: what is observed.
        num_actions: A; one more token stands for nothing more.

    Attributes:
        scale: float32 [], what the network's outputs are multiplied by to be values.
    """

    def __init__(
        self, config: CriticConfig, encoder: EncoderConfig, obs_spec: Mapping[str, ObsSpec], num_actions: int
    ) -> None:
        super().__init__()
        width, hidden = config.action_embedding, config.hidden
        self.chunk_steps, self._nothing = config.chunk_steps, num_actions
        self.encoder = Encoder(encoder, obs_spec)
        self.hero, self.goal = CoordinateEmbedding(hidden), CoordinateEmbedding(hidden)
        self.features = nn.Linear(self.encoder.width, hidden)
        self.state = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.actions = nn.Embedding((num_actions + 1) * config.chunk_steps, width)
        self.of_state = nn.Linear(hidden, 2 * hidden)
        self.of_chunk = nn.Linear(config.chunk_steps * width, 2 * hidden, bias=False)
        self.members = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)) for _ in range(2)
        )
        self.value = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))
        self._offsets: Tensor
        self.register_buffer("_offsets", torch.arange(config.chunk_steps) * (num_actions + 1), persistent=False)

    def states(self, obs: Mapping[str, Tensor], hero: Tensor, goal: Tensor) -> Tensor:
        """Features [N, D] of states with their goals."""
        return self.state(self.features(self.encoder(obs)) + self.hero(hero) + self.goal(goal))

    def members_of(self, states: Tensor, chunks: Tensor) -> Tensor:
        """Values [2, N, ...] by either member.

        Args:
            states: [N, D] of ``states``.
            chunks: int64 [N, ..., E]: any number of chunks for each state.
        """
        embedded = self.actions(chunks + self._offsets).flatten(-2)
        joint = self.of_chunk(embedded)
        of_state = self.of_state(states)
        joint = (joint + of_state.view(len(states), *[1] * (joint.dim() - 2), -1)).relu()
        halves = joint.chunk(2, dim=-1)
        return self.scale * torch.stack([m(h)[..., 0] for m, h in zip(self.members, halves, strict=True)])

    def scores(self, states: Tensor, plans: Tensor) -> Tensor:
        """The lower member's values [N, ...] of how plans begin: a planner must not trust the higher.

        Args:
            states: [N, D] of ``states``.
            plans: int64 [N, ..., H]; of those shorter than a chunk, the value of so many steps.
        """
        chunks = plans[..., : self.chunk_steps]
        missing = self.chunk_steps - chunks.shape[-1]
        # A plan that says it is over is worth what its steps are: it may be wrong.
        chunks = functional.pad(chunks, (0, missing), value=self._nothing).clamp(max=self._nothing)
        return self.members_of(states, chunks).amin(0)

    def values(self, states: Tensor) -> Tensor:
        """[N] of states [N, D]."""
        return self.scale * self.value(states)[:, 0]


@dataclass(frozen=True, kw_only=True, slots=True)
class CriticLoss:
    """What to minimise, and numbers to watch (detached)."""

    loss: Tensor
    metrics: Mapping[str, Tensor]


def critic_loss(
    critic: ChunkCritic, target: ChunkCritic, batch: ChunkBatch, expectile: float, highest: float = torch.inf
) -> CriticLoss:
    """Implicit Q-learning over chunks.

    Args:
        critic: learns.
        target: a slow copy of it, which says what chunks are worth.
        batch: N chunks.
        expectile: of the values of logged chunks that a state is worth, above 0.5.
        highest: value that there can be: a high expectile of values that err upwards would feed on itself.
    """
    scale = critic.scale
    with torch.no_grad():
        logged = target.scores(target.states(batch.obs, batch.hero, batch.goal), batch.chunk)
        following = critic.values(critic.states(batch.next_obs, batch.next_hero, batch.goal)).clamp(max=highest)
        wanted = batch.reward + batch.discount * following
    states = critic.states(batch.obs, batch.hero, batch.goal)
    value = critic.values(states)
    advantage = logged - value
    total = batch.weight.sum().clamp(min=1.0)
    value_loss = (expectile_weight(advantage, expectile) * (advantage / scale) ** 2 * batch.weight).sum() / total
    members = critic.members_of(states, batch.chunk)
    error = functional.mse_loss(members / scale, (wanted / scale).expand_as(members), reduction="none")
    member_loss = (error.mean(0) * batch.weight).sum() / total
    metrics = {
        "critic_loss": member_loss.detach(),
        "value_loss": value_loss.detach(),
        "value": (value.detach() * batch.weight).sum() / total,
    }
    return CriticLoss(loss=value_loss + member_loss, metrics=metrics)


def expectile_weight(difference: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(difference < 0)|: what a squared error weighs so that its minimum is that expectile."""
    return torch.where(difference < 0, 1.0 - expectile, expectile)
