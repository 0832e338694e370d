"""Any reward of ours in place of the environment's, under Stable-Baselines3's algorithms."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvObs, VecEnvStepReturn, VecEnvWrapper

from agents.sb3.vec_env import GamesVecEnv
from envs.captions import CaptionTracker
from envs.data import EndStatus, FinalObs, RewardOutput, RewardPart, Rollout
from envs.protocols import RewardModel

Parts = Mapping[str, RewardPart]
OnStep = Callable[[Rollout, Parts], None]


class Mix(Protocol):
    """Several reward models weighted and added into streams, as a training run does (``rewards.mix.RewardMix``)."""

    @property
    def version(self) -> int:
        """As of a ``RewardModel``."""
        ...

    def initial_state(self, num_games: int) -> Any:
        """As of a ``RewardModel``."""
        ...

    def score(self, rollout: Rollout, state: Any) -> tuple[RewardOutput, Any]:
        """Streams [T, B, S] and the parts in them, and the memory after the rollout."""
        ...


class Scoring:
    """Rewards as the one number a step that SB3 learns from.

    The streams of a mix are added up (SB3 has one value function). The parts of a bare model are weighted
    and added; what is invalid pays nothing.

    Args:
        rewards: a ``RewardModel``, or a mix of several.
        weights: of a bare model's parts; 1 where a part is not named.
    """

    def __init__(self, rewards: RewardModel | Mix, weights: Mapping[str, float] | None = None) -> None:
        self.rewards = rewards
        self._weights = dict(weights or {})

    @property
    def version(self) -> int:
        """The rewards' own."""
        return self.rewards.version

    def initial_state(self, num_games: int) -> Any:
        """The rewards' own."""
        return self.rewards.initial_state(num_games)

    def score(self, rollout: Rollout, state: Any) -> tuple[np.ndarray, Parts, Any]:
        """Rewards float32 [T, B], the parts that made them, and the memory after the rollout."""
        scored, state = self.rewards.score(rollout, state)
        if isinstance(scored, RewardOutput):
            return scored.streams.sum(-1, dtype=np.float32), scored.parts, state
        total = np.zeros(rollout.env_reward.shape, np.float32)
        for name, part in scored.items():
            paid = np.where(part.valid, part.value, np.float32(0))
            total += np.float32(self._weights.get(name, 1.0)) * paid
        return total, scored, state


