"""How far a probability can be believed: temperature scaling, and errors of probabilities.

All functions take weights, so that classes may count alike however rare one of them is: of hard labels
:func:`class_weights`, of soft ones too what :func:`balanced` gives.
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


def cross_fitted_temperatures(
    logits: np.ndarray, targets: np.ndarray, weights: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """For each logit the temperature that fits the labels of the other folds, so that none is judged by its own.

    Args:
        logits: float [N], N at least 1.
        targets: float [N] in [0, 1].
        weights: float [N].
        folds: int [N]; where all are of one fold, that fold is fitted on itself.

    Returns:
        float64 [N], the same throughout a fold; 1 where the other folds' targets all lie on one side of 1/2, which
        says nothing of how sure to be.
    """
    found = np.ones(len(logits))
    for fold in np.unique(folds):
        own = folds == fold
        others = own if own.all() else ~own
        above = targets[others] > 0.5
        if 0 < above.sum() < len(above):
            found[own] = fit_temperature(logits[others], targets[others], weights[others])
    return found


def expected_calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None, bins: int = 10
) -> float:
    """Weighted mean over equal bins of probability of |mean probability - mean target| (Guo et al. 2017, eq. 3).

    Of targets and weights from :func:`balanced` it is the balanced error: a soft label t counts as t positives and
    1 - t negatives of that probability, and all positives weigh as much as all negatives.

    Args:
        probabilities: float [N] in [0, 1], N at least 1.
        targets: float [N] in [0, 1].
        weights: float [N]; none = all alike.
        bins: number of bins.
    """
    weights = np.ones(len(targets)) if weights is None else weights
    at = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(at, weights * (probabilities - targets), minlength=bins)
    return float(np.abs(gaps).sum() / weights.sum())


def class_weights(targets: np.ndarray, positive: float, negative: float) -> np.ndarray:
    """Weight of each soft target: between that of a negative (0) and that of a positive (1)."""
    return negative + targets * (positive - negative)


def balanced(targets: np.ndarray, positive: float, negative: float) -> tuple[np.ndarray, np.ndarray]:
    """Soft targets as they would be, and what they weigh, if positives and negatives occurred in other shares.

    A soft target t stands for t positives and 1 - t negatives, and each half of the cross-entropy has its weight:
    ``-t positive log p - (1 - t) negative log(1 - p)``. That is ``w`` times the cross-entropy of p with ``t'``, where
    ``w = t positive + (1 - t) negative`` and ``t' = t positive / w``; a weight alone would leave the best p at t.

    Args:
        targets: float [N] in [0, 1].
        positive: weight of a positive, above 0.
        negative: weight of a negative, above 0.

    Returns:
        ``t'`` and ``w``, float [N] each; a hard target is its own ``t'``.
    """
    weights = class_weights(targets, positive, negative)
    # Written so that 0 and 1 stay exactly 0 and 1.
    return 1 - (1 - targets) * negative / weights, weights


def balanced_accuracy(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Mean of the shares that are right among positives and among negatives; of one class where there is one.

    Args:
        predicted: bool [N].
        actual: bool [N], N at least 1.
    """
    right = predicted == actual
    return float(np.mean([right[actual == side].mean() for side in (False, True) if (actual == side).any()]))
