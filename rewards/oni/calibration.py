"""How far a probability can be believed: temperature scaling, and errors of probabilities.

All functions take weights, so that classes may count alike however rare one of them is.
"""

from __future__ import annotations

import numpy as np


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits))


def log_loss(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean cross-entropy in nats of soft targets in [0, 1].

    Args:
        logits: float [N], N at least 1.
        targets: float [N].
        weights: float [N]; none = all alike.
    """
    losses = np.logaddexp(0, logits) - targets * logits
    return float(np.average(losses, weights=weights))


def fit_temperature(
    logits: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray | None = None,
    bounds: tuple[float, float] = (0.05, 20.0),
) -> float:
    """The T for which the log loss of ``logits / T`` is least, within bounds.

    Guo et al. 2017, "On calibration of modern neural networks" (arXiv 1706.04599). The loss is convex in
    1 / T; its derivative is bisected.
    """
    weights = np.ones(len(logits)) if weights is None else weights

    def slope(inverse: float) -> float:
        return float((weights * logits * (sigmoid(logits * inverse) - targets)).sum())

    low, high = 1 / bounds[1], 1 / bounds[0]
    if slope(low) >= 0:
        return bounds[1]
    if slope(high) <= 0:
        return bounds[0]
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 2 / (low + high)


def expected_calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None, bins: int = 10
) -> float:
    """Weighted mean over equal bins of probability of |mean probability - mean target| (Guo et al. 2017, eq. 3)."""
    weights = np.ones(len(targets)) if weights is None else weights
    at = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(at, weights * (probabilities - targets), minlength=bins)
    return float(np.abs(gaps).sum() / weights.sum())


def class_weights(targets: np.ndarray, positive: float, negative: float) -> np.ndarray:
    """Weight of each soft target: between that of a negative (0) and that of a positive (1)."""
    return negative + targets * (positive - negative)


def balanced_accuracy(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Mean of the shares that are right among positives and among negatives; of one class where there is one.

    Args:
        predicted: bool [N].
        actual: bool [N], N at least 1.
    """
    right = predicted == actual
    return float(np.mean([right[actual == side].mean() for side in (False, True) if (actual == side).any()]))
