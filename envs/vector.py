"""B games of NetHack in one process, stepped side by side on preallocated arrays.

What replays exactly: an episode is a function of its ``EpisodeSeeds`` and its actions, in any process, after
any number of earlier episodes in the same game object (``tests/envs/test_vector.py``). NLE alone leaks the
wall clock in two places: the moon phase (fixed by ``fix_moon_phase``) and ``ubirthday``, which names
shopkeepers (fixed in ``envs.game``). One condition is left: NetHack draws random numbers when it describes
certain cells, so that games with and without ``screen_descriptions`` sometimes part ways
(``envs.conformance.EXCEPTIONS``).
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from envs.actions import action_mask, own_actions, translated, union_of_names
from envs.caption_changes import ChangeTeller
from envs.data import EpisodeResult, EpisodeSeeds, GamesStep
from envs.endings import episode_result
from envs.engine import Engine
from envs.files import hold_folder, release_folder
from envs.game import Game
from envs.levels import level_of
from envs.logic import AskedLogic, Logic
from envs.observing import Buffers, Observations, nle_keys_of
from envs.protocols import GamesSpec, SeedSource, State
from envs.tasks import GamesConfig, TaskSpec


def _idle(action: int, /) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Group:
    """The games of one task."""

    rows: slice
    logic: Logic
    own_action: np.ndarray | None
    """From the union's actions to the task's own; None where they are the same."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one step came to, before any restart."""

    status: np.ndarray
    reward: np.ndarray
    messages: list[bytes]
    features: Mapping[str, np.ndarray]


