"""Tiny games for tests: a corridor, a cue to remember, missing actions, a one-step bandit.

All of them are numpy over the whole batch, reproducible from their ``EpisodeSeeds``, and implement
``envs.protocols.Games`` in full. A new one needs two methods: how an episode starts, and what an
action does to every game at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from envs.data import EndStatus, EpisodeResult, EpisodeSeeds, GamesStep
from envs.protocols import GamesSpec, ObsSpec, SeedSource, State

Arrays = dict[str, np.ndarray]


class Outcome(NamedTuple):
    """What one action did to B games."""

    state: Arrays
    """``{name: [B]}`` after it."""
    reward: np.ndarray
    """float [B]."""
    end_status: np.ndarray
    """int [B], values of ``EndStatus``; the time limit is not the game's business."""
    messages: list[bytes] | None = None


class ToyGames(ABC):
    """What all toy games share: episodes, time limit, results, restarts, state.

    Args:
        spec: as a policy sees the games; the one observation key is ``vector``.
        seeds: which episodes are played.
        limit: steps after which an episode is truncated.
    """

    action_mask: np.ndarray | None = None

    def __init__(self, spec: GamesSpec, seeds: SeedSource, limit: int) -> None:
        self.spec, self.num_games = spec, len(spec.tasks)
        self.active = np.ones(self.num_games, bool)
        self._seeds, self._limit = seeds, limit
        self._playing: list[EpisodeSeeds | None] = [None] * self.num_games
        self._state: Arrays = {}
        self._num_steps = np.zeros(self.num_games, np.int64)
        self._return = np.zeros(self.num_games, np.float64)
        self._obs = {"vector": np.zeros((self.num_games, *spec.obs["vector"].shape), np.float32)}

    @abstractmethod
    def _start(self, rng: np.random.Generator) -> dict[str, float]:
        """State of one game at the start of an episode, drawn from its seeds."""

    @abstractmethod
    def _play(self, state: Arrays, actions: np.ndarray) -> Outcome:
        """What ``actions`` [B, ...] do; must leave ``state`` as it is."""

    @abstractmethod
    def _vector(self, state: Arrays, num_steps: np.ndarray) -> np.ndarray:
        """float32 [B, ...]: what is seen after ``num_steps`` [B] steps."""

    def reset(self) -> Mapping[str, np.ndarray]:
        """Start an episode in every game; see ``Games``."""
        self.active[:] = True
        for game in range(self.num_games):
            self._restart(game)
        self._look()
        return self._obs

    def step(self, actions: np.ndarray) -> GamesStep:
        """Play one action in every game; see ``Games``.

        Raises:
            ValueError: there is not one action a game.
        """
        actions = np.asarray(actions)
        if actions.shape != (self.num_games, *self.spec.action_shape):
            raise ValueError(
                f"actions have shape {actions.shape}, expected {(self.num_games, *self.spec.action_shape)}"
            )
        live = self.active.copy()
        outcome = self._play(self._state, actions)
        self._state = {k: np.where(live, v, self._state[k]) for k, v in outcome.state.items()}
        self._num_steps += live
        reward = np.where(live, outcome.reward, 0).astype(np.float32)
        self._return += reward
        end_status = np.where(live, outcome.end_status, EndStatus.RUNNING).astype(np.int8)
        terminated = end_status != EndStatus.RUNNING
        truncated = live & ~terminated & (self._num_steps >= self._limit)
        end_status[truncated] = EndStatus.ABORTED
        messages = outcome.messages
        if messages is not None:
            messages = [m if on else b"" for m, on in zip(messages, live, strict=True)]
        self._look()
        final_obs: dict[int, Arrays] = {}
        finished: dict[int, EpisodeResult] = {}
        for game in map(int, np.flatnonzero(terminated | truncated)):
            final_obs[game] = {key: array[game].copy() for key, array in self._obs.items()}
            finished[game] = self._result(game, int(end_status[game]), float(reward[game]))
            self._restart(game)
        if finished:
            self._look()
        return GamesStep(
            obs=self._obs,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            end_status=end_status,
            messages=messages,
            final_obs=final_obs,
            finished=finished,
        )

    def state_dict(self) -> State:
        """Everything about the running episodes, and where the seeds stand."""
        return {
            "seeds": self._seeds.state_dict(),
            "playing": [None if seeds is None else list(seeds) for seeds in self._playing],
            "game": {key: array.copy() for key, array in self._state.items()},
            "num_steps": self._num_steps.copy(),
            "return": self._return.copy(),
            "active": self.active.copy(),
        }

    def load_state_dict(self, state: State) -> Mapping[str, np.ndarray]:
        """Continue from ``state_dict``; returns the live buffers."""
        self._seeds.load_state_dict(state["seeds"])
        self._playing = [None if seeds is None else EpisodeSeeds(*seeds) for seeds in state["playing"]]
        self._state = {key: np.array(array) for key, array in state["game"].items()}
        self._num_steps[:] = state["num_steps"]
        self._return[:] = state["return"]
        self.active[:] = state["active"]
        self._look()
        return self._obs

    def close(self) -> None:
        """Stop playing; there is nothing to free."""
        self.active[:] = False

    def _restart(self, game: int) -> None:
        seeds = self._playing[game] = self._seeds.next(game)
        self.active[game] = seeds is not None
        self._num_steps[game] = self._return[game] = 0
        start = self._start(np.random.default_rng(list(seeds or EpisodeSeeds(0, 0, 0))))
        for name, value in start.items():
            self._state.setdefault(name, np.zeros(self.num_games, type(value)))[game] = value

    def _look(self) -> None:
        self._obs["vector"][:] = self._vector(self._state, self._num_steps)

    def _result(self, game: int, end_status: int, last_reward: float) -> EpisodeResult:
        return EpisodeResult(
            task=self.spec.tasks[game],
            seeds=self._playing[game],
            env_return=float(self._return[game]),
            num_steps=int(self._num_steps[game]),
            end_status=end_status,
            success=end_status == EndStatus.TASK_SUCCESSFUL and last_reward > 0,
        )


