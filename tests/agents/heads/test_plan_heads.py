"""What every plan head promises, whatever it is; and what each alone does."""

from itertools import product

import numpy as np
import pytest
import torch

from agents.config import (
    AutoregressiveConfig,
    Decoding,
    FactorisedConfig,
    MaskedConfig,
    OneStepConfig,
)
from agents.heads import PLAN_HEADS
from agents.heads.masked import draw_maskings
from agents.heads.plan_head import PlanCondition

F, A = 6, 3
PAD, MASK = A, A + 1
THREE = Decoding(kind="passes")
DECODINGS = [THREE, Decoding(), Decoding(kind="left_to_right", guidance=2.0, temperature=0.7)]

every_head = pytest.mark.parametrize("kind", PLAN_HEADS, ids=lambda c: c.model_fields["kind"].default)
likely_heads = pytest.mark.parametrize("kind", [MaskedConfig, AutoregressiveConfig])


def _head(kind, horizon=4, seed=0, **settings):
    """With weights that make its opinions strong."""
    torch.manual_seed(seed)
    sizes = {"width": 16, "heads": 2} | settings
    config = kind(**sizes) if kind is OneStepConfig else kind(horizon=horizon, **sizes)
    head = PLAN_HEADS[kind](config, F, A)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


def _condition(N, seed=0, legal=None):
    draw = torch.Generator().manual_seed(seed)
    return PlanCondition(
        features=torch.randn(N, F, generator=draw),
        hero=torch.randint(0, 21, (N, 2), generator=draw),
        goal=torch.randint(0, 21, (N, 2), generator=draw),
        return_bin=torch.randint(0, 32, (N,), generator=draw),
        legal=legal,
    )


def _of_games(condition, games):
    fields = ("features", "hero", "goal", "return_bin", "legal")
    some = {name: getattr(condition, name) for name in fields}
    return PlanCondition(**{name: None if x is None else x[games] for name, x in some.items()})


def _uniform(N, K, head, seed=0):
    return torch.rand(N, K, head.horizon, 2, generator=torch.Generator().manual_seed(seed))


def _all_plans(H):
    """Every plan of H tokens whose first is an action."""
    plans = torch.tensor(list(product(range(A + 1), repeat=H)))
    return plans[plans[:, 0] != PAD]


@every_head
@pytest.mark.parametrize("decoding", DECODINGS, ids=lambda d: d.kind)
def test_log_prob_says_what_sampling_said(kind, decoding):
    head, condition = _head(kind), _condition(5)
    uniform = _uniform(5, 7, head)
    sample = head.sample(condition, 7, decoding, uniform)
    assert sample.tokens.shape == (5, 7, head.horizon) and sample.log_prob.shape == (5, 7)
    assert (sample.evaluations >= 1).all() and (sample.evaluations <= head.horizon).all()
    again = head.log_prob(condition, sample.tokens, decoding, uniform)
    torch.testing.assert_close(again, sample.log_prob, rtol=0, atol=2e-5)
    assert again.requires_grad and not sample.log_prob.requires_grad
    assert len(sample.tokens.flatten(0, 1).unique(dim=0)) > 1


@every_head
@pytest.mark.parametrize("decoding", DECODINGS, ids=lambda d: d.kind)
def test_plans_of_every_game_share_a_probability_of_one(kind, decoding):
    head = _head(kind, horizon=3)
    plans = _all_plans(head.horizon).expand(2, -1, -1)
    uniform = _uniform(2, 1, head).expand(2, plans.shape[1], -1, -1)
    with torch.no_grad():
        total = head.log_prob(_condition(2), plans, decoding, uniform).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(2), rtol=0, atol=1e-5)


@every_head
@pytest.mark.parametrize("decoding", DECODINGS, ids=lambda d: d.kind)
def test_illegal_actions_and_a_pad_at_the_start_are_never_planned(kind, decoding):
    head = _head(kind)
    legal = torch.tensor([[True, False, True], [False, False, True], [True, True, True]])
    condition = _condition(3, legal=legal)
    sample = head.sample(condition, 200, decoding, _uniform(3, 200, head))
    for game in range(3):
        tokens = sample.tokens[game]
        allowed = {*legal[game].nonzero()[:, 0].tolist(), PAD}
        assert set(tokens.unique().tolist()) <= allowed and (tokens[:, 0] != PAD).all()
        assert head.horizon == 1 or (tokens[:, 1:] == PAD).any()
    illegal = torch.full((3, 1, head.horizon), 1)
    found = head.log_prob(condition, illegal, decoding, _uniform(3, 1, head))
    assert found[:, 0].isneginf().tolist() == [True, True, False]


