import numpy as np
import pytest
import torch

from rewards.ensemble import Ensemble
from rewards.heron.inputs import InputScale
from rewards.heron.network import RewardNetwork, preference_loss, segment_sums
from rewards.heron.pairs import held_out, learned_by
from rewards.heron.scorer import Scorer


def network_of(members=3, inputs=4, hidden=8, seed=0):
    return RewardNetwork(members, inputs, hidden, torch.Generator().manual_seed(seed))


def scorer_of(network, inputs=4, **changes):
    members = len(network.parameters()[0])
    fields = {
        "weights": tuple(weights.detach().numpy() for weights in network.parameters()),
        "scale": InputScale(mean=np.zeros(inputs, np.float32), std=np.ones(inputs, np.float32)),
        "output_mean": np.zeros(members),
        "output_std": np.ones(members),
        "aggregate": "mean",
        "version": 1,
    }
    return Scorer(**fields | changes)


def steps_of(number, inputs=4, seed=0):
    return np.random.default_rng(seed).normal(size=(number, inputs)).astype(np.float32)


def loss_of(first, second, targets, margins=None, weights=None, pin=0.0):
    first, second = torch.tensor([first]).float(), torch.tensor([second]).float()
    margins = np.zeros(len(targets)) if margins is None else np.array(margins)
    weights = np.ones(first.shape) if weights is None else np.array([weights])
    return float(preference_loss(first, second, np.array(targets), margins, weights, pin))


def test_sums_over_segments_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 4.0, 8.0], [1.0, 0.0, 0.0, -1.0]])
    assert segment_sums(rewards, np.array([1, 0, 3])).tolist() == [[1, 0, 14], [1, 0, -1]]


def test_sums_pass_gradients_to_each_step():
    rewards = torch.zeros(1, 4, requires_grad=True)
    (segment_sums(rewards, np.array([1, 3])) * torch.tensor([2.0, 5.0])).sum().backward()
    assert rewards.grad.tolist() == [[2, 5, 5, 5]]


def test_loss_by_hand():
    log2 = np.log(2)
    assert loss_of([0.0], [0.0], [1.0]) == pytest.approx(log2)
    # Whichever side is better, a lead of 3 costs log(1 + e^-3), and a tie half of either.
    assert loss_of([4.0], [1.0], [1.0]) == pytest.approx(np.log1p(np.exp(-3)))
    assert loss_of([1.0], [4.0], [0.0]) == pytest.approx(np.log1p(np.exp(-3)))
    assert loss_of([4.0], [1.0], [0.5]) == pytest.approx(np.log1p(np.exp(-3)) + 1.5)
    # A margin of 2 leaves a lead of 1, on either side; a tie has none.
    assert loss_of([4.0], [1.0], [1.0], [2.0]) == pytest.approx(np.log1p(np.exp(-1)))
    assert loss_of([1.0], [4.0], [0.0], [2.0]) == pytest.approx(np.log1p(np.exp(-1)))
    assert loss_of([1.0], [1.0], [0.5], [2.0]) == pytest.approx(log2)
    # The pin: 0.1 (1 + 2)^2.
    assert loss_of([1.0], [2.0], [0.5], pin=0.1) == pytest.approx(loss_of([1.0], [2.0], [0.5]) + 0.9)
    # Weighted mean over pairs.
    both = loss_of([4.0, 0.0], [1.0, 0.0], [1.0, 1.0], weights=[3.0, 1.0])
    assert both == pytest.approx((3 * np.log1p(np.exp(-3)) + log2) / 4)
    assert loss_of([4.0], [1.0], [1.0], weights=[0.0]) == 0


def test_loss_of_long_segments_is_finite():
    assert loss_of([-1e6], [1e6], [1.0]) == pytest.approx(2e6)
    assert loss_of([1e6], [-1e6], [1.0]) == 0


def test_members_differ_and_do_not_know_of_each_other():
    network, inputs = network_of(), torch.from_numpy(steps_of(6))
    state = torch.random.get_rng_state()
    before = network_of()(inputs).detach().numpy()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert before.shape == (3, 6) and len(np.unique(before)) > 12
    ensemble = Ensemble(network, 0.1, 0.0)
    ensemble.step(inputs, lambda rewards: rewards[1].sum())
    after = ensemble.predict(inputs)
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]].astype(np.float64))
    assert (after[1] < before[1]).all()


def test_a_scorer_says_what_the_network_says():
    network, inputs = network_of(), steps_of(50)
    outputs = network(torch.from_numpy(inputs)).detach().numpy()
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 0.5])
    scorer = scorer_of(network, output_mean=mean, output_std=std)
    opinions = (outputs - mean[:, None]) / std[:, None]
    reward = scorer.score(inputs.reshape(5, 10, 4))
    assert reward.shape == (5, 10) and reward.dtype == np.float32
    np.testing.assert_allclose(reward.ravel(), opinions.mean(0), atol=1e-5)
    worst = scorer_of(network, output_mean=mean, output_std=std, aggregate="min").score(inputs)
    np.testing.assert_allclose(worst, opinions.min(0), atol=1e-5)
    assert scorer.score(steps_of(0)).shape == (0,)
    with pytest.raises(ValueError, match="reads 4 inputs a step, got 5"):
        scorer.score(steps_of(2, inputs=5))


def test_a_step_scores_the_same_whoever_stands_beside_it():
    scorer, inputs = scorer_of(network_of(hidden=64, inputs=60), inputs=60), steps_of(4200, inputs=60)
    together = scorer.score(inputs)
    for at in (0, 1, 4095, 4199):
        np.testing.assert_allclose(scorer.score(inputs[at]), together[at], rtol=1e-6, atol=1e-7)


def test_a_scorer_goes_on_from_its_state():
    scorer = scorer_of(network_of(), aggregate="median", version=7)
    copy = Scorer.from_state(scorer.state())
    assert copy.version == 7
    np.testing.assert_array_equal(copy.score(steps_of(9)), scorer.score(steps_of(9)))


def test_input_scale_by_hand():
    narrow = np.array([[0, 1, 7], [2, 1, 7]], np.float32)
    scale = InputScale.unknown(3).widened(narrow)
    assert scale(narrow).tolist() == [[-1, 0, 0], [1, 0, 0]]
    # A column that has not varied is read as 0; one far off counts 5 standard deviations.
    assert scale(np.array([[100, 100, 0]], np.float32)).tolist() == [[5, 0, 0]]
    # A spread of 2 is not twice that of 1 and more; one of 3 is. A column that begins to vary is measured.
    same = scale.widened(np.array([[0, 1, 7], [4, 1, 7]], np.float32))
    assert same.mean.tolist() == [1, 0, 0] and same.std.tolist() == [1, 0, 0]
    wider = scale.widened(np.array([[0, 1, 7], [6, 5, 7]], np.float32))
    assert wider.mean.tolist() == [3, 3, 0] and wider.std.tolist() == [3, 2, 0]


def test_episodes_are_dealt_by_their_number_alone():
    ids = np.arange(20_000)
    held, learned = held_out(ids, 0.1, 0), learned_by(ids, 3, 0)
    assert held.mean() == pytest.approx(0.1, abs=0.01)
    assert learned.mean(1) == pytest.approx([0.8] * 3, abs=0.01)
    assert (learned[0] & learned[1]).mean() == pytest.approx(0.64, abs=0.02)
    assert held[held_out(ids, 0.1, 1)].mean() == pytest.approx(0.1, abs=0.03)
    np.testing.assert_array_equal(held_out(ids[::-1], 0.1, 0), held[::-1])
    assert learned_by(ids, 1, 0).all()