def _vector_spec(tasks: tuple[str, ...], size: int, action_names: tuple[str, ...], **more: Any) -> GamesSpec:
    obs = {"vector": ObsSpec(shape=(size,), dtype=np.dtype(np.float32))}
    return GamesSpec(tasks=tasks, obs=obs, action_names=action_names, **more)


class CorridorGames(ToyGames):
    """Walk to the right end of a corridor: +1 and the end; the episode's seeds say where a key lies.

    Actions: left, right, wait. ``vector`` [length + 1]: one-hot position, then the share of the time
    limit that has passed.

    Args:
        num_games: B.
        seeds: which episodes are played.
        length: cells; the hero starts in the leftmost. At least 3.
        limit: steps after which an episode is truncated.
        with_messages: whether the games speak (bumps, the key, the win).
    """

    moves: Mapping[str, int] = {"left": -1, "right": 1, "wait": 0}
    """Cells that each action moves the hero to the right."""

    def __init__(
        self, num_games: int, seeds: SeedSource, length: int = 6, limit: int = 24, with_messages: bool = True
    ) -> None:
        if length < 3:
            raise ValueError(f"length is {length}, a corridor needs at least 3 cells")
        spec = _vector_spec(self._tasks(num_games), length + 1, tuple(self.moves), has_messages=with_messages)
        super().__init__(spec, seeds, limit)
        self._length = length
        self._shift = np.array(list(self.moves.values()))

    def _tasks(self, num_games: int) -> tuple[str, ...]:
        return ("Toy-Corridor",) * num_games

    def _start(self, rng: np.random.Generator) -> dict[str, float]:
        return {"at": 0, "key": int(rng.integers(1, self._length - 1))}

    def _play(self, state: Arrays, actions: np.ndarray) -> Outcome:
        wanted = state["at"] + self._shift[actions]
        at = np.clip(wanted, 0, self._length - 1)
        won = at == self._length - 1
        messages = None
        if self.spec.has_messages:
            # Later entries win.
            spoken = (
                (b"You see here a key.", (at == state["key"]) & (at != state["at"])),
                (b"You bump into the wall.", wanted < 0),
                (b"You win!", won),
            )
            messages = [b""] * self.num_games
            for text, where in spoken:
                for game in np.flatnonzero(where):
                    messages[game] = text
        end_status = np.where(won, EndStatus.TASK_SUCCESSFUL, EndStatus.RUNNING)
        return Outcome({**state, "at": at}, won.astype(np.float32), end_status, messages)

    def _vector(self, state: Arrays, num_steps: np.ndarray) -> np.ndarray:
        one_hot = np.eye(self._length, dtype=np.float32)[state["at"]]
        return np.concatenate([one_hot, (num_steps / self._limit)[:, None]], axis=1, dtype=np.float32)


