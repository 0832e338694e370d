"""A network that acts: ``envs.protocols.Policy`` over torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from agents.devices import autocast
from agents.model import ActorCritic
from agents.repeats import Memo
from envs.protocols import Noise, PolicyStep


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

    def tensors(self, obs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Observations on this policy's device."""
        return {key: torch.from_numpy(x).to(self.device) for key, x in obs.items()}

    def _memory(self, recurrent_state: np.ndarray | None) -> Tensor | None:
        # In torch's own, aligned memory: see agents.batch.
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
        mask = None if action_mask is None else torch.from_numpy(action_mask).to(self.device)
        with autocast(self.precision, self.device):
            features, state = self.model.step(self.tensors(obs), state, self._memo)
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
            features, _ = self.model.step(self.tensors(obs), state, self._memo)
            return self.model.values(features).cpu().numpy()


def weights_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Copies of a network's weights as numpy arrays, to publish or to checkpoint."""
    return {name: x.detach().cpu().numpy().copy() for name, x in model.state_dict().items()}
