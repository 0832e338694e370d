import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.oni.calibration import (
    balanced_accuracy,
    class_weights,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    sigmoid,
)


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


def test_sigmoid_does_not_overflow():
    with np.errstate(all="raise"):
        assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0, 0.5, 1]