@every_head
@pytest.mark.parametrize("decoding", DECODINGS, ids=lambda d: d.kind)
def test_a_game_does_not_depend_on_what_is_planned_beside_it(kind, decoding):
    head, condition = _head(kind), _condition(4, legal=torch.rand(4, A) < 2)
    uniform = _uniform(4, 40, head)
    together = head.sample(condition, 40, decoding, uniform)
    for games in ([0], [3], [1, 2]):
        alone = head.sample(_of_games(condition, games), 40, decoding, uniform[games])
        assert alone.tokens.equal(together.tokens[games]) and alone.evaluations.equal(together.evaluations[games])
        torch.testing.assert_close(alone.log_prob, together.log_prob[games], rtol=0, atol=1e-5)


@every_head
@pytest.mark.parametrize("decoding", DECODINGS, ids=lambda d: d.kind)
def test_given_tokens_stay_and_add_nothing(kind, decoding):
    head, condition = _head(kind), _condition(3)
    given = torch.full((3, 6, head.horizon), MASK)
    given[:, :3, 0] = 2
    given[:, :, -1] = torch.tensor([0, 1, 2, 0, 1, 2])
    uniform = _uniform(3, 6, head)
    sample = head.sample(condition, 6, decoding, uniform, given)
    kept = given != MASK
    assert sample.tokens[kept].equal(given[kept]) and (sample.tokens != MASK).all()
    again = head.log_prob(condition, sample.tokens, decoding, uniform, given)
    torch.testing.assert_close(again, sample.log_prob, rtol=0, atol=2e-5)
    complete = head.sample(condition, 6, decoding, uniform, sample.tokens)
    assert complete.tokens.equal(sample.tokens) and not complete.log_prob.any()


@every_head
def test_guidance_of_one_and_zero_are_the_condition_and_the_null(kind):
    head, condition = _head(kind), _condition(3)
    plans, uniform = _all_plans(head.horizon)[::5].expand(3, -1, -1), _uniform(3, 1, head)
    null = condition.dropped(torch.ones(3, dtype=torch.bool))

    def found(condition, guidance):
        decoding = Decoding(kind="passes", passes=1, guidance=guidance)
        return head.log_prob(condition, plans, decoding, uniform.expand(3, plans.shape[1], -1, -1)).detach()

    torch.testing.assert_close(found(condition, 0.0), found(null, 1.0))
    assert not torch.allclose(found(condition, 1.0), found(null, 1.0), atol=1e-2)
    near = found(condition, 1.0 + 1e-6)
    torch.testing.assert_close(near, found(condition, 1.0), rtol=0, atol=1e-4)
    torch.testing.assert_close(found(condition, 1e-6), found(null, 1.0), rtol=0, atol=1e-4)
    torch.testing.assert_close(found(null, 3.0), found(null, 1.0), rtol=0, atol=1e-5)


def test_guided_logits_are_null_plus_w_times_the_difference():
    head, condition = _head(OneStepConfig), _condition(2)
    null = condition.dropped(torch.ones(2, dtype=torch.bool))
    empty, rows = torch.full((2, 1), MASK), torch.arange(2)
    plain, dropped = (head.denoiser(c, Decoding())(empty, rows)[:, 0, :A] for c in (condition, null))
    expected = (dropped + 2.5 * (plain - dropped)).div(0.5).log_softmax(-1)
    found = head.denoiser(condition, Decoding(guidance=2.5, temperature=0.5))(empty, rows)[:, 0]
    torch.testing.assert_close(found[:, :A], expected)
    assert found[:, PAD].isneginf().all()


@every_head
def test_conditions_are_embedded_once_a_plan(kind, monkeypatch):
    head, embedded = _head(kind), []
    whole = head.network._condition_keys
    monkeypatch.setattr(head.network, "_condition_keys", lambda c: embedded.append(len(c.hero)) or whole(c))
    head.sample(_condition(3), 6, Decoding(kind="left_to_right"), _uniform(3, 6, head))
    assert embedded == [3]


@every_head
def test_each_part_of_a_condition_matters_and_goal_and_return_can_be_missing(kind):
    head, condition = _head(kind), _condition(2)
    plans, uniform = torch.ones(2, 1, head.horizon, dtype=torch.int64), _uniform(2, 1, head)

    def found(**changes):
        fields = {"features": condition.features, "hero": condition.hero, "goal": condition.goal}
        changed = PlanCondition(**fields | {"return_bin": condition.return_bin} | changes)
        return head.log_prob(changed, plans, THREE, uniform).detach()

    missing = torch.full_like(condition.return_bin, -1)
    others = [
        found(features=condition.features + 1),
        found(hero=(condition.hero + 1) % 21),
        found(hero=missing[:, None].expand(2, 2)),
        found(goal=(condition.goal + 1) % 21),
        found(goal=missing[:, None].expand(2, 2)),
        found(return_bin=(condition.return_bin + 1) % 32),
        found(return_bin=missing),
    ]
    for other in others:
        assert ((other - found()).abs() > 1e-4).all()


