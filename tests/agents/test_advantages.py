"""Advantages and losses against numbers worked out by hand."""

import math

import pytest
import torch

from agents.advantages import (
    approximate_kl,
    bootstrap_values,
    clipped_surrogate,
    explained_variance,
    gae,
    normalised,
    value_loss,
    vtrace,
)


def _column(*values):
    """[T] to [T, 1, 1]: one game, one stream."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def test_gae_by_hand():
    # gamma 0.5, lambda 0.5, no end:
    # delta_1 = 2 + 0.5 * 4 - 2 = 2;  delta_0 = 1 + 0.5 * 2 - 1 = 1
    # A_1 = 2;  A_0 = 1 + 0.25 * 2 = 1.5
    done = torch.zeros(2, 1, dtype=torch.bool)
    advantage, target = gae(_column(1, 2), _column(1, 2), _column(2, 4), done, torch.tensor([0.5]), 0.5)
    assert advantage.flatten().tolist() == [1.5, 2.0]
    assert target.flatten().tolist() == [2.5, 4.0]


def test_the_trace_is_cut_where_an_episode_ends():
    done = torch.tensor([[True], [False]])
    advantage, _ = gae(_column(1, 2), _column(1, 2), _column(0, 4), done, torch.tensor([0.5]), 0.5)
    # A_0 = 1 + 0 - 1 = 0, whatever follows.
    assert advantage.flatten().tolist() == [0.0, 2.0]


def test_streams_have_their_own_discounts():
    rewards = torch.tensor([[[1.0, 1.0]], [[1.0, 1.0]]])
    zeros, done = torch.zeros(2, 1, 2), torch.tensor([[False], [True]])
    advantage, _ = gae(rewards, zeros, zeros, done, torch.tensor([0.5, 1.0]), 1.0)
    assert advantage[0, 0].tolist() == [1.5, 2.0]


def test_truncation_is_bootstrapped_and_termination_is_not():
    values = torch.arange(1.0, 4.0)[:, None, None].repeat(1, 2, 1)  # V = 1, 2, 3 in both games
    terminated = torch.tensor([[True, False], [False, False]])
    done = torch.tensor([[True, True], [False, False]])
    final_at, final_values = torch.tensor([[0, 0], [0, 1]]), torch.tensor([[7.0], [9.0]])
    following = bootstrap_values(values, terminated, done, final_at, final_values)
    assert following[..., 0].tolist() == [[0.0, 9.0], [3.0, 3.0]]


def test_vtrace_by_hand():
    # gamma 1, lambda 1; ratios 2 (clipped to 1) and 0.5; rewards 1, 1; values 0; the second step ends.
    # v_1 - V_1 = 0.5 * 1 = 0.5;  v_0 - V_0 = 1 * 1 + 1 * 0.5 = 1.5
    # A_1 = 0.5 * 1 = 0.5;        A_0 = 1 * (1 + v_1) = 1.5
    done = torch.tensor([[False], [True]])
    zeros = _column(0, 0)
    advantage, target = vtrace(
        _column(1, 1), zeros, zeros, done, torch.tensor([1.0]), 1.0, torch.tensor([[2.0], [0.5]])
    )
    assert advantage.flatten().tolist() == [1.5, 0.5]
    assert target.flatten().tolist() == [1.5, 0.5]


def test_vtrace_on_policy_is_gae():
    torch.manual_seed(0)
    T, B, S = 7, 3, 2
    rewards, values, following = torch.randn(3, T, B, S).unbind()
    done = torch.rand(T, B) < 0.3
    gamma = torch.tensor([0.9, 0.99])
    a, v = gae(rewards, values, following, done, gamma, 0.8)
    # The textbook recursion A_t = delta_t + gamma lambda A_{t+1}, written out apart from the code under test.
    expected = torch.zeros(T + 1, B, S)
    for t in reversed(range(T)):
        delta = rewards[t] + gamma * following[t] - values[t]
        expected[t] = delta + gamma * 0.8 * expected[t + 1] * (~done[t])[:, None]
    torch.testing.assert_close(a, expected[:-1])
    torch.testing.assert_close(v, expected[:-1] + values)


@pytest.mark.parametrize("ratio", [0.0, 1e6])
def test_vtrace_stays_bounded_under_any_ratio(ratio):
    done = torch.zeros(4, 1, dtype=torch.bool)
    ones = torch.ones(4, 1, 1)
    advantage, _ = vtrace(ones, ones, ones, done, torch.tensor([0.9]), 1.0, torch.full((4, 1), ratio))
    assert advantage.abs().max() < 4


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
