from itertools import permutations, product

import numpy as np
import pytest
import torch

from agents.config import Decoding
from agents.heads.decoding import decode, draw, fill
from tests.agents.heads.enumerated import FORK, PILLARS, ROOM, ExactDenoiser, found_by_passes, shortest_plans

ONE_PASS = Decoding(kind="passes", passes=1)
SQUARE = ("S...", "....", "...G")
"""10 ways of 5 steps."""


def _levels(N, K, H, seed=0):
    return torch.rand(N, K, H, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _free(exact, N, K, H):
    return torch.full((N, K, H), exact.mask)


def _found(exact, plans, decoding, turn=None):
    """The probability [P] with which decoding finds each plan."""
    uniform = _levels(1, *plans.shape)
    if turn is not None:
        uniform[..., 1] = turn
    return decode(exact, torch.full_like(plans, exact.mask)[None], decoding, uniform, plans[None]).log_prob[0].exp()


def _any(num_plans=5, horizon=3, num_actions=2, seed=1):
    """A distribution over few short plans that treats no two of them alike."""
    rng = np.random.default_rng(seed)
    everything = torch.tensor(list(product(range(num_actions + 1), repeat=horizon)))
    plans = everything[torch.from_numpy(rng.permutation(len(everything))[:num_plans].copy())]
    return ExactDenoiser(plans, num_actions, torch.from_numpy(rng.random(num_plans))), everything


@pytest.mark.parametrize("rows", [FORK, ROOM])
def test_a_pass_for_each_token_is_the_data_in_any_order_and_from_left_to_right(rows):
    exact = ExactDenoiser(plans := shortest_plans(rows), 4)
    for seed in range(5):
        turn = _levels(1, 1, 8, seed)[..., 1]
        found = _found(exact, plans, Decoding(kind="passes", passes=8), turn)
        torch.testing.assert_close(found, exact.probability, rtol=0, atol=1e-6)
    found = _found(exact, plans, Decoding(kind="left_to_right"))
    torch.testing.assert_close(found, exact.probability, rtol=0, atol=1e-6)
    found = _found(exact, plans, Decoding(kind="passes", passes=20, order="confidence"))
    torch.testing.assert_close(found, exact.probability, rtol=0, atol=1e-6)


def test_a_pass_for_each_token_is_the_data_in_every_order():
    exact, everything = _any()
    expected = torch.zeros(len(everything), dtype=torch.float64)
    for plan, probability in zip(exact.plans, exact.probability, strict=True):
        expected[(everything == plan).all(-1)] = probability
    for order in permutations(range(3)):
        found = _found(exact, everything, Decoding(kind="passes", passes=3), torch.tensor(order, dtype=torch.float64))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [FORK, ROOM, PILLARS])
