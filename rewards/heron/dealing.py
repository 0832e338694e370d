"""Which episodes are held out, and which member of an ensemble learns from which: told by a hash of their number.

Whole episodes are dealt, never single segments, as those of one episode are alike. Nothing depends on the order in
which they come, and nothing has to be remembered.
"""

from __future__ import annotations

import numpy as np

_LEFT_OUT = 0.2
"""Share of the episodes that each member never learns from."""


def held_out(episode_id: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Bool [N]: the episode is one that no member learns from."""
    return _uniform(episode_id, seed, 0) < share


def learned_by(episode_id: np.ndarray, members: int, seed: int) -> np.ndarray:
    """Bool [K, N]: whether a member learns from the episode; a single member learns from all."""
    share = _LEFT_OUT if members > 1 else 0.0
    return np.stack([_uniform(episode_id, seed, 1 + member) >= share for member in range(members)])


def _uniform(ids: np.ndarray, seed: int, salt: int) -> np.ndarray:
    """float64 [N] in [0, 1): the finaliser of SplitMix64 (Steele, Lea and Flood 2014) of an id and a key."""
    key = np.random.SeedSequence((seed, 31, salt)).generate_state(1, np.uint64)
    x = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2.0**53