class NetHackVector:
    """``envs.protocols.Games`` over NetHack; see ``envs.tasks.make``.

    Args:
        config: which tasks and what is seen of them.
        num_games: B, dealt over the tasks in turn.
        seeds: which episodes are played.

    Raises:
        ValueError: an unknown task, fewer games than tasks, or an engine that cannot be had here.
    """

    def __init__(self, config: GamesConfig, num_games: int, seeds: SeedSource) -> None:
        specs = config.specs()
        if num_games < len(specs):
            raise ValueError(f"num_games is {num_games}, but {len(specs)} tasks need at least one game each")
        self.num_games, self._seed_source = num_games, seeds
        self._specs = [specs[b % len(specs)] for b in range(num_games)]
        names = union_of_names(specs)
        self._own_actions = [own_actions(spec, names) for spec in specs]
        self.action_mask = action_mask(self._specs, names)
        self.active = np.zeros(num_games, bool)
        self._all_active = False
        self._every = np.arange(num_games)

        self._features: Any = None
        if config.features:
            from envs.features import FeatureTable

            self._features = FeatureTable(config.features, num_games, names)
        self._buffers = Buffers(sorted(self._nle_keys(config, specs)), num_games)
        self._observations = Observations(config, self._buffers, num_games)
        self.spec = GamesSpec(
            tasks=tuple(spec.id for spec in self._specs),
            obs=self._observations.spec,
            action_names=names,
            has_messages=True,
        )
        self._allocate(num_games)
        self._changes = ChangeTeller(self._buffers.arrays) if config.captions == "changes" else None
        self._build(specs, config.engine)

    def _nle_keys(self, config: GamesConfig, specs: Sequence[TaskSpec]) -> set[str]:
        keys = {*Game.ALWAYS, *nle_keys_of(config)}
        for spec in specs:
            keys.update(spec.controls.nle_keys)
            if spec.logic is AskedLogic:
                keys.update(AskedLogic.nle_keys(spec))
        if self._features is not None:
            keys.update(self._features.nle_keys)
        if config.captions == "changes":
            keys.update(ChangeTeller.NLE_KEYS)
        return keys

    def _allocate(self, num_games: int) -> None:
        self._blstats, self._message = self._buffers.arrays["blstats"], self._buffers.arrays["message"]
        self._last_blstats = np.zeros_like(self._blstats)
        self._max_blstats = np.zeros_like(self._blstats)
        self._steps = np.zeros(num_games, np.int64)
        self._returns = np.zeros(num_games)
        self._episodes = np.zeros(num_games, np.int64)
        self._limits = np.array([spec.max_episode_steps for spec in self._specs])
        self._logs = [array("H") for _ in range(num_games)]
        self._seeds: list[EpisodeSeeds | None] = [None] * num_games
        self._no_action = np.zeros(num_games, np.int64)

    def _build(self, specs: Sequence[TaskSpec], engine: Engine) -> None:
        self._folder = hold_folder()
        self._closed = False
        levels = [level_of(spec, self._folder / "levels") for spec in specs]
        self._games = [
            Game(spec, levels[b % len(specs)], self._rows(b), self._last_blstats[b], self._folder, engine)
            for b, spec in enumerate(self._specs)
        ]
        self._groups: list[_Group] = []
        self._controls: list[Callable[[int], bool]] = [_idle] * self.num_games
        for k, spec in enumerate(specs):
            rows = slice(k, None, len(specs))
            views = {key: a[rows] for key, a in self._buffers.arrays.items()}
            games = self._games[rows]
            logic = spec.logic(spec, games, views)
            own = self._own_actions[k] if self.action_mask is not None else None
            self._groups.append(_Group(rows, logic, own))
            for g, game in enumerate(games):
                controls = spec.controls(spec, game)
                if hasattr(controls, "on_macro"):
                    controls.on_macro = partial(logic.between, g)
                play = controls.play
                if own is not None:
                    play = translated(play, own.tolist())
                b = k + g * len(specs)
                self._controls[b] = play if self._changes is None else self._changes.watched(b, play)
        self._plays = [_idle] * self.num_games
        self._log_actions: list[Callable[[int], Any]] = [_idle] * self.num_games

    def _rows(self, b: int) -> dict[str, np.ndarray]:
        """Where a game writes its observations."""
        rows = self._buffers.rows(b)
        if self._changes is not None:
            rows["inv_strs"] = self._changes.name_rows[b]
        return rows

    # ---- episodes

    def reset(self) -> Mapping[str, np.ndarray]:
        """Start an episode in every game; returns live buffers ``{key: [B, ...]}``."""
        self._begin_next(range(self.num_games))
        self._observations.update()
        return self._observations.obs

    def _begin_next(self, games: Iterable[int]) -> None:
        begun = []
        for b in games:
            seeds = self._seed_source.next(b)
            if seeds is not None:
                self._begin(b, seeds)
                begun.append(b)
                continue
            self.active[b] = self._all_active = False
            self._plays[b] = self._log_actions[b] = _idle
        self._begin_features(begun)

    def _begin_features(self, games: list[int]) -> None:
        """At once for all games that begin: each call takes in all of them at little more than the cost of one."""
        if self._features is not None and games:
            self._features.reset(self._buffers.arrays, np.array(games))

    def _begin(self, b: int, seeds: EpisodeSeeds) -> None:
        self._games[b].start(seeds)
        self._groups[b % len(self._groups)].logic.begin(b // len(self._groups))
        self._seeds[b] = seeds
        self._logs[b] = array("H")
        self._plays[b], self._log_actions[b] = self._controls[b], self._logs[b].append
        self._last_blstats[b] = self._max_blstats[b] = self._blstats[b]
        if self._changes is not None:
            self._changes.begin(b)
        self._steps[b] = self._returns[b] = 0
        self._episodes[b] += 1
        self.active[b] = True
        self._all_active = bool(self.active.all())

    # ---- steps

    def step(self, actions: np.ndarray) -> GamesStep:
        """Play one action in every game.

        Args:
            actions: int [B].

        Raises:
            ValueError: the wrong number of actions, or one that the game's task does not have.
        """
        actions = np.asarray(actions)
        if actions.shape != (self.num_games,):
            raise ValueError(f"actions have shape {actions.shape}, expected ({self.num_games},)")
        outcome = self._advance(actions)
        status = outcome.status
        self._observations.update()
        final_obs: dict[int, dict[str, np.ndarray]] = {}
        finished: dict[int, EpisodeResult] = {}
        ended = np.flatnonzero(status).tolist()
        if ended:
            final_obs = {b: self._observations.row(b) for b in ended}
            finished = {b: self._result(b, outcome) for b in ended}
            self._begin_next(ended)
            self._observations.update()
        self._last_blstats[:] = self._blstats
        return GamesStep(
            obs=self._observations.obs,
            reward=outcome.reward.astype(np.float32),
            terminated=status > 0,
            truncated=status < 0,
            end_status=status,
            messages=outcome.messages,
            final_obs=final_obs,
            finished=finished,
            features=outcome.features,
        )

    def _check(self, actions: np.ndarray, chosen: list[int]) -> None:
        if min(chosen) < 0 or max(chosen) >= self.spec.num_actions:
            raise ValueError(f"actions must be in 0..{self.spec.num_actions - 1}, found {chosen}")
        if self.action_mask is not None:
            allowed = self.action_mask[self._every, actions] | ~self.active
            if not allowed.all():
                b = int(np.flatnonzero(~allowed)[0])
                name = self.spec.action_names[chosen[b]]
                raise ValueError(f"game {b} ({self.spec.tasks[b]}) has no action '{name}'; see action_mask")

    def _advance(self, actions: np.ndarray) -> _Outcome:
        """Play the actions in the active games, without restarts."""
        chosen = actions.tolist()
        self._check(actions, chosen)
        over = [play(action) for play, action in zip(self._plays, chosen, strict=True)]
        for log, action in zip(self._log_actions, chosen, strict=True):
            log(action)
        self._steps += self.active
        status, reward = self._judge(actions, over)
        if True in over:
            for b in range(self.num_games):
                if over[b]:
                    self._blstats[b] = self._last_blstats[b]
        np.maximum(self._max_blstats, self._blstats, out=self._max_blstats)
        self._returns += reward
        messages = self._take_messages()
        features: Mapping[str, np.ndarray] = {}
        if self._features is not None:
            features = self._features.update(self._buffers.arrays, actions, messages)
        if self._changes is not None:
            for b, lines in self._changes.tell(self.active, over).items():
                messages[b] = b"\n".join((messages[b], lines)) if messages[b] else lines
        return _Outcome(status, reward, messages, features)

    def _judge(self, actions: np.ndarray, over: list[bool]) -> tuple[np.ndarray, np.ndarray]:
        out_of_time = self._steps >= self._limits
        over_B = np.array(over)
        if len(self._groups) == 1:
            status, reward = self._groups[0].logic.judge(actions, self.active, over_B, out_of_time)
        else:
            status, reward = np.zeros(self.num_games, np.int8), np.zeros(self.num_games)
            for group in self._groups:
                rows, own = group.rows, group.own_action
                chosen = actions[rows] if own is None else own[actions[rows]]
                status[rows], reward[rows] = group.logic.judge(
                    chosen, self.active[rows], over_B[rows], out_of_time[rows]
                )
        if not self._all_active:
            status[~self.active] = 0
            reward[~self.active] = 0
        return status, reward

    def _take_messages(self) -> list[bytes]:
        raw, width = self._message.tobytes(), self._message.shape[1]
        messages = []
        for b, game in enumerate(self._games):
            start = b * width
            end = raw.find(b"\0", start, start + width)
            message = raw[start : end if end >= 0 else start + width]
            if game.pages:
                if message and message != game.pages[-1]:
                    game.pages.append(message)
                message = b"\n".join(game.pages)
                game.pages.clear()
            messages.append(message)
        if not self._all_active:
            messages = [m if on else b"" for m, on in zip(messages, self.active, strict=True)]
        return messages

    def _result(self, b: int, outcome: _Outcome) -> EpisodeResult:
        seeds = self._seeds[b]
        assert seeds is not None
        return episode_result(
            self._games[b],
            seeds=seeds,
            env_return=float(self._returns[b]),
            last_reward=float(outcome.reward[b]),
            num_steps=int(self._steps[b]),
            end_status=int(outcome.status[b]),
            last_blstats=self._blstats[b],
            max_blstats=self._max_blstats[b],
        )

    # ---- state

    def state_dict(self) -> State:
        """Seeds and actions of the running episodes; small enough to keep with every checkpoint."""
        return {
            "tasks": list(self.spec.tasks),
            "seed_source": self._seed_source.state_dict(),
            "episodes": self._episodes.copy(),
            "active": self.active.copy(),
            "seeds": [None if s is None else list(s) for s in self._seeds],
            "actions": [np.array(log, np.uint16) for log in self._logs],
            "checksums": [self._checksum(b) for b in range(self.num_games)],
            "idle": {str(b): _copies(self._buffers.rows(b)) for b in np.flatnonzero(~self.active).tolist()},
        }

    def load_state_dict(self, state: State) -> Mapping[str, np.ndarray]:
        """Rebuild the games by replaying ``state``; returns the live buffers.

        Raises:
            ValueError: the state is of other tasks.
            RuntimeError: a replayed game does not show what it showed when the state was taken.
        """
        if list(state["tasks"]) != list(self.spec.tasks):
            raise ValueError(f"the saved games are of {state['tasks']}, these are of {list(self.spec.tasks)}")
        active = np.array(state["active"], bool)
        self.active[:] = self._all_active = False
        self._plays = [_idle] * self.num_games
        self._log_actions = [_idle] * self.num_games
        self._replay(np.flatnonzero(active).tolist(), state)
        for b, rows in state["idle"].items():
            for key, row in rows.items():
                self._buffers.arrays[key][int(b)] = row
        self._seed_source.load_state_dict(state["seed_source"])
        self._episodes[:] = state["episodes"]
        self._last_blstats[:] = self._blstats
        self._observations.update()
        self._verify(state)
        return self._observations.obs

    def _replay(self, games: list[int], state: State) -> None:
        """Begin each game so late that all of them reach their last action together."""
        logs = {b: np.asarray(state["actions"][b]).astype(np.int64) for b in games}
        longest = max((len(log) for log in logs.values()), default=0)
        for t in range(longest + 1):
            begun = [b for b, log in logs.items() if longest - len(log) == t]
            for b in begun:
                self._begin(b, EpisodeSeeds(*(int(s) for s in state["seeds"][b])))
            self._begin_features(begun)
            if t == longest:
                break
            actions = self._no_action.copy()
            for b in np.flatnonzero(self.active):
                log = logs[int(b)]
                actions[b] = log[t - (longest - len(log))]
            outcome = self._advance(actions)
            self._last_blstats[:] = self._blstats
            if outcome.status.any():
                early = np.flatnonzero(outcome.status).tolist()
                raise RuntimeError(f"games {early} ended in the replay before their last action")

    def _verify(self, state: State) -> None:
        wrong = [b for b in range(self.num_games) if self._checksum(b) != state["checksums"][b]]
        if wrong:
            raise RuntimeError(
                f"games {wrong} did not replay to the saved state; were NLE, MiniHack or minigrid changed?"
            )

    def _checksum(self, b: int) -> int:
        rows = self._buffers.rows(b)
        return zlib.crc32(b"".join(rows[key].tobytes() for key in ("glyphs", "blstats", "message")))

    def close(self) -> None:
        """Free the games and their temporary folders."""
        if not self._closed:
            self._closed = True
            for game in self._games:
                game.close()
            release_folder()


def _copies(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: row.copy() for key, row in rows.items()}
