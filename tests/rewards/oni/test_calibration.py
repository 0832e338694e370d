import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.oni.calibration import (
    balanced,
    balanced_accuracy,
    class_weights,
    cross_fitted_temperatures,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    sigmoid,
)
from rewards.oni.learned import weighted_cross_entropy


def test_log_loss_by_hand():
    logits, targets = np.array([0.0, math.log(3)]), np.array([1.0, 1.0])  # p = 1/2, 3/4
    assert log_loss(logits, targets) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert log_loss(logits, targets, np.array([0.0, 2.0])) == pytest.approx(math.log(4 / 3))
    assert log_loss(np.array([0.0]), np.array([0.25])) == pytest.approx(math.log(2))  # soft


def test_temperature_by_hand():
    # Of four answers at logit log 9 (p = 0.9), three are positive: best is p = 3/4, log 3 = log 9 / T, T = 2.
    logits, targets = np.full(4, math.log(9)), np.array([1.0, 1.0, 1.0, 0.0])
    assert fit_temperature(logits, targets) == pytest.approx(2.0, rel=1e-6)
    # The negative counts thrice: p = 1/2 is what fits, and the temperature is as high as it may be.
    assert fit_temperature(logits, targets, np.array([1.0, 1.0, 1.0, 3.0])) == 20.0
    # Never wrong: as sure as it may be.
    assert fit_temperature(np.array([1.0, -1.0]), np.array([1.0, 0.0])) == 0.05


@settings(deadline=None, max_examples=60)
@given(st.floats(0.2, 5.0), st.integers(0, 1000))
def test_temperature_is_recovered_from_probabilities(temperature, seed):
    logits = np.random.default_rng(seed).normal(0, 2, 50)
    assert fit_temperature(logits * temperature, sigmoid(logits)) == pytest.approx(temperature, rel=1e-4)


def test_calibration_error_by_hand():
    # Bin [0.1, 0.2): mean p 0.15, mean target 0.5. Bin [0.9, 1]: mean p 0.95, target 1.
    p = np.array([0.1, 0.19999, 0.95, 1.0, 0.9])
    y = np.array([0.0, 1.0, 1.0, 1.0, 1.0])
    assert expected_calibration_error(p, y) == pytest.approx((2 * 0.35 + 3 * 0.05) / 5, abs=1e-4)
    # With weights 3 and 1 in the lower bin: |0.75 * 0.1 + 0.25 * 0.2 - 0.25|.
    assert expected_calibration_error(p[:2], y[:2], np.array([3.0, 1.0])) == pytest.approx(0.125, abs=1e-4)


def test_balance_by_hand():
    assert class_weights(np.array([0.0, 1.0, 0.5]), 3.0, 1.0).tolist() == [1, 3, 2]
    predicted, actual = np.array([True, True, False, True]), np.array([True, False, False, False])
    assert balanced_accuracy(predicted, actual) == pytest.approx((1 + 1 / 3) / 2)
    assert balanced_accuracy(predicted[:1], actual[:1]) == 1


def test_soft_targets_in_balance_by_hand():
    # One positive in five: a positive weighs 5 / (2 * 1), a negative 5 / (2 * 4). In balance one half is positive.
    targets, weights = balanced(np.array([0.0, 0.2, 1.0]), 2.5, 0.625)
    assert weights.tolist() == pytest.approx([0.625, 1.0, 2.5])
    assert targets[[0, 2]].tolist() == [0, 1] and targets[1] == pytest.approx(0.5)


def test_a_soft_label_means_what_hard_labels_in_that_mix_mean():
    # Twice one positive in five, at two logits; and beside them three in five. Positives weigh 5/4, negatives 5/6.
    mixes = [(0.2, -3.0), (0.6, 4.0)]
    hard = np.concatenate([np.arange(5) < round(5 * share) for share, _ in mixes]).astype(float)
    soft, logits = (np.repeat(column, 5) for column in np.array(mixes).T)
    (hard, hard_weights), (soft, soft_weights) = (balanced(targets, 1.25, 5 / 6) for targets in (hard, soft))
    assert soft[[0, 5]].tolist() == pytest.approx([0.25 / (0.25 + 2 / 3), 0.75 / (0.75 + 1 / 3)])
    for figure in (log_loss, fit_temperature):
        assert figure(logits, soft, soft_weights) == pytest.approx(figure(logits, hard, hard_weights))
    p = sigmoid(logits)
    error = expected_calibration_error(p, soft, soft_weights)
    assert error == pytest.approx(expected_calibration_error(p, hard, hard_weights))
    # By hand: the two mixes weigh 5 * (0.25 + 2/3) and 5 * (0.75 + 1/3), 10 together.
    gaps = (0.25 / (0.25 + 2 / 3) - p[0]) * (0.25 + 2 / 3), (p[5] - 0.75 / (0.75 + 1 / 3)) * (0.75 + 1 / 3)
    assert error == pytest.approx(sum(gaps) / 2)
    slopes = []
    for targets, weights in ((hard, hard_weights), (soft, soft_weights)):
        free = torch.tensor(mixes, dtype=torch.float32)[:, 1].clone().requires_grad_()
        weighted_cross_entropy(free.repeat_interleave(5)[None], targets, weights[None]).backward()
        slopes.append(free.grad)
    torch.testing.assert_close(*slopes)


@settings(deadline=None, max_examples=60)
@given(st.floats(0.01, 50.0), st.floats(0.01, 50.0), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=9))
def test_balance_weighs_the_two_halves_of_the_cross_entropy(positive, negative, labels):
    labels, logits = np.array(labels), np.linspace(-3, 3, len(labels))
    targets, weights = balanced(labels, positive, negative)
    halves = labels * positive * np.logaddexp(0, -logits) + (1 - labels) * negative * np.logaddexp(0, logits)
    assert log_loss(logits, targets, weights) * weights.sum() == pytest.approx(halves.sum())
    assert balanced(np.array([0.0, 1.0]), positive, negative)[0].tolist() == [0, 1]


def test_cross_fitted_temperatures_by_hand():
    # In each fold three of four are positive (p = 3/4): at logit log 9 that is T = 2, at log 27 T = 3.
    logits, targets = np.repeat([math.log(9), math.log(27)], 4), np.tile([1.0, 1.0, 1.0, 0.0], 2)
    folds = np.repeat([0, 2], 4)
    assert cross_fitted_temperatures(logits, targets, np.ones(8), folds).tolist() == pytest.approx(
        [3.0] * 4 + [2.0] * 4
    )
    # What a fold's own labels are has no say in its temperature.
    other = cross_fitted_temperatures(logits, np.array([0.0] * 4 + [1.0, 1.0, 1.0, 0.0]), np.ones(8), folds)
    assert other.tolist() == pytest.approx([3.0] * 4 + [1.0] * 4)  # and negatives alone fit none
    alone = cross_fitted_temperatures(logits[:4], targets[:4], np.ones(4), folds[:4])
    assert alone.tolist() == pytest.approx([2.0] * 4)


def test_sigmoid_does_not_overflow():
    with np.errstate(all="raise"):
        assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0, 0.5, 1]