class RewardVecEnvWrapper(VecEnvWrapper):
    """Pays what a reward model says instead of what the environment pays.

    Each step is scored at once, as a rollout of one step, with the reward's memory of the running episodes
    carried along. ``info["env_reward"]`` keeps the environment's own reward. ``info["episode"]`` keeps the
    environment's own return, so that SB3's ``ep_rew_mean`` stays the true one; ``info["scored_return"]`` is
    the sum of what was paid. Captions come from games with messages (``GamesVecEnv``); over any other
    ``VecEnv`` there are none, and a plain array is the observation key ``vector``.

    Args:
        venv: any SB3 vector environment.
        rewards: a ``RewardModel``, or a mix of several.
        weights: of a bare model's parts; 1 where a part is not named.
        on_step: called with each rollout of one step and its parts (new captions for a labeller, steps for a
            reward that learns).

    Attributes:
        scoring: the reward as one number a step.
        last: the step that was scored last.
        last_version: the reward's version that scored it.
        num_invalid: steps for which a part had no value, by part; they paid nothing.
        num_scored: steps scored.
    """

    def __init__(
        self,
        venv: VecEnv,
        rewards: RewardModel | Mix,
        *,
        weights: Mapping[str, float] | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        super().__init__(venv)
        B = venv.num_envs
        self.scoring = Scoring(rewards, weights)
        self.last: Rollout | None = None
        self.last_version = rewards.version
        self.num_invalid: Counter[str] = Counter()
        self.num_scored = 0
        self._on_step = on_step
        games = venv.unwrapped
        self._games = games if isinstance(games, GamesVecEnv) else None
        self._has_messages = self._games is not None and self._games.games.spec.has_messages
        self._actions = np.zeros(0)
        self._obs: Mapping[str, np.ndarray] = {}
        self._captions: CaptionTracker | None = None
        self._memory: Any = None
        self._episode_id = np.zeros(B, np.int64)
        self._next_episode = 0
        self._step_in_episode = np.zeros(B, np.int32)
        self._returns, self._scored_returns = np.zeros((2, B))
        self._started_s = time.monotonic()

    def reset(self) -> VecEnvObs:
        """Begin an episode in every environment, with a fresh memory."""
        obs = self.venv.reset()
        B = self.num_envs
        self._obs = keyed(obs)
        self._captions = CaptionTracker(B) if self._has_messages else None
        self._memory = self.scoring.initial_state(B)
        self._begin(np.arange(B))
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Start the step."""
        self._actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step and score it."""
        obs, env_reward, done, infos = self.venv.step_wait()
        rollout = self._rollout(keyed(obs), env_reward, done, infos)
        self.last_version = self.scoring.version
        scored, parts, self._memory = self.scoring.score(rollout, self._memory)
        self.last, reward = rollout, scored[0].copy()
        self._count(parts)
        self._follow(env_reward, reward, done, infos)
        self._obs = keyed(obs)
        if self._on_step is not None:
            self._on_step(rollout, parts)
        return obs, reward, done, infos

    def _rollout(
        self,
        obs: Mapping[str, np.ndarray],
        env_reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> Rollout:
        """The step just played, as a rollout of one step."""
        truncated = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos]) & done
        ended = np.flatnonzero(done)
        finals = [keyed(infos[b]["terminal_observation"]) for b in ended]
        final_obs = {
            key: np.stack([final[key] for final in finals]) if finals else array[:0] for key, array in obs.items()
        }
        columns: dict[str, Any] = {}
        played = None if self._games is None else self._games.last_step
        if self._captions is not None:
            assert played is not None and played.messages is not None, "games that declare messages give them"
            ids, counts = self._captions.observe(played.messages, done)
            columns = {
                "caption_id": ids[None],
                "caption_count": counts[None],
                "new_captions": self._captions.take_new(),
            }
        if played is not None:
            columns["features"] = {name: array[None].copy() for name, array in played.features.items()}
        end_status = _end_status(done, truncated, infos) if played is None else played.end_status
        return Rollout(
            obs={key: np.stack([self._obs[key], array]) for key, array in obs.items()},
            actions=np.array(self._actions)[None],
            env_reward=np.asarray(env_reward, np.float32)[None].copy(),
            terminated=(done & ~truncated)[None],
            truncated=truncated[None],
            end_status=end_status[None].copy(),
            final_obs=FinalObs(at=np.stack([np.zeros_like(ended), ended], axis=1), obs=final_obs),
            policy_version=np.zeros((1, self.num_envs), np.int64),
            episode_id=self._episode_id[None].copy(),
            step_in_episode=self._step_in_episode[None].copy(),
            **columns,
        )

    def _count(self, parts: Parts) -> None:
        self.num_scored += self.num_envs
        for name, part in parts.items():
            if not part.valid.all():
                self.num_invalid[name] += int((~part.valid).sum())

    def _follow(
        self, env_reward: np.ndarray, reward: np.ndarray, done: np.ndarray, infos: list[dict[str, Any]]
    ) -> None:
        """Count returns and steps of the running episodes, and add them to the infos."""
        self._returns += env_reward
        self._scored_returns += reward
        self._step_in_episode += 1
        for info, own in zip(infos, env_reward.tolist(), strict=True):
            info["env_reward"] = own
        ended = np.flatnonzero(done)
        for b in ended:
            infos[b]["scored_return"] = float(self._scored_returns[b])
            episode = {
                "r": float(self._returns[b]),
                "l": int(self._step_in_episode[b]),
                "t": round(time.monotonic() - self._started_s, 6),
            }
            infos[b].setdefault("episode", episode)
        self._begin(ended)

    def _begin(self, which: np.ndarray) -> None:
        self._episode_id[which] = self._next_episode + np.arange(len(which))
        self._next_episode += len(which)
        self._step_in_episode[which] = 0
        self._returns[which] = self._scored_returns[which] = 0


def keyed(obs: Any) -> Mapping[str, np.ndarray]:
    """An observation as ``{key: array}``; a plain array has the key ``vector``."""
    return obs if isinstance(obs, Mapping) else {"vector": obs}


def _end_status(done: np.ndarray, truncated: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
    """int8 [B]: a success is what ``is_success`` says, any other end that is no time limit is a death."""
    won = np.array([bool(info.get("is_success", False)) for info in infos])
    ended = np.where(won, EndStatus.TASK_SUCCESSFUL, EndStatus.DEATH)
    ended = np.where(truncated, EndStatus.ABORTED, ended)
    return np.where(done, ended, EndStatus.RUNNING).astype(np.int8)
