"""Replay buffers whose rewards follow the reward model: outdated rewards are computed again.

    model = DQN("MultiInputPolicy", wrapper, replay_buffer_class=DictRewardReplayBuffer, ...)
    model.replay_buffer.attach(wrapper)

The buffer keeps what a reward may look at beside SB3's own arrays (actions as the environment got them,
environment's reward, ends, captions, features). Each stored reward carries the version of the model that
paid it; before a sample leaves the buffer, rewards of another version are recomputed:

* a reward without memory of the episode: for the sampled steps alone;
* a reward with memory (counts, maxima): for everything stored, oldest first, beginning with the memory as
  it was before the oldest kept step. That is exact and expensive: let such versions rise seldom.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from agents.sb3.rewards import RewardVecEnvWrapper, Scoring, keyed
from envs.data import FinalObs, Rollout

_COLUMNS = (
    "actions",
    "env_reward",
    "terminated",
    "truncated",
    "end_status",
    "episode_id",
    "step_in_episode",
    "caption_id",
    "caption_count",
)
_CHUNK_ROWS = 256

if TYPE_CHECKING:
    _Base = ReplayBuffer
else:
    _Base = object


class _Recomputing(_Base):
    """What both buffers add to SB3's; arrays are [rows, environments].

    Attributes:
        num_recomputed: rewards recomputed so far.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("optimize_memory_usage"):
            raise ValueError("optimize_memory_usage drops what rewards are recomputed from; allowed: False")
        super().__init__(*args, **kwargs)
        if self.buffer_size < 2:
            raise ValueError(f"buffer_size must hold at least 2 steps of {self.n_envs} environments")
        self.num_recomputed = 0
        self._source: RewardVecEnvWrapper | None = None
        self._stateful = False
        self._columns: dict[str, np.ndarray] = {}
        self._features: dict[str, np.ndarray] = {}
        self._version = np.full((self.buffer_size, self.n_envs), -1, np.int64)
        self._before_oldest: Any = None

    def attach(self, source: RewardVecEnvWrapper) -> None:
        """Take steps and rewards from this wrapper: the one that the model is trained on.

        To be called after building the model and again after loading the buffer: neither the environment
        nor the reward is saved with it.

        Raises:
            ValueError: the wrapper has another number of environments.
        """
        if source.num_envs != self.n_envs:
            raise ValueError(f"the buffer has {self.n_envs} environments, the wrapper {source.num_envs}")
        self._source = source
        self._stateful = not _is_empty(source.scoring.initial_state(self.n_envs))

    @property
    def _attached(self) -> RewardVecEnvWrapper:
        if self._source is None:
            raise RuntimeError("the replay buffer has no rewards: call model.replay_buffer.attach(wrapper)")
        return self._source

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}

    def add(
        self,
        obs: Any,
        next_obs: Any,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one step of every environment, with what its reward is computed from.

        Raises:
            RuntimeError: no wrapper is attached, or the step is not the one that it scored last.
        """
        source, row = self._attached, self.pos
        last = source.last
        if last is None or not np.array_equal(last.done[0], done):
            raise RuntimeError("the attached wrapper did not play this step: attach the one that the model trains on")
        if self.full and self._stateful:
            self._forget(row)
        super().add(obs, next_obs, action, reward, done, infos)
        self._keep(self._columns, row, {name: getattr(last, name) for name in _COLUMNS})
        self._keep(self._features, row, last.features)
        self._version[row] = source.last_version

    def _keep(self, columns: dict[str, np.ndarray], row: int, found: Mapping[str, np.ndarray | None]) -> None:
        for name, values in found.items():
            if values is None:
                continue
            if name not in columns:
                columns[name] = np.zeros((self.buffer_size, *values.shape[1:]), values.dtype)
            columns[name][row] = values[0]

    def recompute(self) -> None:
        """Bring every stored reward up to the reward's present version."""
        self._refresh(np.arange(self.size()))

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        self._refresh(np.unique(batch_inds))
        return super()._get_samples(batch_inds, env)

    def _refresh(self, rows: np.ndarray) -> None:
        scoring = self._attached.scoring
        version = scoring.version
        at, games = np.nonzero(self._version[rows] != version)
        if not len(at):
            return
        if self._stateful:
            self._score_everything(scoring, version)
            return
        t, b = rows[at][None], games[None]
        reward, _, _ = scoring.score(self._rollout(t, b), scoring.initial_state(len(at)))
        self.rewards[t[0], b[0]] = reward[0]
        self._version[t[0], b[0]] = version
        self.num_recomputed += len(at)

    def _score_everything(self, scoring: Scoring, version: int) -> None:
        order = (np.arange(self.size()) + (self.pos if self.full else 0)) % self.buffer_size
        memory = deepcopy(self._memory_before_oldest(scoring))
        for start in range(0, len(order), _CHUNK_ROWS):
            rows = order[start : start + _CHUNK_ROWS]
            reward, _, memory = scoring.score(self._rows(rows), memory)
            self.rewards[rows] = reward
        self._version[order] = version
        self.num_recomputed += len(order) * self.n_envs

    def _forget(self, row: int) -> None:
        """The oldest step is about to be overwritten: take it into the memory that stands before the rest."""
        scoring = self._attached.scoring
        memory = self._memory_before_oldest(scoring)
        _, _, self._before_oldest = scoring.score(self._rows(np.array([row])), memory)

    def _memory_before_oldest(self, scoring: Scoring) -> Any:
        if self._before_oldest is None:
            return scoring.initial_state(self.n_envs)
        return self._before_oldest

    def _rows(self, rows: np.ndarray) -> Rollout:
        """Consecutive rows as a rollout. An episode that a reset cut short is truncated there."""
        t = np.repeat(rows[:, None], self.n_envs, axis=1)
        b = np.repeat(np.arange(self.n_envs)[None], len(rows), axis=0)
        following = (rows + 1) % self.buffer_size
        cut = self._columns["step_in_episode"][following] == 0
        cut[following == self.pos] = False  # nothing follows the newest step yet
        return self._rollout(t, b, cut)

    def _rollout(self, t: np.ndarray, b: np.ndarray, cut: np.ndarray | None = None) -> Rollout:
        """The steps in rows ``t`` [T, B] of environments ``b`` [T, B]."""
        columns: dict[str, Any] = {name: column[t, b] for name, column in self._columns.items()}
        features = {name: column[t, b] for name, column in self._features.items()}
        if cut is not None:
            columns["truncated"] |= cut & ~columns["terminated"]
        at = np.argwhere(columns["terminated"] | columns["truncated"])
        ended = t[at[:, 0], at[:, 1]], b[at[:, 0], at[:, 1]]
        now, after = keyed(self.observations), keyed(self.next_observations)
        obs = {key: np.concatenate([now[key][t, b], after[key][t[-1], b[-1]][None]]) for key in now}
        return Rollout(
            obs=obs,
            final_obs=FinalObs(at=at, obs={key: array[ended] for key, array in after.items()}),
            policy_version=np.zeros(t.shape, np.int64),
            features=features,
            **columns,
        )


class RewardReplayBuffer(_Recomputing, ReplayBuffer):
    """For observations that are one array (their key is ``vector``)."""


class DictRewardReplayBuffer(_Recomputing, DictReplayBuffer):
    """For observations that are a dict, such as those of ``GamesVecEnv``."""


def _is_empty(state: Any) -> bool:
    """True for nested mappings and sequences that hold nothing."""
    if isinstance(state, Mapping):
        return all(map(_is_empty, state.values()))
    if isinstance(state, list | tuple):
        return all(map(_is_empty, state))
    return state is None