class MaskedGames(CorridorGames):
    """A corridor with four actions (a leap goes two cells), of which game b lacks number b modulo 4.

    Playing an action that the game lacks is a ValueError: what respects ``action_mask`` never does.
    """

    moves: Mapping[str, int] = {"left": -1, "right": 1, "wait": 0, "leap": 2}

    def __init__(
        self, num_games: int, seeds: SeedSource, length: int = 6, limit: int = 24, with_messages: bool = True
    ) -> None:
        super().__init__(num_games, seeds, length, limit, with_messages)
        lacks = np.arange(num_games) % len(self.moves)
        self.action_mask = lacks[:, None] != np.arange(len(self.moves))

    def _tasks(self, num_games: int) -> tuple[str, ...]:
        names = tuple(self.moves)
        return tuple(f"Toy-Masked-no-{names[game % len(names)]}" for game in range(num_games))

    def _play(self, state: Arrays, actions: np.ndarray) -> Outcome:
        assert self.action_mask is not None
        lacking = ~self.action_mask[np.arange(self.num_games), actions] & self.active
        if lacking.any():
            game = int(np.flatnonzero(lacking)[0])
            raise ValueError(f"game {game} has no action '{self.spec.action_names[int(actions[game])]}'")
        return super()._play(state, actions)


class MemoryGames(ToyGames):
    """One of two cues shows in the first observation alone; name it after ``delay`` more steps.

    Actions: first, second. ``vector`` [3]: one-hot cue (zeros after the first observation), and 1 when
    the answer is due. The right answer pays 1 and succeeds, the wrong one pays 0 and ends in death;
    without memory the mean return is one half.
    """

    def __init__(self, num_games: int, seeds: SeedSource, delay: int = 4) -> None:
        super().__init__(_vector_spec(("Toy-Memory",) * num_games, 3, ("first", "second")), seeds, delay + 2)
        self._delay = delay

    def _start(self, rng: np.random.Generator) -> dict[str, float]:
        return {"cue": int(rng.integers(2))}

    def _play(self, state: Arrays, actions: np.ndarray) -> Outcome:
        due, right = self._num_steps == self._delay, actions == state["cue"]
        answered = np.where(right, EndStatus.TASK_SUCCESSFUL, EndStatus.DEATH)
        return Outcome(state, (due & right).astype(np.float32), np.where(due, answered, EndStatus.RUNNING))

    def _vector(self, state: Arrays, num_steps: np.ndarray) -> np.ndarray:
        cue = np.eye(2, dtype=np.float32)[state["cue"]] * (num_steps == 0)[:, None]
        due = (num_steps == self._delay)[:, None]
        return np.concatenate([cue, due], axis=1, dtype=np.float32)


class BanditGames(ToyGames):
    """One-step episodes with a context c, uniform in [-1, 1]; ``vector`` [1] shows it.

    Discrete: actions low, high; the one that names the sign of c pays 1. Continuous: one number a in
    [-1, 1], which pays 1 - (a - c)^2. An episode succeeds where it pays more than 0.9.
    """

    def __init__(self, num_games: int, seeds: SeedSource, continuous: bool = False) -> None:
        tasks = ("Toy-Bandit",) * num_games
        box: dict[str, Any] = {
            "action_shape": (1,),
            "action_dtype": np.dtype(np.float32),
            "action_low": np.full(1, -1, np.float32),
            "action_high": np.full(1, 1, np.float32),
        }
        super().__init__(
            _vector_spec(tasks, 1, (), **box) if continuous else _vector_spec(tasks, 1, ("low", "high")),
            seeds,
            limit=1,
        )
        self._pay = self._pay_continuous if continuous else self._pay_discrete

    def _pay_continuous(self, context: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return 1 - (np.clip(actions[:, 0], -1, 1) - context) ** 2

    def _pay_discrete(self, context: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return (actions == (context > 0)).astype(np.float32)

    def _start(self, rng: np.random.Generator) -> dict[str, float]:
        return {"context": float(rng.uniform(-1, 1))}

    def _play(self, state: Arrays, actions: np.ndarray) -> Outcome:
        pay = self._pay(state["context"], actions)
        return Outcome(state, pay, np.where(pay > 0.9, EndStatus.TASK_SUCCESSFUL, EndStatus.DEATH))

    def _vector(self, state: Arrays, num_steps: np.ndarray) -> np.ndarray:
        return state["context"][:, None].astype(np.float32)
