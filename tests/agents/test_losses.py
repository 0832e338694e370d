import math

import pytest
import torch

from agents.losses import approximate_kl, clipped_surrogate, explained_variance, normalised, value_loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [
        (1.0, 2.0, -2.0),
        (1.5, 2.0, -2.4),  # gain beyond 1 + clip is not paid
        (0.5, 2.0, -1.0),  # a worse policy is seen as it is
        (1.5, -2.0, 3.0),
        (0.5, -2.0, 1.6),  # escaping beyond 1 - clip is not paid
    ],
)
def test_clipped_surrogate(ratio, advantage, loss):
    found = clipped_surrogate(torch.tensor([math.log(ratio)]), torch.zeros(1), torch.tensor([advantage]), 0.2)
    assert found.item() == pytest.approx(loss)


def test_value_loss_is_the_mean_over_streams():
    assert value_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])).item() == 2.5


def test_approximate_kl_is_zero_without_change_and_never_negative():
    old = torch.randn(50)
    assert approximate_kl(old, old).abs().max() == 0
    assert approximate_kl(old + torch.randn(50), old).min() >= 0


def test_explained_variance():
    target = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert explained_variance(target, target)[0] == 1
    assert explained_variance(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), target)[0] == 0
    assert explained_variance(target, target)[1] == 0  # constant targets explain nothing


def test_normalised_by_hand():
    assert normalised(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])
    assert normalised(torch.tensor([4.0])).tolist() == [4.0]