@every_head
def test_the_null_is_learned_from_dropped_conditions(kind):
    """Goals say which of two plans is right; without them, both are as likely, and the null comes to say so."""
    losses = _taught(kind, condition_dropout=0.5)
    assert losses["null, at first"] - losses["null"] > 0.1
    assert losses["null"] > losses["goal"] + 0.1


@every_head
def test_without_dropping_the_null_is_not_learned(kind):
    losses = _taught(kind, condition_dropout=0.0)
    assert losses["goal"] < 0.1 and losses["null"] > losses["goal"] + 0.3


def _taught(kind, **settings):
    """Mean losses of a head that is taught plan 0 0 0 0 for one goal and 1 1 1 1 for another."""
    torch.manual_seed(0)
    head = PLAN_HEADS[kind](
        kind(width=16, heads=2, **({} if kind is OneStepConfig else {"horizon": 4}), **settings), F, A
    )
    optimizer, generator = torch.optim.AdamW(head.parameters(), 2e-2), np.random.default_rng(0)
    plans = torch.arange(2)[:, None].repeat(32, head.horizon)
    condition = PlanCondition(
        features=torch.zeros(64, F),
        hero=torch.zeros(64, 2, dtype=torch.int64),
        goal=plans[:, :1].expand(-1, 2) * 5,
        return_bin=torch.full((64,), -1),
    )
    null = condition.dropped(torch.ones(64, dtype=torch.bool))

    def measured(condition):
        with torch.no_grad():
            one_pass = Decoding(kind="passes", passes=1)
            return (
                -head.log_prob(condition, plans[:, None], one_pass, torch.zeros(64, 1, head.horizon, 2)).mean().item()
            )

    losses = {"null, at first": measured(null) / head.horizon}
    for _ in range(40):
        optimizer.zero_grad()
        head.loss(condition, plans, generator).mean().backward()
        optimizer.step()
    return losses | {"null": measured(null) / head.horizon, "goal": measured(condition) / head.horizon}


