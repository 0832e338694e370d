"""Advantages and value targets: pure functions over ``[T, B, S]``, one stream of rewards a value head.

``next_values`` says what follows each step: V(s_{t+1}) inside an episode, V(final observation) at a
truncation, 0 at a termination. ``bootstrap_values`` builds it; nothing below needs to know why an
episode ended, only that the trace is cut there (``done``).
"""

from __future__ import annotations

import torch
from torch import Tensor


def bootstrap_values(
    values: Tensor, terminated: Tensor, done: Tensor, final_at: Tensor, final_values: Tensor
) -> Tensor:
    """Value of what follows each step, correct under games that restart within a step.

    Args:
        values: [T+1, B, S] of the observations, those after a restart included.
        terminated: bool [T, B].
        done: bool [T, B], terminated or truncated.
        final_at: int [N, 2] (t, b) of each ended episode.
        final_values: [N, S] of their last observations.

    Returns:
        [T, B, S]: ``values[t+1]`` inside episodes, the final observation's value at truncations
        (Pardo et al. 2018, "Time Limits in Reinforcement Learning"), 0 at terminations.
    """
    following = torch.where(done[..., None], torch.zeros_like(values[1:]), values[1:])
    if len(final_at):
        t, b = final_at.unbind(1)
        following[t, b] = torch.where(terminated[t, b, None], torch.zeros_like(final_values), final_values)
    return following


def gae(
    rewards: Tensor, values: Tensor, next_values: Tensor, done: Tensor, gamma: Tensor, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, equation 16).

    Args:
        rewards: [T, B, S].
        values: [T, B, S], V(s_t).
        next_values: [T, B, S], see ``bootstrap_values``.
        done: bool [T, B]; the trace is cut where an episode ended.
        gamma: [S], one discount a stream.
        gae_lambda: trace decay.

    Returns:
        Advantages and value targets (advantage + value), both [T, B, S].
    """
    ones = torch.ones(done.shape, dtype=values.dtype, device=values.device)
    return vtrace(rewards, values, next_values, done, gamma, gae_lambda, ones)


def vtrace(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    done: Tensor,
    gamma: Tensor,
    gae_lambda: float,
    ratio: Tensor,
    rho_max: float = 1.0,
    c_max: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """V-trace targets (Espeholt et al. 2018, equation 1 with remark 2's lambda) and their advantages.

    With ``ratio`` of one everywhere this is GAE; with ``gae_lambda`` of one the advantages are
    IMPALA's ``rho_t (r_t + gamma v_{t+1} - V(s_t))``.

    Args:
        rewards: [T, B, S].
        values: [T, B, S], V(s_t) of the current parameters.
        next_values: [T, B, S], see ``bootstrap_values``.
        done: bool [T, B].
        gamma: [S].
        gae_lambda: trace decay, multiplied into c_t.
        ratio: [T, B], pi(a|s) / mu(a|s), current over behaviour policy.
        rho_max: clip of the ratio that weighs each step (decides the fixed point).
        c_max: clip of the ratio that carries the trace (decides the speed).

    Returns:
        Advantages and value targets v_t, both [T, B, S].
    """
    rho = ratio.clamp(max=rho_max)[..., None]
    carry = gae_lambda * ratio.clamp(max=c_max)[..., None]
    running = (~done).to(values.dtype)[..., None]
    # TD errors: delta_t = r_t + gamma V(s_{t+1}) - V(s_t)
    deltas = rewards + gamma * next_values - values
    correction = torch.zeros_like(values[0])  # v_{t+1} - V(s_{t+1})
    corrections, advantages = torch.empty_like(values), torch.empty_like(values)
    for t in range(len(rewards) - 1, -1, -1):
        follow = gamma * running[t] * correction
        advantages[t] = rho[t] * (deltas[t] + gae_lambda * follow)
        correction = rho[t] * deltas[t] + carry[t] * follow
        corrections[t] = correction
    return advantages, values + corrections


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
