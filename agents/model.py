"""The network: encoder, core, actor head and one value head per reward stream."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from agents.config import ModelConfig
from agents.encoders import Encoder, initialise
from agents.fast.repeats import Memo
from agents.heads import HEADS
from envs.protocols import GamesSpec

_ALIGNED = 16
"""Floats to which each parameter's start is rounded up: 64 bytes, a cache line and a vector register."""


class ActorCritic(nn.Module):
    """Features are shared by the actor head and the S value heads.

    Args:
        config: sizes, and which actor head.
        spec: the games' observations and actions.
        num_streams: S.

    Raises:
        ValueError: the actor head cannot give the games' actions.
    """

    def __init__(self, config: ModelConfig, spec: GamesSpec, num_streams: int) -> None:
        super().__init__()
        self.encoder = Encoder(config.encoder, spec.obs)
        self.core = nn.GRUCell(self.encoder.width, config.core_hidden) if config.core == "gru" else None
        self.num_features = config.core_hidden if self.core else self.encoder.width
        self.head = HEADS[type(config.head)](config.head, self.num_features, spec)
        self.value = nn.Linear(self.num_features, num_streams)
        initialise(self.value, gain=1.0)

    def initial_state(self, num_games: int) -> Tensor | None:
        """Zeros [B, H], or None without a core."""
        if self.core is None:
            return None
        return torch.zeros(num_games, self.core.hidden_size, device=self.value.weight.device)

    def step(
        self, obs: Mapping[str, Tensor], state: Tensor | None, memo: Memo | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """One step of N games: features [N, F] and the state after it [N, H]; ``memo`` as in ``Encoder``."""
        features = self.encoder(obs, memo)
        if self.core is None:
            return features, None
        after = self.core(features, state)
        return after, after

    def unroll(self, obs: Mapping[str, Tensor], state: Tensor | None, done: Tensor) -> Tensor:
        """Features [T, B, F] of observations ``{key: [T, B, ...]}``.

        Args:
            obs: T steps of B games.
            state: [B, H] before the first step.
            done: bool [T, B]; memory is cleared after a step that ended an episode.
        """
        T, B = done.shape
        features = self.encoder({key: x.flatten(0, 1) for key, x in obs.items()}).unflatten(0, (T, B))
        if self.core is None:
            return features
        states = []
        for t in range(T):
            after: Tensor = self.core(features[t], state)
            states.append(after)
            state = after * (~done[t])[:, None]
        return torch.stack(states)

    def values(self, features: Tensor) -> Tensor:
        """[..., S] of features [..., F], in fp32."""
        return self.value(features).float()


class FlatParameters:
    """Makes every parameter of a network, and its gradient, a view of one tensor.

    Names, shapes and values stay; the network trains and is saved as before. Call it after the network was
    moved to its device.

    Attributes:
        values: float32 [N], a leaf that an optimiser can step; padding between parameters stays 0.
        gradient: float32 [N], ``values.grad``.
    """

    def __init__(self, model: nn.Module) -> None:
        parameters = list(model.parameters())
        starts = [0]
        for parameter in parameters:
            starts.append(starts[-1] + -(-parameter.numel() // _ALIGNED) * _ALIGNED)
        device = parameters[0].device
        self.values = nn.Parameter(torch.zeros(starts[-1], device=device))
        self.gradient = torch.zeros(starts[-1], device=device)
        self.values.grad = self.gradient
        for parameter, start in zip(parameters, starts, strict=False):
            rows = slice(start, start + parameter.numel())
            view = self.values.data[rows].view_as(parameter)
            view.copy_(parameter.data)
            parameter.data = view
            parameter.grad = self.gradient[rows].view_as(parameter)

    def clip(self, max_norm: float) -> torch.Tensor:
        """Scale the gradient down to ``max_norm``; returns its norm before."""
        norm = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm
