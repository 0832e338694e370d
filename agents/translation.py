"""A policy trained on one set of actions, playing games that have another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from envs.protocols import Noise, Policy, PolicyStep


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
