"""Games as a vector environment of Stable-Baselines3."""

import numpy as np
import pytest

from agents.sb3 import (
    GamesVecEnv,
)
from envs.data import EndStatus
from envs.seeding import ListedSeeds, TrainingSeeds, evaluation_seeds
from envs.toy import CorridorGames, MaskedGames


def corridor(num_games=8, seed=1, **settings):
    return CorridorGames(num_games, TrainingSeeds(seed, 0, num_games), **{"limit": 12, **settings})


def test_a_step_says_what_the_games_say_in_sb3_terms():
    venv, games = GamesVecEnv(corridor(2, limit=3)), corridor(2, limit=3)
    np.testing.assert_array_equal(venv.reset()["vector"], games.reset()["vector"])
    wait = np.full(2, 2)
    for _ in range(2):
        obs, reward, done, infos = venv.step(wait)
        games.step(wait)
        assert infos == [{}, {}] and not done.any() and not reward.any()
    obs, reward, done, infos = venv.step(wait)
    played = games.step(wait)
    assert done.all() and all(info["TimeLimit.truncated"] for info in infos)
    np.testing.assert_array_equal(infos[1]["terminal_observation"]["vector"], played.final_obs[1]["vector"])
    np.testing.assert_array_equal(obs["vector"], played.obs["vector"])
    assert infos[0]["episode"]["r"] == 0.0 and infos[0]["episode"]["l"] == 3 and infos[0]["is_success"] is False
    assert infos[0]["result"].end_status == EndStatus.ABORTED


def test_observations_stay_as_they_were_when_the_games_go_on():
    venv = GamesVecEnv(corridor(2))
    first = venv.reset()
    before = first["vector"].copy()
    venv.step(np.zeros(2, int))
    venv.step(np.ones(2, int))
    np.testing.assert_array_equal(first["vector"], before)
    assert venv.observation_space["vector"].shape == before.shape[1:]


def test_games_that_lack_actions_are_refused():
    with pytest.raises(ValueError, match="game 0 lacks action 0"):
        GamesVecEnv(MaskedGames(4, TrainingSeeds(1, 0, 4)))


def test_games_that_run_out_of_episodes_say_so():
    venv = GamesVecEnv(CorridorGames(1, ListedSeeds(evaluation_seeds(1)), limit=1))
    venv.reset()
    venv.step(np.zeros(1, int))
    with pytest.raises(RuntimeError, match="no more episodes"):
        venv.step(np.zeros(1, int))
