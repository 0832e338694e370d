import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from envs.data import EndStatus, EpisodeSeeds
from envs.gym_games import GymnasiumGames
from envs.seeding import ListedSeeds, TrainingSeeds


class Counter(gymnasium.Env):
    """Counts up from a seeded start; ends at 5 with success if the last action was the second one."""

    observation_space = spaces.Dict({"count": spaces.Box(0, 10, (1,)), "parity": spaces.Discrete(2)})
    action_space = spaces.Discrete(2, start=3)

    def _obs(self):
        return {"count": np.array([self._count], np.float32), "parity": self._count % 2}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._count = int(self.np_random.integers(3))
        return self._obs(), {}

    def step(self, action):
        assert action in self.action_space
        self._count += 1
        return self._obs(), 1.0, self._count == 5, self._count >= 5, {"is_success": action == 4}


def training(num_games):
    return TrainingSeeds(0, 0, num_games)


def play(games, actions):
    log = []
    for action in actions:
        step = games.step(action)
        obs = {key: array.tolist() for key, array in step.obs.items()}
        final = {g: {k: v.tolist() for k, v in row.items()} for g, row in step.final_obs.items()}
        log.append((obs, step.reward.tolist(), step.end_status.tolist(), final, dict(step.finished)))
    return log


def test_equals_gymnasium():
    games = GymnasiumGames("CartPole-v1", 2, training(2))
    assert games.spec.action_names == ("action_0", "action_1")
    assert games.spec.obs["vector"].shape == (4,)
    env = gymnasium.make("CartPole-v1")
    source = training(2)
    expected, _ = env.reset(seed=source.next(1).core)
    obs = games.reset()
    np.testing.assert_array_equal(obs["vector"][1], expected)
    rng = np.random.default_rng(0)
    num_ends, length, total = 0, 0, 0.0
    for _ in range(120):
        actions = rng.integers(0, 2, 2)
        step = games.step(actions)
        expected, reward, terminated, truncated, _ = env.step(actions[1])
        length, total = length + 1, total + reward
        assert (step.reward[1], step.terminated[1], step.truncated[1]) == (reward, terminated, truncated)
        if terminated:
            np.testing.assert_array_equal(step.final_obs[1]["vector"], expected)
            result = step.finished[1]
            assert (result.task, result.env_return, result.num_steps) == ("CartPole-v1", total, length)
            assert not result.success
            assert result.end_status == EndStatus.DEATH
            num_ends, length, total = num_ends + 1, 0, 0.0
            expected, _ = env.reset(seed=source.next(1).core)
        np.testing.assert_array_equal(step.obs["vector"][1], expected)
    assert num_ends >= 2
    games.close()


def test_continuous_actions_are_clipped_and_time_limits_truncate():
    games = GymnasiumGames("Pendulum-v1", 2, training(2))
    spec = games.spec
    assert (spec.num_actions, spec.action_shape, spec.action_low, spec.action_high) == (0, (1,), [-2], [2])
    games.reset()
    wild = GymnasiumGames("Pendulum-v1", 2, training(2))
    wild.reset()
    for _ in range(199):
        step = games.step(np.full((2, 1), 2.0))
        assert not step.finished
        np.testing.assert_array_equal(wild.step(np.full((2, 1), 99.0)).obs["vector"], step.obs["vector"])
    step = games.step(np.zeros((2, 1)))
    assert step.truncated.tolist() == [True, True]
    assert step.terminated.tolist() == [False, False]
    assert step.end_status.tolist() == [EndStatus.ABORTED] * 2
    assert step.finished[0].num_steps == 200


def test_dict_observations_shifted_actions_and_success():
    games = GymnasiumGames(lambda: Counter(), 2, training(2))
    assert games.spec.tasks == ("Counter", "Counter")
    assert {key: spec.shape for key, spec in games.spec.obs.items()} == {"count": (1,), "parity": (2,)}
    games.reset()
    finished = {}
    for _ in range(5):
        step = games.step(np.array([0, 1]))
        assert not step.truncated.any()  # an end that is both is a termination
        for game, result in step.finished.items():
            finished.setdefault(game, result)
            assert step.final_obs[game]["count"] == [5]
            assert step.final_obs[game]["parity"].tolist() == [0, 1]
    assert (finished[0].success, finished[0].end_status) == (False, EndStatus.DEATH)
    assert (finished[1].success, finished[1].end_status) == (True, EndStatus.TASK_SUCCESSFUL)


def test_factories_with_a_time_limit():
    games = GymnasiumGames([lambda: TimeLimit(Counter(), 2)], 1, training(1))
    games.reset()
    games.step(np.array([0]))
    step = games.step(np.array([0]))
    assert step.truncated.tolist() == [True]


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", Counter])
def test_state_continues_exactly(env):
    rng = np.random.default_rng(0)
    games, other = (GymnasiumGames(env, 3, training(3)) for _ in range(2))
    games.reset()
    other.reset()
    shape = (60, 3, *games.spec.action_shape)
    actions = rng.normal(0, 1, shape) if not games.spec.num_actions else rng.integers(0, 2, shape)
    play(games, actions[:33])
    state = games.state_dict()
    ahead = play(games, actions[33:])
    obs = other.load_state_dict(state)
    assert set(obs) == set(games.spec.obs)
    assert play(other, actions[33:]) == ahead


def test_idle_when_there_are_no_more_seeds():
    games = GymnasiumGames(Counter, 2, ListedSeeds([EpisodeSeeds(1, 0, 0)]))
    games.reset()
    assert games.active.tolist() == [True, False]
    for _ in range(6):
        step = games.step(np.array([0, 0]))
        assert step.reward[1] == 0
    assert not games.active.any()
    last = games.state_dict()
    again = GymnasiumGames(Counter, 2, ListedSeeds([]))
    np.testing.assert_array_equal(again.load_state_dict(last)["count"], step.obs["count"])
    assert not again.active.any()


def test_one_sentence_for_what_cannot_be_built():
    with pytest.raises(ValueError, match=r"^unknown gymnasium id 'Pendulumm-v1'; nearest: Pendulum-v1, .*$"):
        GymnasiumGames("Pendulumm-v1", 1, training(1))
    with pytest.raises(ValueError, match="'Pendulum-v1' and 'CartPole-v1' differ in their spaces"):
        GymnasiumGames(["CartPole-v1", "Pendulum-v1"], 2, training(2))
    with pytest.raises(ValueError, match=r"expected \(2,\)"):
        GymnasiumGames("CartPole-v1", 2, training(2)).step(np.zeros(3, int))

    class Odd(Counter):
        action_space = spaces.MultiDiscrete([2, 2])

    with pytest.raises(ValueError, match=r"'Odd' has actions .* Discrete and Box are supported"):
        GymnasiumGames(Odd, 1, training(1))
    with pytest.raises(ValueError, match="there must be some"):
        GymnasiumGames([], 1, training(1))


@pytest.mark.filterwarnings("ignore:.*out of date")
def test_games_of_several_kinds_side_by_side():
    games = GymnasiumGames(["CartPole-v0", "CartPole-v1"], 3, training(3))
    assert games.spec.tasks == ("CartPole-v0", "CartPole-v1", "CartPole-v0")
