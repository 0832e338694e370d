"""Policies: a network that acts, uniform choice, and actions translated between sets of games."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from agents.devices import autocast
from agents.fast.repeats import Memo
from agents.model import ActorCritic
from envs.protocols import GamesSpec, Noise, Policy, PolicyStep

_CHUNK = 4096
"""Observations encoded at a time."""


class TorchPolicy:
    """Acts with an ``ActorCritic``.

    Args:
        model: the network; moved to ``device`` and put in evaluation mode.
        device: where it computes.
        precision: ``auto``, ``fp32`` or ``bf16``.
        version: policy version, written beside every sample.
    """

    def __init__(self, model: ActorCritic, device: torch.device, precision: str = "fp32", version: int = 0) -> None:
        self.model = model.to(device).eval()
        self.device = device
        self.precision = precision
        self.version = version
        self._memo: Memo | None = None

    @contextmanager
    def fixed_weights(self) -> Iterator[None]:
        """Inside, the weights stay as they are: what was computed of a crop or a message is not computed again."""
        self._memo = self.model.encoder.memo()
        try:
            yield
        finally:
            self._memo = None

    def load(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Take over published weights (``weights_of``)."""
        with torch.no_grad():
            for name, parameter in self.model.state_dict().items():
                parameter.copy_(torch.from_numpy(np.array(weights[name])))
        if self._memo is not None:
            self._memo = self.model.encoder.memo()
        self.version = version

    def initial_state(self, num_games: int) -> np.ndarray | None:
        """Zeros float32 [B, H], or None without recurrence."""
        state = self.model.initial_state(num_games)
        return None if state is None else state.cpu().numpy()

    def _memory(self, recurrent_state: np.ndarray | None) -> Tensor | None:
        # In torch's own, aligned memory: see ``agents.ppo.train_batch``.
        return None if recurrent_state is None else torch.tensor(recurrent_state, device=self.device)

    @torch.inference_mode()
    def act(
        self,
        obs: Mapping[str, np.ndarray],
        recurrent_state: np.ndarray | None,
        action_mask: np.ndarray | None,
        noise: Noise,
        *,
        deterministic: bool = False,
    ) -> PolicyStep:
        """Choose actions for observations ``{key: [B, ...]}``."""
        state = self._memory(recurrent_state)
        mask = None if action_mask is None else _tensor(action_mask, self.device)
        with autocast(self.precision, self.device):
            features, state = self.model.step(_tensors(obs, self.device), state, self._memo)
            sample = self.model.head.sample(features, mask, noise, deterministic=deterministic)
            values = self.model.values(features)
        return PolicyStep(
            actions=sample.actions.cpu().numpy(),
            recurrent_state=None if state is None else state.float().cpu().numpy(),
            values=values.cpu().numpy(),
            log_prob=None if sample.log_prob is None else sample.log_prob.cpu().numpy(),
            head_record={name: x.cpu().numpy() for name, x in sample.record.items()},
        )

    @torch.inference_mode()
    def evaluate(self, obs: Mapping[str, np.ndarray], recurrent_state: np.ndarray | None) -> np.ndarray:
        """Values float32 [N, S] of observations ``{key: [N, ...]}``, without acting."""
        state = self._memory(recurrent_state)
        with autocast(self.precision, self.device):
            features, _ = self.model.step(_tensors(obs, self.device), state, self._memo)
            return self.model.values(features).cpu().numpy()


