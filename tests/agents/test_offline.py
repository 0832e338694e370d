import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.config import (
    AutoregressiveConfig,
    CriticConfig,
    EncoderConfig,
    FactorisedConfig,
    MaskedConfig,
    OfflineConfig,
    OneStepConfig,
)
from agents.critic import expectile_weight
from agents.offline import LoggedPlay, OfflineLearner, PlanningModel, WindowSampler, returns_to_go
from agents.policy import weights_of

MOVES = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])
SIDE = 5


def logged(paths, actions, reward=None, terminated=None):
    """Play of a hero whose squares are listed: one more of them than actions, in each episode."""
    length = np.array([len(a) for a in actions])
    steps = int(length.sum())

    def blstats(squares):
        rows = np.zeros((len(squares), 27), np.int64)
        rows[:, :2] = squares
        return rows

    return LoggedPlay(
        obs={"blstats": blstats(np.concatenate([p[:-1] for p in paths]))},
        last_obs={"blstats": blstats(np.stack([p[-1] for p in paths]))},
        tokens=np.concatenate(actions).astype(np.int64),
        reward=np.zeros(steps, np.float32) if reward is None else np.asarray(reward, np.float32),
        valid=np.ones(steps, bool),
        first=np.concatenate([[0], np.cumsum(length)[:-1]]),
        length=length,
        terminated=np.zeros(len(actions), bool) if terminated is None else np.array(terminated),
        env_return=np.zeros(len(actions)),
        num_actions=len(MOVES),
        legal=None,
    )


def random_walks(num_episodes=60, steps=20, seed=0):
    generator = np.random.default_rng(seed)
    actions = generator.integers(0, len(MOVES), (num_episodes, steps))
    paths = np.zeros((num_episodes, steps + 1, 2), np.int64)
    paths[:, 0] = generator.integers(0, SIDE, (num_episodes, 2))
    for t in range(steps):
        paths[:, t + 1] = np.clip(paths[:, t] + MOVES[actions[:, t]], 0, SIDE - 1)
    return logged(list(paths), list(actions))


def straight():
    """Two episodes eastwards: four steps, and two that ended the game."""
    paths = [[(x, 0) for x in range(5)], [(x, 1) for x in range(3)]]
    return logged(
        [np.array(p) for p in paths],
        [np.ones(4, int), np.ones(2, int)],
        reward=[0, 0, 0, 1, 0, 2],
        terminated=[False, True],
    )


def test_returns_to_go_by_hand():
    found = returns_to_go(np.array([1, 2, 4, 8, 16]), np.array([0, 3]), np.array([3, 2]), 0.5)
    assert found.tolist() == [1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4, 8 + 0.5 * 16, 16]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_returns_to_go_equal_the_sum_of_each_step(lengths):
    length = np.array(lengths)
    first = np.concatenate([[0], np.cumsum(length)[:-1]])
    reward = np.random.default_rng(sum(lengths)).normal(size=length.sum())
    found = returns_to_go(reward, first, length, 0.9)
    for start, num in zip(first, length, strict=True):
        for t in range(num):
            expected = sum(0.9**i * reward[start + t + i] for i in range(num - t))
            assert found[start + t] == pytest.approx(expected)


def test_plans_are_over_where_the_episode_is():
    sampler = WindowSampler(straight(), 4, OfflineConfig(), CriticConfig(chunk_steps=2, cut_share=0))
    batch = sampler.at(np.array([0, 2, 5]), np.random.default_rng(0))
    assert batch.plans.tolist() == [[1, 1, 1, 1], [1, 1, 4, 4], [1, 4, 4, 4]]
    assert batch.condition["hero"].tolist() == [[0, 0], [2, 0], [1, 1]]
    assert (batch.condition["goal"] == -1).all()


def test_chunks_by_hand():
    critic = CriticConfig(chunk_steps=2, gamma=0.5, cut_share=0)
    batch = WindowSampler(straight(), 4, OfflineConfig(), critic).at(
        np.array([0, 2, 3, 4, 5]), np.random.default_rng(0)
    )
    chunks = batch.chunks
    assert chunks.chunk.tolist() == [[1, 1], [1, 1], [1, 4], [1, 1], [1, 4]]
    assert chunks.reward.tolist() == [0, 0.5, 1, 1, 2]
    # The first episode was cut: what would have followed counts, after as many steps as were played.
    assert chunks.discount.tolist() == [0.25, 0.25, 0.5, 0, 0]
    assert chunks.next_hero.tolist() == [[2, 0], [4, 0], [4, 0], [2, 1], [2, 1]]
    assert (chunks.weight == 1).all()


def test_chunks_that_are_cut_say_so():
    critic = CriticConfig(chunk_steps=4, gamma=0.5, cut_share=1)
    start = np.zeros(200, np.int64)
    chunks = WindowSampler(straight(), 4, OfflineConfig(), critic).at(start, np.random.default_rng(0)).chunks
    steps = (chunks.chunk != 4).sum(1)
    assert set(steps.tolist()) == {1, 2, 3, 4}
    assert torch.equal(chunks.discount, 0.5 ** steps.float())
    assert torch.equal(chunks.next_hero[:, 0], steps)


def test_goals_of_hindsight_lie_ahead_and_end_plans():
    config = OfflineConfig(goals="hindsight", goal_steps=2)
    critic = CriticConfig(reward="goal", chunk_steps=2, gamma=0.5, cut_share=0, random_goals=0)
    start = np.zeros(300, np.int64)
    batch = WindowSampler(straight(), 4, config, critic).at(start, np.random.default_rng(0))
    ahead = batch.condition["goal"][:, 0]
    assert set(ahead.tolist()) == {1, 2, 3, 4} and (batch.condition["goal"][:, 1] == 0).all()
    assert torch.equal((batch.plans != 4).sum(1), ahead)
    near = batch.chunks.goal[:, 0] <= 2
    assert (batch.chunks.discount[near] == 0).all() and (batch.chunks.discount[~near] == 0.25).all()
    assert torch.equal(batch.chunks.reward, torch.where(batch.chunks.goal[:, 0] == 1, -1.0, -1.5))


