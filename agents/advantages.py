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