def _tensors(obs: Mapping[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    return {key: _tensor(x, device) for key, x in obs.items()}


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    # Tensors can always be written to. What must not be, because another process gave it or games share it, is copied.
    return (torch.from_numpy(array) if array.flags.writeable else torch.tensor(array)).to(device)


def weights_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Copies of a network's weights as numpy arrays, to publish or to checkpoint."""
    return {name: x.detach().cpu().numpy().copy() for name, x in model.state_dict().items()}


def encoding(model: ActorCritic, precision: str) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """A function from observations ``{key: [N, ...]}`` to float32 [N, W], by the encoder as it is at each call.

    For rewards that read what the network makes of observations.

    Args:
        model: the network; no gradient flows into it.
        precision: ``auto``, ``fp32`` or ``bf16``.
    """

    @torch.inference_mode()
    def encode(obs: Mapping[str, np.ndarray]) -> np.ndarray:
        where = model.value.weight.device
        num = len(next(iter(obs.values())))
        pieces = []
        for start in range(0, num, _CHUNK):
            chunk = _tensors({key: x[start : start + _CHUNK] for key, x in obs.items()}, where)
            with autocast(precision, where):
                pieces.append(model.encoder(chunk).float().cpu())
        return torch.cat(pieces).numpy()

    return encode


class RandomPolicy:
    """The floor under every figure: each allowed action equally likely, continuous ones uniform within their bounds."""

    version = 0

    def __init__(self, spec: GamesSpec) -> None:
        self._spec = spec

    def initial_state(self, num_games: int) -> None:
        """No memory."""

    def act(
        self,
        obs: Mapping[str, np.ndarray],
        recurrent_state: np.ndarray | None,
        action_mask: np.ndarray | None,
        noise: Noise,
        *,
        deterministic: bool = False,
    ) -> PolicyStep:
        """Uniform actions; ``deterministic`` changes nothing."""
        spec = self._spec
        if not spec.num_actions:
            level = noise.uniform(int(np.prod(spec.action_shape)))
            level = level.reshape(-1, *spec.action_shape)
            low, high = np.asarray(spec.action_low), np.asarray(spec.action_high)
            return PolicyStep(actions=(low + level * (high - low)).astype(spec.action_dtype))
        level = noise.uniform(1)[:, 0]
        if action_mask is None:
            log_prob = np.full(len(level), -np.log(spec.num_actions), np.float32)
            return PolicyStep(actions=(level * spec.num_actions).astype(np.int64), log_prob=log_prob)
        cumulative = action_mask.cumsum(1)
        wanted = np.floor(level * cumulative[:, -1]) + 1
        log_prob = -np.log(cumulative[:, -1]).astype(np.float32)
        return PolicyStep(actions=(cumulative < wanted[:, None]).sum(1), log_prob=log_prob)


class TranslatedPolicy:
    """Chooses among the policy's actions that the games have too, and says them in the games' numbers.

    Args:
        policy: acts over ``policy_actions``.
        policy_actions: names of its actions.
        games_actions: names of the games' actions.

    Raises:
        ValueError: the two have no action in common.
    """

    def __init__(self, policy: Policy, policy_actions: Sequence[str], games_actions: Sequence[str]) -> None:
        self._policy = policy
        self.version = policy.version
        index = {name: i for i, name in enumerate(games_actions)}
        self._number = np.array([index.get(name, -1) for name in policy_actions], np.int64)
        if (self._number < 0).all():
            raise ValueError("the policy was trained on none of the actions that these games have")

    def initial_state(self, num_games: int) -> np.ndarray | None:
        """The policy's own."""
        return self._policy.initial_state(num_games)

    def act(
        self,
        obs: Mapping[str, np.ndarray],
        recurrent_state: np.ndarray | None,
        action_mask: np.ndarray | None,
        noise: Noise,
        *,
        deterministic: bool = False,
    ) -> PolicyStep:
        """As the policy, with the actions that a game lacks masked."""
        num_games = len(next(iter(obs.values())))
        mask = np.broadcast_to(self._number >= 0, (num_games, len(self._number)))
        if action_mask is not None:
            mask = mask & action_mask[:, self._number]
        step = self._policy.act(obs, recurrent_state, np.ascontiguousarray(mask), noise, deterministic=deterministic)
        return replace(step, actions=self._number[step.actions])


def translated(policy: Policy, policy_actions: Sequence[str], games_actions: Sequence[str]) -> Policy:
    """The policy itself where the actions agree, else its translation."""
    if tuple(policy_actions) == tuple(games_actions):
        return policy
    return TranslatedPolicy(policy, policy_actions, games_actions)
