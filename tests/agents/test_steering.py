from itertools import product

import pytest
import torch

from agents import steering
from agents.config import Decoding
from agents.heads.decoding import decode
from agents.steering import best_of_n, fk, num_uniforms, resample, svdd, svdd_r
from tests.agents.heads.enumerated import ROOM, ExactDenoiser, shortest_plans

H, SCALE = 4, 2.0
LEFT_TO_RIGHT = Decoding(kind="left_to_right")
RANDOM = Decoding(kind="passes", passes=H)
ENTROPY = Decoding(entropy_bound=0.3)

PLANS = torch.tensor(list(product(range(2), repeat=H)))
"""Sixteen, of two actions."""
EXACT = ExactDenoiser(PLANS, 2, torch.rand(16, generator=torch.Generator().manual_seed(3)) + 0.05)
REWARD = torch.tensor([-0.24, 0.36, 0.48, -0.12], dtype=torch.float64) @ PLANS.double().T - 0.36 * PLANS[:, 0]
TILTED = EXACT.probability * (SCALE * REWARD).exp() / (EXACT.probability * (SCALE * REWARD).exp()).sum()


def _score(tokens, games):
    return REWARD[_number(tokens)]


def _number(tokens):
    """Which of the sixteen plans each is."""
    return (tokens * 2 ** torch.arange(H - 1, -1, -1)).sum(-1)


def _soft_value(tokens, games=None):
    """log E[exp(scale reward)] / scale of the plans that agree with what is filled in."""
    fits = ((tokens[..., None, :] == EXACT.mask) | (tokens[..., None, :] == PLANS)).all(-1) * EXACT.probability
    return ((fits * (SCALE * REWARD).exp()).sum(-1) / fits.sum(-1)).log() / SCALE


def _run(method, K, games, decoding=LEFT_TO_RIGHT, score=_score, seed=0, checkpoints=3, **settings):
    num = num_uniforms(K, H, checkpoints, settings.get("proposals", 1))
    uniform = torch.rand(games, num, generator=torch.Generator().manual_seed(seed))
    start = torch.full((games, K, H), EXACT.mask)
    return method(EXACT, score, start, decoding, uniform, scale=SCALE, checkpoints=checkpoints, **settings)


def _distance(found, expected):
    """Total variation."""
    return 0.5 * (found - expected).abs().sum().item()


def _drawn_by_weight(steered):
    """The distribution [16] of a plan that is drawn by the weights; the mean over games."""
    plans = torch.nn.functional.one_hot(_number(steered.tokens), 16)
    return (steered.weights[..., None] * plans).sum(1).double().mean(0)


def _in_proportion(steered):
    """The same, games averaged in proportion to their normalisers: no bias, however few the particles."""
    plans = torch.nn.functional.one_hot(_number(steered.tokens), 16)
    found = (steered.weights[..., None] * plans).sum(1).double() * steered.log_normaliser.double().exp()[:, None]
    return found.sum(0) / found.sum()


def _fk_distances(decoding):
    pairs = ((4, 2000), (16, 600), (64, 200), (256, 100))
    return [_distance(_drawn_by_weight(_run(fk, K, games, decoding)), TILTED) for K, games in pairs]


@pytest.mark.parametrize("decoding", [LEFT_TO_RIGHT, RANDOM], ids=["left_to_right", "random"])
def test_fk_comes_nearer_to_the_tilted_distribution_with_more_particles(decoding):
    distances = _fk_distances(decoding)
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.05 and distances[-1] < 0.03


def _forgetful(log_weights, level):
    """The fault of public code: weights of particles that are not resampled are dropped."""
    parents, after = resample(log_weights, level)
    return parents, torch.zeros_like(after)


def test_dropping_the_weights_of_particles_that_are_not_resampled_would_be_noticed(monkeypatch):
    monkeypatch.setattr(steering, "resample", _forgetful)
    assert _distance(_drawn_by_weight(_run(fk, 256, 100)), TILTED) > 0.1


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(("method", "settings"), [(fk, {}), (svdd_r, {"proposals": 3})])
def test_normalisers_are_right_on_average_and_weigh_out_what_few_particles_lack(method, settings, partial):
    score = _soft_value if partial else _score
    steered = _run(method, 4, 8000, RANDOM, score, partial=partial, **settings)
    expected = (EXACT.probability * (SCALE * REWARD).exp()).sum().item()
    assert steered.log_normaliser.exp().mean().item() == pytest.approx(expected, rel=0.02)
    assert _distance(_in_proportion(steered), TILTED) < 0.015


