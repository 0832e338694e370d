"""Playing: a plain class that knows neither Ray nor where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.policy import TorchPolicy
from envs.captions import CaptionTracker
from envs.data import EpisodeResult, FinalObs, GamesStep, Rollout
from envs.protocols import Games, PolicyStep, State
from envs.timing import PhaseTimer, Span


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerRollout:
    """A worker's rollout, the episodes that ended in it, and where its time went."""

    rollout: Rollout
    episodes: list[EpisodeResult]
    worker: int
    """The worker's stream."""
    seconds: Mapping[str, float]
    """Where the time went: ``games``, ``inference``, ``captions`` and ``record`` (copies and book-keeping)."""
    spans: list[Span]
    """The same, stretch by stretch, while ``RolloutWorker.phases`` keeps them."""


class GeneratorNoise:
    """``envs.protocols.Noise`` of training: one generator for B games."""

    def __init__(self, num_games: int, *seed: int) -> None:
        self._num_games = num_games
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))

    def uniform(self, num: int, games: np.ndarray | None = None) -> np.ndarray:
        """float32 [B, num] in [0, 1), or [N, num] for N games."""
        size = self._num_games if games is None else len(games)
        return self._generator.random((size, num), dtype=np.float32)

    def state_dict(self) -> dict[str, Any]:
        """State of the generator (large integers, JSON-safe)."""
        return dict(self._generator.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._generator.bit_generator.state = state


class RolloutWorker:
    """Plays B games with one policy, T steps at a time.

    Args:
        games: the games; the worker owns and closes them.
        policy: acts; its weights are replaced by ``load``.
        num_steps: T.
        seed: the run's seed.
        stream: which worker this is (and which incarnation of it): makes its noise and ids its own.
    """

    def __init__(self, games: Games, policy: TorchPolicy, num_steps: int, seed: int, stream: int) -> None:
        self.games, self.policy, self.stream = games, policy, stream
        self.phases = PhaseTimer()
        self._num_steps = num_steps
        B = games.num_games
        self._noise = GeneratorNoise(B, seed, stream, 1)
        self._captions = CaptionTracker(B) if games.spec.has_messages else None
        self._obs = games.reset()
        self._recurrent = policy.initial_state(B)
        self._next_episode = B
        self._episode_id = np.arange(B, dtype=np.int64)
        self._step_in_episode = np.zeros(B, np.int32)

    def load(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Act with these weights from the next rollout on."""
        self.policy.load(weights, version)

    def collect(self) -> WorkerRollout:
        """Play T steps."""
        with self.policy.fixed_weights():
            return self._played()

    def _played(self) -> WorkerRollout:
        measure = self.phases.measure
        with measure("record"):
            columns = _Columns(self._num_steps, self.games, self.policy.version)
            recurrent_start = self._recurrent
            episodes: list[EpisodeResult] = []
        for t in range(self._num_steps):
            with measure("record"):
                columns.observe(t, self._obs)
            with measure("inference"):
                acted = self.policy.act(columns.obs_at(t), self._recurrent, self.games.action_mask, self._noise)
            with measure("games"):
                played = self.games.step(acted.actions)
            if self._captions is not None:
                with measure("captions"):
                    assert played.messages is not None, "games that declare messages give them at each step"
                    done = played.terminated | played.truncated
                    columns.write_captions(t, *self._captions.observe(played.messages, done))
            with measure("record"):
                columns.write(t, acted, played, self._ids(), self._step_in_episode)
                self._end_episodes(t, acted.recurrent_state, played, columns)
                episodes.extend(played.finished.values())
                self._obs = played.obs
        with measure("inference"):
            columns.observe(self._num_steps, self._obs)
            last_values = self.policy.evaluate(columns.obs_at(self._num_steps), self._recurrent)
            finals = self._finals(columns, last_values)
        with measure("record"):
            new_captions = {} if self._captions is None else self._captions.take_new()
            rollout = columns.finish(recurrent_start, last_values, finals, self.games.action_mask, new_captions)
        return WorkerRollout(
            rollout=rollout,
            episodes=episodes,
            worker=self.stream,
            seconds=self.phases.take(),
            spans=self.phases.take_spans(),
        )

    def _finals(self, columns: _Columns, last_values: np.ndarray) -> FinalObs:
        """Last observations with their values: all at once, because small batches cost nearly as much."""
        at, obs, memory = columns.finals()
        values = self.policy.evaluate(obs, memory) if len(at) else last_values[:0]
        return FinalObs(at=at, obs=obs, values=values)

    def _ids(self) -> np.ndarray:
        # The stream is in the upper bits: no two workers of a run share an episode id.
        return self._episode_id + (np.int64(self.stream) << 40)

    def _end_episodes(self, t: int, recurrent: np.ndarray | None, played: GamesStep, columns: _Columns) -> None:
        done = played.terminated | played.truncated
        self._step_in_episode += 1
        if done.any():
            ended = np.flatnonzero(done)
            final = {key: np.stack([played.final_obs[int(b)][key] for b in ended]) for key in self._obs}
            memory = None if recurrent is None else recurrent[ended]
            columns.write_finals(t, ended, final, memory)
            self._step_in_episode[ended] = 0
            self._episode_id[ended] = np.arange(self._next_episode, self._next_episode + len(ended))
            self._next_episode += len(ended)
            if recurrent is not None:
                recurrent = np.where(done[:, None], np.float32(0), recurrent)
        self._recurrent = recurrent

    def state_dict(self) -> State:
        """Everything that the next rollout depends on, the weights excepted."""
        return {
            "games": self.games.state_dict(),
            "noise": self._noise.state_dict(),
            "captions": None if self._captions is None else self._captions.state_dict(),
            "recurrent": self._recurrent,
            "next_episode": self._next_episode,
            "episode_id": self._episode_id.copy(),
            "step_in_episode": self._step_in_episode.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``: games are rebuilt by replaying their running episodes."""
        self._obs = self.games.load_state_dict(state["games"])
        self._noise.load_state_dict(state["noise"])
        if self._captions is not None:
            self._captions.load_state_dict(state["captions"])
        self._recurrent = state["recurrent"]
        self._next_episode = int(state["next_episode"])
        self._episode_id = np.array(state["episode_id"], np.int64)
        self._step_in_episode = np.array(state["step_in_episode"], np.int32)

    def close(self) -> None:
        """Close the games."""
        self.games.close()


class _Columns:
    """The arrays of a rollout while it is written, one row a step."""

    def __init__(self, num_steps: int, games: Games, policy_version: int) -> None:
        T, B = num_steps, games.num_games
        self._shape = (T, B)
        self._policy_version = policy_version
        self._obs = {key: np.empty((T + 1, B, *spec.shape), spec.dtype) for key, spec in games.spec.obs.items()}
        self._rows: dict[str, np.ndarray] = {}
        self._head_rows: dict[str, np.ndarray] = {}
        self._feature_rows: dict[str, np.ndarray] = {}
        self._final_at: list[tuple[int, int]] = []
        self._final_obs: list[Mapping[str, np.ndarray]] = []
        self._final_memory: list[np.ndarray] = []

    def observe(self, t: int, obs: Mapping[str, np.ndarray]) -> None:
        for key, rows in self._obs.items():
            rows[t] = obs[key]

    def obs_at(self, t: int) -> dict[str, np.ndarray]:
        return {key: rows[t] for key, rows in self._obs.items()}

    def write(
        self,
        t: int,
        acted: PolicyStep,
        played: GamesStep,
        episode_id: np.ndarray,
        step_in_episode: np.ndarray,
    ) -> None:
        self._put(self._rows, t, actions=acted.actions, values=acted.values, log_prob=acted.log_prob)
        self._put(
            self._rows,
            t,
            env_reward=played.reward,
            terminated=played.terminated,
            truncated=played.truncated,
            end_status=played.end_status,
            episode_id=episode_id,
            step_in_episode=step_in_episode,
        )
        self._put(self._head_rows, t, **(acted.head_record or {}))
        self._put(self._feature_rows, t, **played.features)

    def write_captions(self, t: int, ids: np.ndarray, counts: np.ndarray) -> None:
        self._put(self._rows, t, caption_id=ids, caption_count=counts)

    def write_finals(self, t: int, ended: np.ndarray, obs: Mapping[str, np.ndarray], memory: np.ndarray | None) -> None:
        self._final_at.extend((t, int(b)) for b in ended)
        self._final_obs.append(obs)
        if memory is not None:
            self._final_memory.append(memory)

    def finals(self) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray | None]:
        """Where episodes ended [N, 2], what they showed last, and the memory with which it is read [N, H]."""
        obs = {
            key: np.concatenate([obs[key] for obs in self._final_obs])
            if self._final_obs
            else np.empty((0, *column.shape[2:]), column.dtype)
            for key, column in self._obs.items()
        }
        memory = np.concatenate(self._final_memory) if self._final_memory else None
        return np.array(self._final_at, np.int64).reshape(-1, 2), obs, memory

    def _put(self, columns: dict[str, np.ndarray], t: int, **rows: np.ndarray | None) -> None:
        for name, row in rows.items():
            if row is None:
                continue
            if name not in columns:
                columns[name] = np.empty((self._shape[0], *row.shape), row.dtype)
            columns[name][t] = row

    def finish(
        self,
        recurrent_start: np.ndarray | None,
        last_values: np.ndarray,
        finals: FinalObs,
        action_mask: np.ndarray | None,
        new_captions: Mapping[int, str],
    ) -> Rollout:
        rows = dict(self._rows)
        if "values" in rows:
            rows["values"] = np.concatenate([rows["values"], last_values[None]])
        mask = None
        if action_mask is not None:
            mask = np.broadcast_to(action_mask, (self._shape[0], *action_mask.shape))
        return Rollout(
            obs=self._obs,
            final_obs=finals,
            head_record=self._head_rows,
            features=self._feature_rows,
            recurrent_state=recurrent_start,
            action_mask=mask,
            policy_version=np.full(self._shape, self._policy_version, np.int64),
            new_captions=new_captions,
            **rows,
        )
