"""Rewards and ends of tasks, for all games of a task at once, exactly as NLE and MiniHack compute them.

The common ones are written out here on arrays. Every other task is asked itself: its registered class, built
without a game, gets the observations and answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from envs.data import EndStatus
from envs.game import BL_SCORE, BL_TIME, GAME_OVER, ON_STAIRS_DOWN, Game
from envs.gameless import without_game
from envs.spec import TaskSpec


class Logic(Protocol):
    """Rewards and ends of the G games of one task."""

    def begin(self, game: int) -> None:
        """An episode has begun; its first observation is in the buffers."""
        ...

    def between(self, game: int) -> None:
        """A macro has run and its action's own key is still to come: rewards compare with the state now."""
        ...

    def judge(
        self, actions: np.ndarray, playing: np.ndarray, over: np.ndarray, out_of_time: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The result of a step.

        Args:
            actions: int [G], of the task's own actions.
            playing: bool [G]; what is said of other games is ignored.
            over: bool [G]: NetHack has ended.
            out_of_time: bool [G]: the time limit is reached.

        Returns:
            End status int8 [G] and reward float64 [G].
        """
        ...


class _PenaltyLogic:
    """The penalty for a step in which game time stands still (NLE's ``constant`` mode).

    Args:
        spec: the task.
        games: its G games.
        buffers: ``{NLE key: [G, ...]}``.
    """

    def __init__(self, spec: TaskSpec, games: Sequence[Game], buffers: Mapping[str, np.ndarray]) -> None:
        self.spec, self.games, self.buffers = spec, games, buffers
        self._time = buffers["blstats"][:, BL_TIME]
        self._time_before = np.zeros(len(games), np.int64)
        self._penalty_step = spec.penalty_step

    def begin(self, game: int) -> None:
        self.between(game)

    def between(self, game: int) -> None:
        self._time_before[game] = self._time[game]

    def _penalty(self) -> np.ndarray:
        penalty = (self._time == self._time_before) * self._penalty_step
        self._time_before[:] = self._time
        return penalty


def _common_status(over: np.ndarray, out_of_time: np.ndarray) -> np.ndarray:
    status = np.zeros(len(over), np.int8)
    status[out_of_time] = EndStatus.ABORTED
    status[over] = EndStatus.DEATH
    return status


class StairsLogic(_PenaltyLogic):
    """Success on stairs down: NLE's staircase task and every MiniHack task without a reward manager."""

    def __init__(self, spec: TaskSpec, games: Sequence[Game], buffers: Mapping[str, np.ndarray]) -> None:
        super().__init__(spec, games, buffers)
        self._stairs = buffers["internal"][:, ON_STAIRS_DOWN]

    def judge(
        self, actions: np.ndarray, playing: np.ndarray, over: np.ndarray, out_of_time: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Logic``."""
        reward = self._penalty()
        won = self._stairs != 0
        if not np.count_nonzero(won | out_of_time | over):
            return np.zeros(len(over), np.int8), reward
        won &= ~(out_of_time | over)
        status = _common_status(over, out_of_time)
        status[won] = EndStatus.TASK_SUCCESSFUL
        reward[won] += self.spec.reward_win
        reward[out_of_time | over] += self.spec.reward_lose
        return status, reward


class ScoreLogic(_PenaltyLogic):
    """Change of the in-game score: ``NetHack``, ``NetHackScore`` and ours derived from it."""

    def __init__(self, spec: TaskSpec, games: Sequence[Game], buffers: Mapping[str, np.ndarray]) -> None:
        super().__init__(spec, games, buffers)
        self._score = buffers["blstats"][:, BL_SCORE]
        self._score_before = np.zeros(len(games), np.int64)
        self._game_over = buffers["program_state"][:, GAME_OVER]

    def begin(self, game: int) -> None:
        """See ``Logic``."""
        super().begin(game)
        self._score_before[game] = self._score[game]

    def judge(
        self, actions: np.ndarray, playing: np.ndarray, over: np.ndarray, out_of_time: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Logic``."""
        gain = self._score - self._score_before
        self._score_before[:] = self._score
        ending = over | (self._game_over != 0)
        if np.count_nonzero(ending):  # blstats are zero before and after a game
            for game in np.flatnonzero(ending & playing).tolist():
                if not self.games[game].in_normal_game():
                    gain[game] = 0
        return _common_status(over, out_of_time), gain + self._penalty()


class ChallengeLogic(ScoreLogic):
    """``NetHackChallenge``: also cut when nothing has advanced game time for long.

    NLE counts twice a step, so its limit of 10,000 is reached after 5,000 steps.
    """

    _LIMIT = 10_000

    def __init__(self, spec: TaskSpec, games: Sequence[Game], buffers: Mapping[str, np.ndarray]) -> None:
        super().__init__(spec, games, buffers)
        self._standstill = np.zeros(len(games), np.int64)

    def begin(self, game: int) -> None:
        """See ``Logic``."""
        super().begin(game)
        self._standstill[game] = 0

    def judge(
        self, actions: np.ndarray, playing: np.ndarray, over: np.ndarray, out_of_time: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Logic``."""
        stands = self._time == self._time_before
        self._standstill[:] = np.where(stands, self._standstill + 2, 1)
        return super().judge(actions, playing, over, out_of_time | (self._standstill >= self._LIMIT))


class _OurGame:
    """What an environment that is asked sees as its ``nethack``: the observations of one of our games."""

    def __init__(self, game: Game, observation: tuple[np.ndarray | None, ...]) -> None:
        self._game, self._observation = game, observation
        self.in_normal_game, self.how_done = game.in_normal_game, game.how_done

    def reset(self, *_: Any, **__: Any) -> tuple[np.ndarray | None, ...]:
        """Our game has begun by itself; here is its first observation."""
        return self._observation

    def close(self) -> None:
        """Not its to close."""


class AskedLogic:
    """Asks the registered class itself; one object for each game.

    Args:
        spec: the task.
        games: its G games.
        buffers: ``{NLE key: [G, ...]}``.
    """

    def __init__(self, spec: TaskSpec, games: Sequence[Game], buffers: Mapping[str, np.ndarray]) -> None:
        self.spec, self.games = spec, games
        self._envs = []
        for game in games:
            env = without_game(spec.id)
            env.penalty_step = spec.penalty_step
            env._max_episode_steps = spec.max_episode_steps
            observation = tuple(game.rows.get(key) for key in env._observation_keys)
            env.nethack = _OurGame(game, observation)
            env._get_observation = lambda observation: {}  # what is shown is not its business
            env._previous_action = env._previous_obs = None
            self._envs.append((env, observation))

    @staticmethod
    def nle_keys(spec: TaskSpec) -> tuple[str, ...]:
        """Observation keys that the class may read."""
        manager = getattr(without_game(spec.id), "reward_manager", None)
        looks_at_screen = any(hasattr(event, "loc") for event in getattr(manager, "events", ()))
        return ("chars", "screen_descriptions") if looks_at_screen else ("chars",)

    def begin(self, game: int) -> None:
        """See ``Logic``."""
        env, _ = self._envs[game]
        env._previous_action = env._previous_obs = None
        env.reset()
        self._remember(game)

    def between(self, game: int) -> None:
        """See ``Logic``."""
        self._remember(game)

    def _remember(self, game: int) -> None:
        env, observation = self._envs[game]
        env._previous_obs = tuple(None if row is None else row.copy() for row in observation)

    def judge(
        self, actions: np.ndarray, playing: np.ndarray, over: np.ndarray, out_of_time: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Logic``."""
        status = np.zeros(len(over), np.int8)
        reward = np.zeros(len(over))
        for game in np.flatnonzero(playing).tolist():
            env, observation = self._envs[game]
            action = int(actions[game])
            env._previous_action = action
            env.last_observation = observation
            end = env.StepStatus.ABORTED if out_of_time[game] else env._is_episode_end(observation)
            end = env.StepStatus(bool(over[game]) or end)
            reward[game] = env._reward_fn(env._previous_obs, action, observation, end)
            status[game] = int(end)
            self._remember(game)
        return status, reward