def test_fk_aims_at_what_its_decoding_gives_tilted():
    """Two passes do not give the data; tilted is what they do give."""
    two = Decoding(kind="passes", passes=2, order="confidence")
    uniform = torch.zeros(1, 16, H, 2, dtype=torch.float64)
    base = decode(EXACT, torch.full((1, 16, H), EXACT.mask), two, uniform, PLANS[None]).log_prob[0].exp()
    tilted = base * (SCALE * REWARD).exp() / (base * (SCALE * REWARD).exp()).sum()
    assert _distance(tilted, TILTED) > 0.05
    assert _distance(_in_proportion(_run(fk, 4, 8000, two)), tilted) < 0.015


def _svdd_distribution(J):
    """Of ``svdd`` from left to right with exact soft values, [16]: the number of ones among J proposals is binomial."""
    found = torch.ones(1, dtype=torch.float64)
    count = torch.arange(J + 1, dtype=torch.float64)
    for place in range(H):
        prefixes = torch.tensor(list(product(range(2), repeat=place)), dtype=torch.int64).view(2**place, place)
        state = torch.full((2**place, H), EXACT.mask)
        state[:, :place] = prefixes
        p = EXACT(state, torch.zeros(1))[:, place, 1].exp()[:, None]
        after = state[:, None].repeat(1, 2, 1)
        after[:, :, place] = torch.arange(2)
        zero, one = (SCALE * _soft_value(after)).exp()[..., None].unbind(1)
        ones = torch.distributions.Binomial(J, p).log_prob(count).exp()
        chosen = (ones * count * one / (count * one + (J - count) * zero)).sum(-1)
        found = (found[:, None] * torch.stack([1 - chosen, chosen], -1)).flatten()
    return found


