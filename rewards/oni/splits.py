"""Who learns from what: a stable split by template, and bootstrap weights, both from hashes.

Each member of an ensemble leaves out the templates of a fold of its own. Every caption is learnt by all members but
one at most, so that no kind of message is lost to the reward, and still every fold says how well a member does on
templates that it never saw. Nothing here depends on the order in which labels arrive.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from envs.captions import template_of

NO_FOLD = -1
"""Fold of captions that every member learns from."""

_POISSON_CDF = np.cumsum(np.exp(-1) / np.cumprod([1.0, *range(1, 12)]))


def _uniform(key: str, number: int) -> np.ndarray:
    """float64 [number] in [0, 1), the same for the same key."""
    words = [blake2b(f"{i} {key}".encode(), digest_size=8).digest() for i in range(number)]
    return np.array([int.from_bytes(word, "big") >> 11 for word in words], np.float64) / 2.0**53


def fold_of(caption: str, share: float, members: int) -> int:
    """The member that leaves this caption out, or ``NO_FOLD``; the same for all captions of a template.

    Args:
        caption: a canonical text.
        share: share of templates in each fold.
        members: number of folds.
    """
    fold = int(_uniform(template_of(caption), 1)[0] / share) if share > 0 else members
    return fold if fold < members else NO_FOLD


def bootstrap_weights(key: str, members: int) -> np.ndarray:
    """How often each member draws an example into its sample: Poisson(1), which is the bootstrap of a stream.

    Oza and Russell 2001, "Online bagging and boosting".

    Args:
        key: names the example.
        members: K.

    Returns:
        float32 [K].
    """
    return np.searchsorted(_POISSON_CDF, _uniform(key, members), side="right").astype(np.float32)
