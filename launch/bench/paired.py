"""What a part costs, from pairs of updates with and without it."""

from __future__ import annotations

import numpy as np


def cost(more_s: np.ndarray, update_s: np.ndarray, steps: int) -> dict[str, float]:
    """What a part costs, from pairs of updates with and without it.

    Args:
        more_s: [N] seconds that the update with it took longer.
        update_s: [N] seconds of the whole update with it.
        steps: environment steps in an update.

    Returns:
        ``share`` of the time with it, its 95 % interval ``low`` and ``high``, and ``us_per_step``.
    """
    low, high = median_interval(more_s)
    whole_s, more = float(np.median(update_s)), float(np.median(more_s))
    return {"share": more / whole_s, "low": low / whole_s, "high": high / whole_s, "us_per_step": more / steps * 1e6}


def median_interval(values: np.ndarray, seed: int = 0, samples: int = 10_000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the median of values [N]."""
    drawn = np.random.default_rng(seed).choice(values, (samples, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)