def test_svdd_with_exact_soft_values_has_the_computed_distribution_which_comes_near_with_more_proposals():
    distances = [_distance(_svdd_distribution(J), TILTED) for J in (1, 4, 16, 64, 256)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.2 and distances[-1] < 0.03
    for J in (2, 8):
        steered = _run(svdd, 4, 5000, score=_soft_value, checkpoints=H, proposals=J, partial=True)
        assert _distance(_drawn_by_weight(steered), _svdd_distribution(J)) < 0.015


def test_svdd_r_comes_near_where_svdd_with_few_proposals_does_not():
    few = {"proposals": 4, "decoding": RANDOM, "checkpoints": H}
    assert _distance(_drawn_by_weight(_run(svdd, 16, 1000, **few)), TILTED) > 0.05
    assert _distance(_drawn_by_weight(_run(svdd_r, 16, 1000, **few)), TILTED) < 0.03


def _uniform_like(levels, turns, checkpoints, J):
    """Numbers for steering in which every proposal has the levels [N, K, H] that decoding would have."""
    N, K, H = levels.shape
    proposals = levels[:, None, :, None].expand(N, checkpoints, K, J, H)
    others = torch.rand(N, checkpoints * (K + 1), generator=torch.Generator().manual_seed(7))
    return torch.cat([levels.flatten(1), turns.flatten(1), proposals.flatten(1), others], 1)


@pytest.mark.parametrize("decoding", [LEFT_TO_RIGHT, RANDOM, ENTROPY], ids=lambda d: d.kind)
@pytest.mark.parametrize(("method", "J"), [(fk, 1), (svdd, 1), (svdd, 3), (svdd_r, 3)])
def test_a_constant_score_and_a_single_particle_are_the_decoding_without_a_score(method, J, decoding):
    uniform = torch.rand(30, 8, H, 2, generator=torch.Generator().manual_seed(0))
    start = torch.full((30, 8, H), EXACT.mask)
    numbers = _uniform_like(*uniform.unbind(-1), 3, J)
    settings = {"scale": SCALE} | ({} if method is fk else {"proposals": J})
    base = decode(EXACT, start, decoding, uniform)
    steered = method(
        EXACT, lambda tokens, games: torch.full(tokens.shape[:2], 0.7), start, decoding, numbers, **settings
    )
    assert steered.tokens.equal(base.tokens) and steered.evaluations.equal(base.evaluations)
    torch.testing.assert_close(steered.weights, torch.full((30, 8), 1 / 8))
    single = [x.flatten(0, 1)[:, None] for x in (*uniform.unbind(-1), start)]
    alone = method(EXACT, _score, single[2], decoding, _uniform_like(*single[:2], 3, J), **settings)
    assert alone.tokens.flatten(0, 1).equal(base.tokens.flatten(0, 1)) and (alone.weights == 1).all()


@pytest.mark.parametrize("J", [1, 4])
def test_a_constant_score_prefers_no_proposal(J):
    steered = _run(svdd_r, 4, 5000, RANDOM, lambda tokens, games: torch.zeros(tokens.shape[:2]), proposals=J)
    assert _distance(_drawn_by_weight(steered), EXACT.probability) < 0.015


def test_resampling_is_systematic_and_happens_only_where_weights_are_unequal():
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.6, 0.4, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    parents, after = resample((8 * weights).log(), torch.tensor([0.9, 0.5, 0.9, 0.0]))
    assert parents.tolist() == [[0, 1, 2, 3], [0, 0, 1, 1], [0, 1, 2, 3], [3, 3, 3, 3]]
    torch.testing.assert_close(after.exp(), torch.tensor([[2.0] * 4, [2.0] * 4, [4.0, 4.0, 0.0, 0.0], [2.0] * 4]))


class Watched:
    """A score that keeps what it was asked."""

    def __init__(self):
        self.games, self.shapes = [], []

    def __call__(self, tokens, games):
        self.games += games.tolist()
        self.shapes.append(tuple(tokens.shape))
        assert (tokens < EXACT.mask).all()
        return _score(tokens, games)


@pytest.mark.parametrize("decoding", [LEFT_TO_RIGHT, Decoding(kind="passes", passes=2), ENTROPY])
def test_plans_are_scored_complete_and_as_often_as_asked(decoding):
    score = Watched()
    steered = _run(svdd_r, 5, 7, decoding, score, checkpoints=2, proposals=3)
    torch.testing.assert_close(steered.scores.double(), REWARD[_number(steered.tokens)], rtol=0, atol=1e-6)
    assert steered.chosen.tolist() == steered.scores.argmax(-1).tolist()
    counts = [score.games.count(game) for game in range(7)]
    assert set(counts) <= {1, 2} and max(counts) == 2
    assert all(shape[1:] == (15, H) for shape in score.shapes)


@pytest.mark.parametrize("decoding", [LEFT_TO_RIGHT, Decoding(kind="passes"), Decoding()])
def test_a_game_does_not_depend_on_what_is_steered_beside_it(decoding):
    exact = ExactDenoiser(shortest_plans(ROOM), 4)
    start = torch.full((3, 6, 8), exact.mask)
    start[1, :, :6] = torch.tensor([1, 1, 1, 1, 2, 2])
    uniform = torch.rand(3, num_uniforms(6, 8, 3, 2), generator=torch.Generator().manual_seed(0))

    def score(tokens, games):
        return (tokens * torch.arange(8)).sum(-1) / 50 * (1 + torch.tensor([0, 1, 2])[games])[:, None]

    def steer(games):
        def asked(tokens, rows):
            return score(tokens, torch.tensor(games)[rows])

        return svdd_r(exact, asked, start[games], decoding, uniform[games], scale=5.0, proposals=2)

    together = steer([0, 1, 2])
    assert (together.tokens[1, :, :6] == start[1, :, :6]).all() and (together.tokens < 4).all()
    for game in range(3):
        alone = steer([game])
        for name in ("tokens", "scores", "log_prob", "weights", "evaluations"):
            torch.testing.assert_close(getattr(alone, name), getattr(together, name)[[game]])


def test_log_prob_is_that_of_the_plan_without_a_score():
    steered = _run(fk, 16, 5)
    expected = EXACT.probability[_number(steered.tokens)].log().float()
    torch.testing.assert_close(steered.log_prob, expected)


def test_the_best_of_finished_plans():
    uniform = torch.rand(3, 5, H, 2, generator=torch.Generator().manual_seed(0))
    sample = decode(EXACT, torch.full((3, 5, H), EXACT.mask), RANDOM, uniform)
    best = best_of_n(sample, _score)
    rewards = REWARD[_number(sample.tokens)]
    assert best.chosen.tolist() == rewards.argmax(-1).tolist() and best.tokens.equal(sample.tokens)
    assert best.weights.tolist() == [[pytest.approx(0.2)] * 5] * 3 and best.evaluations.equal(sample.evaluations)


def test_complete_plans_cannot_be_steered():
    with pytest.raises(ValueError, match="plans without a free place cannot be steered"):
        fk(EXACT, _score, PLANS[None], RANDOM, torch.zeros(1, num_uniforms(16, H, 3)), scale=1.0)
