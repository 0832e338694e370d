"""Rollouts and their rewards, as the tensors that a learner improves on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envs.data import RewardOutput, Rollout


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainBatch:
    """T steps of B games (all workers side by side), on the learner's device."""

    obs: Mapping[str, Tensor]
    """``{key: [T+1, B, ...]}``."""
    actions: Tensor
    rewards: Tensor
    """[T, B, S]."""
    values: Tensor
    """[T+1, B, S] of the behaviour policy."""
    terminated: Tensor
    done: Tensor
    final_at: Tensor
    """int64 [N, 2]."""
    final_obs: Mapping[str, Tensor]
    final_values: Tensor
    """[N, S] of the behaviour policy."""
    log_prob: Tensor | None
    action_mask: Tensor | None
    head_record: Mapping[str, Tensor]
    recurrent_state: Tensor | None
    policy_version: np.ndarray
    """int64 [T, B], kept on the host."""

    @property
    def num_steps(self) -> int:
        """T."""
        return self.done.shape[0]

    @property
    def num_games(self) -> int:
        """B."""
        return self.done.shape[1]


def train_batch(rollouts: Sequence[Rollout], rewards: Sequence[RewardOutput], device: torch.device) -> TrainBatch:
    """Join rollouts of equal T side by side.

    Raises:
        ValueError: a rollout has no values (it was not collected for learning).
    """
    if any(r.values is None for r in rollouts):
        raise ValueError("a rollout without values cannot be learned from")
    first = rollouts[0]

    def joined(arrays: Iterator[np.ndarray], axis: int = 1) -> Tensor:
        found = list(arrays)
        whole = found[0] if len(found) == 1 else np.concatenate(found, axis)
        # Copied into torch's own memory, which is aligned: the last bits of a matrix product depend on
        # where its operands lie, and equal runs must have equal weights.
        return torch.tensor(whole, device=device)

    def optional(name: str, axis: int = 1) -> Tensor | None:
        if getattr(first, name) is None:
            return None
        return joined((getattr(r, name) for r in rollouts), axis)

    offsets = np.cumsum([0] + [r.num_games for r in rollouts[:-1]])
    return TrainBatch(
        obs={key: joined(r.obs[key] for r in rollouts) for key in first.obs},
        actions=joined(r.actions for r in rollouts),
        rewards=joined(output.streams for output in rewards),
        values=joined(r.values for r in rollouts),  # pyright: ignore[reportArgumentType]
        terminated=joined(r.terminated for r in rollouts),
        done=joined(r.done for r in rollouts),
        final_at=joined((_shifted(r, offset) for r, offset in zip(rollouts, offsets, strict=True)), 0),
        final_obs={key: joined((r.final_obs.obs[key] for r in rollouts), 0) for key in first.final_obs.obs},
        final_values=joined((r.final_obs.values for r in rollouts), 0),  # pyright: ignore[reportArgumentType]
        log_prob=optional("log_prob"),
        action_mask=optional("action_mask"),
        head_record={key: joined(r.head_record[key] for r in rollouts) for key in first.head_record},
        recurrent_state=optional("recurrent_state", 0),
        policy_version=np.concatenate([r.policy_version for r in rollouts], axis=1),
    )


def _shifted(rollout: Rollout, offset: int) -> np.ndarray:
    """(t, b) of the rollout's ended episodes, with b counted over all rollouts."""
    return rollout.final_obs.at + np.array([0, offset])
