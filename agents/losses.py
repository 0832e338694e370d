"""Losses of the learners: pure functions of tensors ``[N]``, N samples."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO's pessimistic policy loss (Schulman et al. 2017, equation 7), per sample [N]."""
    ratio = torch.exp(log_prob - old_log_prob)
    return -torch.min(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Squared error [N], the mean over the S streams of ``value`` and ``target`` [N, S]."""
    return (value - target).square().mean(-1)


def approximate_kl(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """Low-variance, never negative estimate of KL(old || new) per sample (Schulman 2020, "k3")."""
    log_ratio = log_prob - old_log_prob
    return torch.exp(log_ratio) - 1.0 - log_ratio


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """1 - Var(target - value) / Var(target), for each of S streams of [N, S]; 0 where targets are constant."""
    variance = target.var(0, correction=0)
    explained = 1.0 - (target - value).var(0, correction=0) / variance.clamp(min=1e-12)
    return torch.where(variance > 1e-12, explained, torch.zeros_like(explained))


def normalised(advantage: Tensor, std_floor: float = 0.0, among: Tensor | None = None) -> Tensor:
    """Zero mean, unit (sample) standard deviation; a single sample is left alone.

    Args:
        advantage: [N].
        std_floor: smallest standard deviation that is divided by. Without a floor, a batch that saw no reward
            is driven by the value heads' noise, at full strength, until the policy has collapsed.
        among: [M], the samples whose mean and deviation count, these N among them; None = these alone.
    """
    among = advantage if among is None else among
    if among.numel() < 2:
        return advantage
    return (advantage - among.mean()) / (among.std().clamp(min=std_floor) + 1e-8)