def test_one_pass_is_the_product_of_the_marginals(rows):
    exact = ExactDenoiser(plans := shortest_plans(rows), 4)
    marginals = torch.stack([(plans == token).double().mean(0) for token in range(5)])
    expected = marginals[plans, torch.arange(plans.shape[1])].prod(-1)
    torch.testing.assert_close(_found(exact, plans, ONE_PASS), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("passes", [2, 3])
def test_a_few_passes_are_the_mean_over_all_orders(passes):
    exact = ExactDenoiser(plans := shortest_plans(SQUARE), 4)
    orders = torch.tensor(list(permutations(range(5))), dtype=torch.float64)
    shape = (len(orders), *plans.shape)
    uniform = torch.stack([torch.zeros(shape, dtype=torch.float64), orders[:, None].expand(shape)], -1)
    decoding = Decoding(kind="passes", passes=passes)
    found = decode(exact, _free(exact, *shape), decoding, uniform, plans.expand(shape)).log_prob.exp().mean(0)
    np.testing.assert_allclose(found, found_by_passes(plans, exact.probability, passes), atol=1e-9)


@pytest.mark.parametrize(
    "decoding",
    [
        ONE_PASS,
        Decoding(kind="passes", passes=2),
        Decoding(kind="passes", passes=2, order="confidence"),
        Decoding(entropy_bound=0.3),
        Decoding(entropy_bound=0.0),
        Decoding(kind="left_to_right"),
    ],
    ids=lambda d: f"{d.kind}-{d.passes}-{d.order}-{d.entropy_bound}",
)
def test_what_is_drawn_has_the_distribution_that_log_prob_says(decoding):
    """A grid over all levels leaves no sampling noise: only cells that a boundary crosses can be counted wrongly."""
    exact, everything = _any()
    found = _found(exact, everything, decoding, torch.tensor([0.3, 0.9, 0.5], dtype=torch.float64))
    assert found.sum().item() == pytest.approx(1.0)
    side = 24
    grid = (torch.tensor(list(product(range(side), repeat=3)), dtype=torch.float64) + 0.5) / side
    uniform = torch.stack([grid, torch.tensor([0.3, 0.9, 0.5], dtype=torch.float64).expand_as(grid)], -1)
    drawn = decode(exact, _free(exact, 1, len(grid), 3), decoding, uniform[None])
    counts = (drawn.tokens[0][:, None] == everything).all(-1).double().mean(0)
    torch.testing.assert_close(counts, found, rtol=0, atol=0.03)
    again = decode(exact, _free(exact, 1, len(grid), 3), decoding, uniform[None], drawn.tokens)
    torch.testing.assert_close(again.log_prob, drawn.log_prob)


class Told:
    """A denoiser that says the same of every plan, whatever is filled in."""

    def __init__(self, log_probs):
        self.log_probs, self.mask = log_probs, log_probs.shape[-1]

    def __call__(self, tokens, rows, places=None):
        found = self.log_probs.expand(len(tokens), -1, -1)
        return found if places is None else found.gather(1, places[..., None].expand(-1, -1, found.shape[-1]))


def _told(likeliest):
    """Two tokens at each place, the first with the given probabilities."""
    p = torch.tensor(likeliest, dtype=torch.float64)
    return Told(torch.stack([p, 1 - p], -1).log())


def _filled_at_once(denoiser, decoding, tokens, passes=0):
    turn = torch.tensor([[0.4, 0.1, 0.3, 0.2]])
    filling = fill(denoiser, torch.tensor([tokens]), torch.zeros(1, dtype=torch.int64), turn, decoding, passes)
    return filling.places[0][filling.valid[0]].tolist()


def test_an_entropy_bounded_pass_fills_in_the_surest_while_the_sum_without_the_largest_is_within_the_bound():
    # Entropies 0.693, 0.325, 0.056, 0 nats.
    told = _told([0.5, 0.9, 0.99, 1.0])
    for bound, places in ((0.0, [3, 2]), (0.05, [3, 2]), (0.06, [3, 2, 1]), (0.38, [3, 2, 1]), (0.39, [3, 2, 1, 0])):
        assert _filled_at_once(told, Decoding(entropy_bound=bound), [2, 2, 2, 2]) == places
    assert _filled_at_once(told, Decoding(entropy_bound=0.0), [2, 2, 0, 1]) == [1], (
        "at least one, of those that are free"
    )


def test_passes_share_the_free_places_evenly_in_the_order_asked_for():
    told = _told([0.5, 0.9, 0.01, 0.8])
    three, sure = Decoding(kind="passes", passes=3), Decoding(kind="passes", passes=3, order="confidence")
    assert _filled_at_once(told, three, [2, 2, 2, 2]) == [1]
    assert _filled_at_once(told, three, [2, 0, 2, 2], passes=1) == [3]
    assert _filled_at_once(told, three, [2, 0, 2, 0], passes=2) == [2, 0]
    assert _filled_at_once(told, sure, [2, 2, 2, 2]) == [2]
    assert _filled_at_once(told, sure, [2, 2, 0, 2], passes=1) == [1]
    assert _filled_at_once(told, sure, [2, 0, 0, 2], passes=2) == [3, 0]
    assert _filled_at_once(told, Decoding(kind="left_to_right"), [0, 2, 2, 2]) == [1]


def test_given_tokens_stay_add_nothing_and_are_conditioned_on():
    exact = ExactDenoiser(plans := shortest_plans(SQUARE), 4)
    given = torch.full((5,), exact.mask)
    given[1] = 2  # south
    fits = plans[plans[:, 1] == 2]
    for decoding in (Decoding(kind="left_to_right"), Decoding(kind="passes", passes=4), Decoding(entropy_bound=0.0)):
        start, uniform = given.expand(1, len(fits), 5), _levels(1, len(fits), 5)
        found = decode(exact, start, decoding, uniform, fits[None]).log_prob.exp()
        torch.testing.assert_close(found, torch.full_like(found, 1 / len(fits)))
        drawn = decode(exact, start, decoding, uniform).tokens
        assert (drawn[..., 1] == 2).all() and (drawn[0][:, None] == fits).all(-1).any(-1).all()
    complete = decode(exact, fits[None], Decoding(), _levels(1, len(fits), 5))
    assert complete.tokens.equal(fits[None]) and not complete.log_prob.any() and not complete.evaluations.any()


def test_complete_plans_cost_no_passes_and_candidates_that_agree_are_asked_about_once():
    exact = ExactDenoiser(shortest_plans(ROOM), 4)
    uniform = _levels(3, 8, 8)
    drawn = decode(exact, _free(exact, 3, 8, 8), Decoding(), uniform)
    first, *later = exact.asked
    assert first == 3 and sum(later) == int(drawn.evaluations.sum()) - 24
    assert later == sorted(later, reverse=True) and len(later) == int(drawn.evaluations.max()) - 1


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(kind="passes"), Decoding(kind="left_to_right")])
def test_a_plan_does_not_depend_on_what_is_planned_beside_it(decoding):
    exact = ExactDenoiser(shortest_plans(ROOM), 4)
    uniform, start = _levels(3, 4, 8), _free(exact, 3, 4, 8)
    start[1, :, :6] = torch.tensor([1, 1, 1, 1, 2, 2])
    together = decode(exact, start, decoding, uniform)
    for game in range(3):
        alone = decode(exact, start[[game]], decoding, uniform[[game]])
        assert alone.tokens.equal(together.tokens[[game]])
        assert alone.evaluations.equal(together.evaluations[[game]])
        torch.testing.assert_close(alone.log_prob, together.log_prob[[game]], rtol=0, atol=1e-12)


def test_a_token_of_probability_zero_is_never_drawn():
    log_probs = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0]).log()
    level = torch.cat([torch.linspace(0, 1 - 2**-24, 1001), torch.tensor([0.5])])
    assert set(draw(log_probs.expand(1002, -1), level).tolist()) == {1, 3}
    assert draw(log_probs, torch.tensor(0.5)).item() == 3
