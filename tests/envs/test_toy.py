import numpy as np
import pytest

from envs.data import EndStatus, EpisodeSeeds
from envs.seeding import ListedSeeds, TrainingSeeds
from envs.toy import BanditGames, CorridorGames, MaskedGames, MemoryGames

LEFT, RIGHT, WAIT, LEAP = range(4)


def training(num_games, seed=0):
    return TrainingSeeds(seed, 0, num_games)


FACTORIES = {
    "corridor": lambda n, seed=0: CorridorGames(n, training(n, seed)),
    "masked": lambda n, seed=0: MaskedGames(n, training(n, seed)),
    "memory": lambda n, seed=0: MemoryGames(n, training(n, seed)),
    "bandit": lambda n, seed=0: BanditGames(n, training(n, seed)),
    "continuous": lambda n, seed=0: BanditGames(n, training(n, seed), continuous=True),
}


def random_actions(games, rng):
    if not games.spec.num_actions:
        return rng.uniform(-1, 1, (games.num_games, 1)).astype(np.float32)
    mask = games.action_mask
    if mask is None:
        mask = np.ones((games.num_games, games.spec.num_actions), bool)
    return np.array([rng.choice(np.flatnonzero(row)) for row in mask])


def play(games, num_steps, rng):
    """What happened, as plain copies."""
    log = []
    for _ in range(num_steps):
        step = games.step(random_actions(games, rng))
        final = {g: obs["vector"].tolist() for g, obs in step.final_obs.items()}
        numbers = step.obs["vector"].tolist(), step.reward.tolist(), step.end_status.tolist()
        log.append((*numbers, step.messages, final, dict(step.finished)))
    return log


def corridor(num_games=1, **options):
    games = CorridorGames(num_games, training(num_games), **options)
    obs = games.reset()
    return games, obs


def test_corridor_step_by_step():
    games, obs = corridor(length=4, limit=10)
    assert games.spec.action_names == ("left", "right", "wait")
    assert games.spec.obs["vector"].shape == (5,)
    np.testing.assert_allclose(obs["vector"], [[1, 0, 0, 0, 0]])
    step = games.step(np.array([LEFT]))
    assert step.messages == [b"You bump into the wall."]
    np.testing.assert_allclose(step.obs["vector"], [[1, 0, 0, 0, 0.1]])
    spoken = []
    for _ in range(2):
        step = games.step(np.array([RIGHT]))
        spoken += step.messages
        assert step.reward.tolist() == [0]
    assert sorted(spoken) == [b"", b"You see here a key."]
    assert games.step(np.array([WAIT])).messages == [b""]
    step = games.step(np.array([RIGHT]))
    assert step.messages == [b"You win!"]
    assert step.reward.tolist() == [1]
    assert step.terminated.tolist() == [True]
    assert step.truncated.tolist() == [False]
    assert step.end_status.tolist() == [EndStatus.TASK_SUCCESSFUL]
    np.testing.assert_allclose(step.final_obs[0]["vector"], [0, 0, 0, 1, 0.5])
    np.testing.assert_allclose(step.obs["vector"], [[1, 0, 0, 0, 0]])
    result = step.finished[0]
    assert (result.task, result.env_return, result.num_steps, result.success) == ("Toy-Corridor", 1, 5, True)
    assert result.seeds == TrainingSeeds(0, 0, 1).next(0)


def test_the_time_limit_truncates():
    games, _ = corridor(2, limit=3, with_messages=False)
    for _ in range(2):
        step = games.step(np.array([WAIT, RIGHT]))
        assert not (step.terminated | step.truncated).any()
    step = games.step(np.array([WAIT, RIGHT]))
    assert step.messages is None
    assert step.truncated.tolist() == [True, True]
    assert step.terminated.tolist() == [False, False]
    assert step.end_status.tolist() == [EndStatus.ABORTED] * 2
    assert not step.finished[0].success
    assert step.final_obs[1]["vector"][3] == 1


def test_reaching_the_goal_on_the_last_step_is_no_truncation():
    games, _ = corridor(length=3, limit=2)
    games.step(np.array([RIGHT]))
    step = games.step(np.array([RIGHT]))
    assert step.terminated.tolist() == [True]
    assert step.truncated.tolist() == [False]