def test_a_goal_where_the_hero_stands_teaches_nothing():
    still = logged([np.zeros((4, 2), np.int64)], [np.zeros(3, int)])
    config = OfflineConfig(goals="hindsight")
    batch = WindowSampler(still, 4, config, CriticConfig(reward="goal")).at(np.array([0]), np.random.default_rng(0))
    assert batch.weight.tolist() == [0] and batch.chunks.weight.tolist() == [0]


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_windows_never_cross_an_end(seed):
    play = random_walks(4, 7)
    sampler = WindowSampler(play, 5, OfflineConfig(goals="hindsight"), CriticConfig(reward="goal"))
    start = np.random.default_rng(seed).integers(0, play.num_steps, 16)
    batch = sampler.at(start, np.random.default_rng(seed))
    for t, plan in zip(start, batch.plans.numpy(), strict=True):
        real = plan[plan != play.num_actions]
        assert len(real) <= 7 - t % 7 and (real == play.tokens[t : t + len(real)]).all()


def test_shuffled_returns_are_other_steps_returns():
    config = OfflineConfig(returns=True)
    bins = [
        WindowSampler(straight(), 4, c, CriticConfig())
        .at(np.arange(6), np.random.default_rng(0))
        .condition["return_bin"]
        for c in (config, config.replace(shuffle_returns=True))
    ]
    assert sorted(bins[0].tolist()) == sorted(bins[1].tolist()) and bins[0].tolist() != bins[1].tolist()


def test_goals_need_squares():
    play = random_walks(2, 3)
    blind = LoggedPlay(**{name: getattr(play, name) for name in LoggedPlay.__slots__} | {"obs": {}, "last_obs": {}})
    with pytest.raises(ValueError, match="no observation 'blstats'"):
        WindowSampler(blind, 4, OfflineConfig(goals="hindsight"), CriticConfig())


def test_the_expectile_of_two_values_by_hand():
    # Of 0 and 1, the 0.75-expectile is 0.75: 0.25 * 0.75 = 0.75 * 0.25.
    values = torch.tensor([0.0, 1.0])
    weight = expectile_weight(values - 0.75, 0.75)
    assert (weight * (values - 0.75)).sum() == 0


SMALL = {"encoder": EncoderConfig(hidden=32, blstats_hidden=16)}
HEADS = {
    "masked": MaskedConfig(horizon=4, width=32, layers=1),
    "autoregressive": AutoregressiveConfig(horizon=4, width=32, layers=1),
    "factorised": FactorisedConfig(horizon=4, width=32, layers=1),
    "one_step": OneStepConfig(width=32, layers=1),
}


def learner_of(play, head, config=None, critic=None, seed=0):
    critic = critic or CriticConfig(hidden=32, chunk_steps=2, batch=32)

    def model():
        torch.manual_seed(seed)
        return PlanningModel(head, critic, SMALL["encoder"], play.obs_spec, play.num_actions)

    config = config or OfflineConfig(batch=32)
    return OfflineLearner(model(), config, critic, play, torch.device("cpu"), seed, acting=model())


@pytest.mark.parametrize("kind", HEADS)
def test_learning_goes_on_bit_for_bit(kind):
    config = OfflineConfig(batch=32, goals="hindsight", weighting="advantage", returns=True)
    unbroken = learner_of(random_walks(), HEADS[kind], config)
    for _ in range(6):
        unbroken.update()
    broken = learner_of(random_walks(), HEADS[kind], config)
    for _ in range(3):
        broken.update()
    state, weights = broken.state_dict(), weights_of(broken.acting)
    resumed = learner_of(random_walks(), HEADS[kind], config)
    resumed.load_state_dict(state, weights)
    for _ in range(3):
        resumed.update()
    for name, expected in weights_of(unbroken.acting).items():
        np.testing.assert_array_equal(weights_of(resumed.acting)[name], expected, err_msg=name)


def test_the_critic_is_the_same_under_every_head():
    critics = []
    for head in HEADS.values():
        learner = learner_of(random_walks(), head)
        for _ in range(3):
            learner.update()
        critics.append(weights_of(learner.model.critic))
    for other in critics[1:]:
        for name, expected in critics[0].items():
            np.testing.assert_array_equal(other[name], expected, err_msg=name)


def test_the_critic_learns_how_far_a_goal_is():
    critic = CriticConfig(reward="goal", hidden=64, chunk_steps=2, target_decay=0.95, batch=256)
    config = OfflineConfig(batch=4, goals="hindsight", goal_steps=6)
    learner = learner_of(random_walks(200, 20), HEADS["one_step"], config, critic)
    for _ in range(250):
        learner.update()
    squares = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE))
    goal = torch.zeros_like(squares)
    obs = {"blstats": torch.nn.functional.pad(squares, (0, 25))}
    with torch.no_grad():
        values = learner.acting.critic.values(learner.acting.critic.states(obs, squares, goal))
    distance = squares.sum(1).float()
    known = distance > 0
    assert np.corrcoef(values[known], distance[known])[0, 1] < -0.8


def test_a_gradient_that_is_not_finite_stops_learning():
    learner = learner_of(random_walks(), HEADS["one_step"])
    with torch.no_grad():
        learner.model.critic.features.weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="update 0"):
        learner.update()