@every_head
def test_losses_are_one_a_plan_repeat_with_their_generator_and_reach_every_parameter(kind):
    head, condition, plans = _head(kind), _condition(6), _all_plans(_head(kind).horizon)[:6]
    plans = plans[torch.arange(6) % len(plans)]
    first, again, other = (head.loss(condition, plans, np.random.default_rng(seed)) for seed in (0, 0, 3))
    assert first.shape == (6,) and first.equal(again) and not first.equal(other)
    sum(head.loss(condition, plans, np.random.default_rng(seed)).sum() for seed in range(8)).backward()
    missing = [
        name for name, parameter in head.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert not missing, "every parameter learns"


@every_head
def test_the_loss_is_the_likelihood_or_its_any_order_bound(kind):
    """The mean over all masks is the mean of -log p over all orders (a bound of -log of the mean)."""
    head, condition = _head(kind, horizon=3, condition_dropout=0.0), _condition(2)
    plans = torch.tensor([[0, 2, PAD], [2, 1, 0]])[:, : head.horizon]
    uniform = torch.zeros(2, 6, head.horizon, 2)
    if head.horizon == 3:
        uniform[..., 1] = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    each = plans[:, None].expand(2, 6, -1)
    expected = -head.log_prob(condition, each, Decoding(kind="passes", passes=3), uniform).mean(-1) / head.horizon
    num = 1 if kind is not MaskedConfig else 400
    many = PlanCondition(
        features=condition.features.repeat(num, 1),
        hero=condition.hero.repeat(num, 1),
        goal=condition.goal.repeat(num, 1),
        return_bin=condition.return_bin.repeat(num),
    )
    found = head.loss(many, plans.repeat(num, 1), np.random.default_rng(0)).view(num, 2).mean(0)
    torch.testing.assert_close(found, expected, rtol=0.03 if num > 1 else 1e-5, atol=1e-5)


def test_several_maskings_of_each_plan_are_averaged():
    one, four = _head(MaskedConfig, condition_dropout=0.0), _head(MaskedConfig, condition_dropout=0.0, maskings=4)
    plans, condition = _all_plans(4)[[5, 77, 100]], _condition(3)
    repeated = _of_games(condition, torch.arange(3).repeat(4))
    expected = one.loss(repeated, plans.repeat(4, 1), np.random.default_rng(0)).view(4, 3).mean(0)
    torch.testing.assert_close(four.loss(condition, plans, np.random.default_rng(0)), expected, rtol=0, atol=1e-6)


def test_every_number_of_masked_places_is_drawn_as_often():
    masked = draw_maskings(640, 16, np.random.default_rng(0))
    assert np.bincount(masked.sum(-1), minlength=17).tolist() == [0] + [40] * 16
    assert np.abs(masked.mean(0) - 8.5 / 16).max() < 0.06


def test_a_token_depends_on_no_later_one_in_the_autoregressive_head():
    head, condition = _head(AutoregressiveConfig), _condition(1)
    plans = torch.tensor([[[0, 1, 2, 0], [0, 1, 2, 1], [0, 1, 0, 0]]])
    context, rows = head.network.embed(condition), torch.zeros(3, dtype=torch.int64)
    found = head._conditionals(plans[0], context, rows)
    torch.testing.assert_close(found[0, :3], found[1, :3], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[0, :2], found[2, :2], rtol=0, atol=1e-6)
    assert (found[0, 3] - found[2, 3]).abs() > 1e-4


def test_the_autoregressive_likelihood_is_the_sum_of_conditionals_and_its_loss_their_mean():
    head, condition = _head(AutoregressiveConfig, condition_dropout=0.0), _condition(4)
    uniform = _uniform(4, 3, head)
    cached = head.sample(condition, 3, THREE, uniform)
    whole = head.log_prob(condition, cached.tokens, THREE, uniform)
    # One token at a time, each from a plan of which only what stands before it is known.
    rows, total = torch.arange(4).repeat_interleave(3), torch.zeros(12)
    for place in range(4):
        partial = cached.tokens.flatten(0, 1).clone()
        partial[:, place + 1 :] = 0
        total += head._conditionals(partial, head.network.embed(condition), rows)[:, place]
    torch.testing.assert_close(cached.log_prob.flatten(), total, rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.flatten(), total, rtol=0, atol=1e-5)
    losses = head.loss(condition, cached.tokens[:, 0], np.random.default_rng(0))
    torch.testing.assert_close(losses, -whole[:, 0] / 4, rtol=0, atol=1e-5)


def test_the_autoregressive_head_cannot_be_steered_on_the_way():
    with pytest.raises(ValueError, match="the autoregressive head fills in tokens from the first to the last"):
        _head(AutoregressiveConfig).denoiser(_condition(1), Decoding())


def test_the_factorised_head_sees_no_token():
    head, rows = _head(FactorisedConfig), torch.zeros(2, dtype=torch.int64)
    denoiser = head.denoiser(_condition(1), Decoding())
    found = denoiser(torch.tensor([[MASK] * 4, [0, 1, 2, MASK]]), rows)
    assert found[0].equal(found[1])


def _valid_share(kind, decoding):
    """Of plans in a fork: all left (0) or all right (1), each half of the time; and how many of these go left."""
    torch.manual_seed(0)
    head = PLAN_HEADS[kind](kind(horizon=8, width=32, heads=2), F, A)
    optimizer, generator = torch.optim.AdamW(head.parameters(), 1e-2), np.random.default_rng(0)
    condition = _of_games(_condition(1), torch.zeros(64, dtype=torch.int64))
    plans = torch.arange(2)[:, None].repeat(32, 8)
    for _ in range(80):
        optimizer.zero_grad()
        head.loss(condition, plans, generator).mean().backward()
        optimizer.step()
    tokens = head.sample(condition, 8, decoding, _uniform(64, 8, head)).tokens.flatten(0, 1)
    valid = (tokens == tokens[:, :1]).all(-1) & (tokens[:, 0] < 2)
    return valid.float().mean().item(), (tokens[valid][:, 0] == 0).float().mean().item()


@pytest.mark.parametrize(("kind", "decoding"), [(MaskedConfig, Decoding()), (AutoregressiveConfig, Decoding())])
def test_a_fork_of_two_ways_is_learned_as_two_ways(kind, decoding):
    valid, left = _valid_share(kind, decoding)
    assert valid >= 0.95 and 0.4 < left < 0.6


def test_a_factorised_head_mixes_the_two_ways_up():
    assert _valid_share(FactorisedConfig, THREE)[0] < 0.1


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="width 64 is no whole number of 5 heads"):
        MaskedConfig(heads=5)
    with pytest.raises(ValueError, match="horizon"):
        OneStepConfig(horizon=2)