def test_seeds_place_the_key():
    keys = {int(CorridorGames(1, training(1, seed)).reset()["vector"].argmax()) for seed in range(3)}
    assert keys == {0}  # it is not visible, only spoken of
    found = set()
    for seed in range(12):
        games = CorridorGames(1, training(1, seed))
        games.reset()
        steps = [games.step(np.array([RIGHT])).messages[0] for _ in range(5)]
        found.add(steps.index(b"You see here a key."))
    assert found == {0, 1, 2, 3}


def test_no_more_seeds_leaves_a_game_idle():
    games = CorridorGames(2, ListedSeeds([EpisodeSeeds(1, 2, 3)]), length=3)
    games.reset()
    assert games.active.tolist() == [True, False]
    before = games.reset()["vector"].copy()
    assert games.active.tolist() == [False, False]
    step = games.step(np.array([RIGHT, RIGHT]))
    np.testing.assert_array_equal(step.obs["vector"], before)
    assert step.messages == [b"", b""]
    assert not step.finished


def test_masked_games_lack_different_actions():
    games = MaskedGames(5, training(5))
    assert games.spec.tasks[:2] == ("Toy-Masked-no-left", "Toy-Masked-no-right")
    np.testing.assert_array_equal(games.action_mask.sum(1), 3)
    assert games.action_mask[4].tolist() == [False, True, True, True]
    games.reset()
    step = games.step(np.array([LEAP, LEAP, LEAP, LEFT, LEAP]))
    assert step.obs["vector"][:, :-1].argmax(1).tolist() == [2, 2, 2, 0, 2]
    with pytest.raises(ValueError, match="game 3 has no action 'leap'"):
        games.step(np.array([RIGHT, LEFT, LEFT, LEAP, RIGHT]))


def test_the_leap_stops_at_the_end():
    games = MaskedGames(2, training(2), length=4)
    games.reset()
    games.step(np.array([WAIT, LEAP]))
    step = games.step(np.array([WAIT, LEAP]))
    assert step.terminated.tolist() == [False, True]


def test_memory_shows_the_cue_once_and_asks_later():
    games = MemoryGames(6, training(6), delay=2)
    cue = games.reset()["vector"][:, :2].argmax(1)
    assert set(cue.tolist()) == {0, 1}
    for due in (0, 1):
        step = games.step(1 - cue)
        np.testing.assert_array_equal(step.obs["vector"], np.tile([0, 0, due], (6, 1)))
        assert not step.terminated.any()
    step = games.step(np.where(np.arange(6) < 3, cue, 1 - cue))
    assert step.reward.tolist() == [1, 1, 1, 0, 0, 0]
    assert step.end_status.tolist() == [2, 2, 2, 1, 1, 1]
    assert step.terminated.all()
    assert not step.truncated.any()


def test_bandit_pays_for_the_sign():
    games = BanditGames(8, training(8))
    context = games.reset()["vector"][:, 0].copy()
    step = games.step((context > 0).astype(int))
    assert step.reward.tolist() == [1] * 8
    assert all(result.success and result.num_steps == 1 for result in step.finished.values())


def test_continuous_bandit():
    games = BanditGames(4, training(4), continuous=True)
    context = games.reset()["vector"].copy()
    assert games.spec.num_actions == 0
    step = games.step(context * 0)
    np.testing.assert_allclose(step.reward, 1 - context[:, 0] ** 2, rtol=1e-5)


@pytest.mark.parametrize("name", FACTORIES)
def test_same_seeds_same_play(name):
    logs = []
    for _ in range(2):
        games = FACTORIES[name](5)
        games.reset()
        logs.append(play(games, 60, np.random.default_rng(1)))
    assert logs[0] == logs[1]
    assert any(entry[-1] for entry in logs[0])


@pytest.mark.parametrize("name", FACTORIES)
def test_state_continues_exactly(name):
    games = FACTORIES[name](5)
    games.reset()
    play(games, 37, np.random.default_rng(1))
    state = games.state_dict()
    ahead = play(games, 40, np.random.default_rng(2))
    same = FACTORIES[name](5)
    same.reset()
    same.load_state_dict(state)
    assert play(same, 40, np.random.default_rng(2)) == ahead


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least 3"):
        CorridorGames(1, training(1), length=2)
    games, _ = corridor(2)
    with pytest.raises(ValueError, match="expected \\(2,\\)"):
        games.step(np.array([0]))
