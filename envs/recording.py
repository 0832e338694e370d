"""Recorded episodes: everything that rewards may read of an episode, and what a person saw, in one file.

A record is one compressed ``.npz`` without pickles::

    format, schema_version                what this program must know to read the rest
    task, seeds, action_names             which episode
    actions, env_reward, end_status, terminated, truncated      [steps]
    int_names, int_columns                schema columns of whole numbers [columns, steps]
    bool_names, bool_columns              schema columns of truth values [columns, steps]
    str_names, str_columns, texts         schema columns of words [columns, steps]: places in texts
    captions                              [steps]: places in texts
    screen                                uint8 [steps, 24, 80], where it was recorded
    plan_*                                of a policy that plans: each plan it made (``RecordedPlans``)

Example:
    >>> games = make_recorded(config, 16, seeds, lambda record: record.save(path_of(record.seeds)))
    >>> rollout = EpisodeRecord.load(path).as_rollout()  # [T, 1], for factors and reward models
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from envs.captions import canonical_of_raw, caption_id
from envs.data import EndStatus, EpisodeSeeds, FinalObs, GamesStep, Rollout
from envs.files import replacing
from envs.protocols import Games, PolicyStep, SeedSource, State
from envs.schema import COLUMNS, SCHEMA_VERSION
from envs.spec import GamesConfig
from envs.tasks import make

RECORD_FORMAT = 1
"""Rises whenever a file of before can no longer be read."""

RECORDED_COLUMNS = tuple(name for name, field in COLUMNS.items() if not field.from_rollout)
"""Columns of the schema that a record holds; the others follow from how the steps ended."""

SCREEN = "tty_chars"
"""Observation key of what a person would see."""

_STEP_ARRAYS = ("actions", "env_reward", "end_status", "terminated", "truncated")
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError)
"""What reading a damaged or foreign archive raises, whose bytes are in memory already."""
_KINDS = {"int": np.dtype(np.int64), "bool": np.dtype(bool)}


_EACH_CANDIDATE = ("scores", "log_prob", "refused", "evaluations")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RecordedPlans:
    """The P plans that a policy made in an episode, each with the K candidates that it chose among.

    A policy tells of them in ``PolicyStep.head_record``, under these names, with ``planned`` bool [B].
    """

    step: np.ndarray
    """int64 [P]: the step whose action is the plan's first."""
    candidates: np.ndarray
    """int16 [P, K, H]: tokens (``agents.heads.plan_head``), places in ``action_names``, and then PAD."""
    scores: np.ndarray
    """float32 [P, K], by the policy's critic."""
    log_prob: np.ndarray
    """float32 [P, K]."""
    refused: np.ndarray
    """bool [P, K]: too unlikely, or beginning with a move that was in vain just before."""
    taken: np.ndarray
    """int16 [P]: the candidate that was executed."""
    evaluations: np.ndarray
    """int16 [P, K]: passes over the network that each took."""

    def __post_init__(self) -> None:
        P, K, *_ = self.candidates.shape
        for name, shape in (("step", (P,)), ("taken", (P,)), *((n, (P, K)) for n in _EACH_CANDIDATE)):
            if getattr(self, name).shape != shape:
                raise ValueError(f"RecordedPlans.{name} has shape {getattr(self, name).shape}, expected {shape}")


_PLANS = tuple(RecordedPlans.__slots__)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EpisodeRecord:
    """One whole episode of T steps.

    Raises:
        ValueError: there is no step, or an array is not one value a step; the message names it.
    """

    task: str
    seeds: EpisodeSeeds
    action_names: tuple[str, ...]
    actions: np.ndarray
    """int64 [T]: places in ``action_names``."""
    env_reward: np.ndarray
    """float32 [T]."""
    end_status: np.ndarray
    """int8 [T], values of ``EndStatus``."""
    terminated: np.ndarray
    """bool [T]."""
    truncated: np.ndarray
    """bool [T]."""
    columns: Mapping[str, np.ndarray]
    """``{column of the schema: [T]}``, whatever of ``RECORDED_COLUMNS`` was recorded; words are fixed-width unicode."""
    captions: np.ndarray
    """unicode [T]: canonical text of the message that each action led to; "" for none."""
    screen: np.ndarray | None = None
    """uint8 [T, 24, 80]: characters of the terminal after each action. After a death, which clears the terminal: those
    of before."""
    plans: RecordedPlans | None = None
    """None: the policy does not plan."""

    def __post_init__(self) -> None:
        T = len(self.actions)
        if T == 0:
            raise ValueError("an episode record needs at least one step")
        per_step = {name: getattr(self, name) for name in (*_STEP_ARRAYS, "captions")}
        per_step |= {f"columns[{name}]": column for name, column in self.columns.items()}
        for name, array in per_step.items():
            if array.shape != (T,):
                raise ValueError(f"EpisodeRecord.{name} has shape {array.shape}, expected ({T},)")
        if self.screen is not None and (self.screen.ndim != 3 or len(self.screen) != T):
            raise ValueError(f"EpisodeRecord.screen has shape {self.screen.shape}, expected ({T}, rows, columns)")
        if self.actions.min() < 0 or self.actions.max() >= len(self.action_names):
            raise ValueError(f"EpisodeRecord.actions must be in 0..{len(self.action_names) - 1}")

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.actions)

    @property
    def ending(self) -> str:
        """How the episode ended, in words: success, death, out of time, failure or unfinished."""
        status = int(self.end_status[-1])
        if status == EndStatus.TASK_SUCCESSFUL:
            return "success" if self.env_reward[-1] > 0 else "failure"
        return {EndStatus.DEATH: "death", EndStatus.ABORTED: "out of time"}.get(EndStatus(status), "unfinished")

    def as_rollout(self) -> Rollout:
        """The episode as T steps of one game: what factors and reward models read. It has no observations."""
        T = self.num_steps
        ids, counts = self._counted_captions()
        done = np.flatnonzero(self.terminated | self.truncated)
        return Rollout(
            obs={},
            **{name: getattr(self, name)[:, None] for name in _STEP_ARRAYS},
            final_obs=FinalObs(at=np.stack([done, np.zeros_like(done)], axis=1), obs={}),
            policy_version=np.zeros((T, 1), np.int64),
            episode_id=np.zeros((T, 1), np.int64),
            step_in_episode=np.arange(T, dtype=np.int32)[:, None],
            caption_id=ids[:, None],
            caption_count=counts[:, None],
            new_captions={int(i): str(text) for i, text in zip(ids, self.captions, strict=True) if i},
            features={name: column[:, None] for name, column in self.columns.items()},
        )

    def _counted_captions(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids int64 [T], and how often each has come so far, int32 [T]."""
        seen: Counter[int] = Counter()
        ids, counts = np.zeros(self.num_steps, np.int64), np.zeros(self.num_steps, np.int32)
        for t, text in enumerate(self.captions.tolist()):
            ids[t] = ident = caption_id(text)
            if ident:
                seen[ident] += 1
                counts[t] = seen[ident]
        return ids, counts

    # ---- files

    def save(self, path: Path) -> None:
        """Write the record, or replace one, in one step: a reader or a crash never meets a part of it."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **self._arrays())

    def _arrays(self) -> dict[str, Any]:
        by_kind: dict[str, list[str]] = {"int": [], "bool": [], "str": []}
        for name in self.columns:
            by_kind[COLUMNS[name].dtype].append(name)
        words = [self.columns[name] for name in by_kind["str"]]
        texts, places = np.unique(np.concatenate([self.captions, *words]), return_inverse=True)
        rows = places.astype(np.int32).reshape(1 + len(words), -1)
        arrays: dict[str, Any] = {
            "format": np.int64(RECORD_FORMAT),
            "schema_version": np.int64(SCHEMA_VERSION),
            "task": np.array(self.task),
            "seeds": np.array(self.seeds, np.int64),
            "action_names": np.array(self.action_names),
            "texts": texts,
            "captions": rows[0],
            "str_columns": rows[1:],
        }
        arrays |= {name: getattr(self, name) for name in _STEP_ARRAYS}
        arrays |= {f"{kind}_names": np.array(names, np.str_) for kind, names in by_kind.items()}
        for kind, dtype in _KINDS.items():
            stacked = [self.columns[name] for name in by_kind[kind]]
            arrays[f"{kind}_columns"] = np.array(stacked, dtype).reshape(len(stacked), self.num_steps)
        if self.plans is not None:
            arrays |= {f"plan_{name}": getattr(self.plans, name) for name in _PLANS}
        return arrays | ({} if self.screen is None else {"screen": self.screen})

    @classmethod
    def load(cls, path: Path) -> EpisodeRecord:
        """The record in a file.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is damaged, something else, or of another version; one sentence that names it.
        """
        arrays = _members(path)
        for name, known in (("format", RECORD_FORMAT), ("schema_version", SCHEMA_VERSION)):
            if name in arrays and (found := arrays[name].tolist()) != known:
                raise ValueError(f"{path} is an episode record of {name.replace('_', ' ')} {found}, not {known}")
        try:
            return _record_of(arrays)
        except KeyError as error:
            raise ValueError(f"{path} is not an episode record: it holds no {error}") from None
        except (ValueError, TypeError, IndexError) as error:
            raise ValueError(f"{path} is not an episode record: {error}") from None


def _members(path: Path) -> dict[str, np.ndarray]:
    """Every array of an ``.npz``; checksums first, so that nothing damaged is interpreted."""
    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} does not fit")
        content.seek(0)
        with np.load(content, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if isinstance(arrays[name], np.ndarray)}
    except _UNREADABLE as error:
        raise ValueError(f"{path} is not an episode record, or it is damaged: {error}") from None


def _record_of(arrays: Mapping[str, np.ndarray]) -> EpisodeRecord:
    texts = arrays["texts"]
    columns: dict[str, np.ndarray] = {}
    for kind in (*_KINDS, "str"):
        values = arrays[f"{kind}_columns"]
        spelled = texts[values] if kind == "str" else values
        columns |= dict(zip(arrays[f"{kind}_names"].tolist(), spelled, strict=True))
    return EpisodeRecord(
        task=str(arrays["task"]),
        seeds=EpisodeSeeds(*arrays["seeds"].tolist()),
        action_names=tuple(arrays["action_names"].tolist()),
        **{name: arrays[name] for name in _STEP_ARRAYS},
        columns={name: columns[name] for name in COLUMNS if name in columns},
        captions=texts[arrays["captions"]],
        screen=arrays.get("screen"),
        plans=RecordedPlans(**{name: arrays[f"plan_{name}"] for name in _PLANS}) if "plan_step" in arrays else None,
    )


# ---- recording


@dataclass
class _Running:
    """What one game has shown in its episode so far; a list holds one entry a step."""

    actions: list[int] = field(default_factory=list)
    env_reward: list[float] = field(default_factory=list)
    numbers: dict[str, bytearray] = field(default_factory=lambda: {kind: bytearray() for kind in _KINDS})
    """One row of a kind's columns after the other."""
    words: list[str] = field(default_factory=list)
    """The same of words."""
    captions: list[str] = field(default_factory=list)
    screens: list[bytes] = field(default_factory=list)
    """Compressed, because whole games of NetHack are long."""
    plans: list[dict[str, Any]] = field(default_factory=list)
    """Fields of ``RecordedPlans``, one entry a plan."""
    texts: dict[str, str] = field(default_factory=dict)
    """Each text once: most steps say what an earlier one has said."""

    def shared(self, text: str) -> str:
        """The same text, held once for all steps."""
        return self.texts.setdefault(text, text)


class RecordedGames:
    """Games that hand over a record of each episode in the step that ends it; see ``make_recorded``.

    Episodes that were running when a state was loaded are not recorded.

    Args:
        games: with ``RECORDED_COLUMNS`` among their features, and the screen among their observations.
        hidden: observation keys that the player does not get.
        on_episode: gets each record.
    """

    def __init__(self, games: Games, hidden: frozenset[str], on_episode: Callable[[EpisodeRecord], None]) -> None:
        self._games, self._hidden, self._on_episode = games, hidden, on_episode
        self.spec = replace(games.spec, obs=self._shown(games.spec.obs))
        self.num_games, self.action_mask, self.active = games.num_games, games.action_mask, games.active
        self._names = {
            kind: [name for name in RECORDED_COLUMNS if COLUMNS[name].dtype == kind] for kind in (*_KINDS, "str")
        }
        self._running: list[_Running | None] = [None] * self.num_games
        self._screens = np.zeros((self.num_games, *games.spec.obs[SCREEN].shape), np.uint8)

    def _shown(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in obs.items() if key not in self._hidden}

    def reset(self) -> Mapping[str, np.ndarray]:
        """As of the games."""
        obs = self._games.reset()
        self._running = [_Running() if on else None for on in self.active]
        self._screens[:] = obs[SCREEN]
        return self._shown(obs)

    def watch(self, acted: PolicyStep) -> None:
        """Take note of the plans that a policy made before the step that follows."""
        told = acted.head_record or {}
        for b in np.flatnonzero(told.get("planned", ())):
            running = self._running[b]
            if running is not None:
                plan = {name: told[name][b] for name in _PLANS if name != "step"}
                running.plans.append(plan | {"step": len(running.actions)})

    def step(self, actions: np.ndarray) -> GamesStep:
        """As of the games; hands over the records of the episodes that ended."""
        played = self._games.step(actions)
        screens = played.obs[SCREEN].copy()
        for b, final in played.final_obs.items():
            screens[b] = self._screens[b] if played.end_status[b] == EndStatus.DEATH else final[SCREEN]
        self._note(actions, played, screens)
        for b, result in played.finished.items():
            running, self._running[b] = self._running[b], _Running() if self.active[b] else None
            if running is not None:
                assert result.seeds is not None, "games that are recorded are seeded"
                self._on_episode(self._record(running, result.task, result.seeds, played.end_status[b]))
        self._screens[:] = played.obs[SCREEN]
        return replace(
            played,
            obs=self._shown(played.obs),
            final_obs={b: self._shown(obs) for b, obs in played.final_obs.items()},
        )

    def _note(self, actions: np.ndarray, played: GamesStep, screens: np.ndarray) -> None:
        numbers = {
            kind: np.stack([played.features[name] for name in self._names[kind]], axis=1, dtype=dtype)
            for kind, dtype in _KINDS.items()
        }
        words = list(zip(*(played.features[name].tolist() for name in self._names["str"]), strict=True))
        messages = played.messages or [b""] * self.num_games
        for b, running in enumerate(self._running):
            if running is None:
                continue
            running.actions.append(int(actions[b]))
            running.env_reward.append(float(played.reward[b]))
            # Copies: a view of one game's row, or a word as wide as its column, would keep megabytes alive.
            for kind, rows in numbers.items():
                running.numbers[kind] += rows[b].tobytes()
            running.words += map(running.shared, words[b])
            running.captions.append(running.shared(canonical_of_raw(messages[b]) if messages[b] else ""))
            running.screens.append(zlib.compress(screens[b].tobytes(), 1))

    def _record(self, running: _Running, task: str, seeds: EpisodeSeeds, end_status: int) -> EpisodeRecord:
        T = len(running.actions)
        status = np.zeros(T, np.int8)
        status[-1] = end_status
        columns: dict[str, np.ndarray] = {}
        for kind, dtype in _KINDS.items():
            rows = np.frombuffer(running.numbers[kind], dtype).reshape(T, -1)
            columns |= zip(self._names[kind], rows.T.copy(), strict=True)
        names = self._names["str"]
        columns |= {name: np.array(running.words[place :: len(names)]) for place, name in enumerate(names)}
        screen = b"".join(map(zlib.decompress, running.screens))
        return EpisodeRecord(
            task=task,
            seeds=seeds,
            action_names=self.spec.action_names,
            actions=np.array(running.actions, np.int64),
            env_reward=np.array(running.env_reward, np.float32),
            end_status=status,
            terminated=status > 0,
            truncated=status < 0,
            columns={name: columns[name] for name in RECORDED_COLUMNS},
            captions=np.array(running.captions),
            screen=np.frombuffer(screen, np.uint8).reshape(T, *self._screens.shape[1:]),
            plans=_recorded_plans(running.plans),
        )

    def state_dict(self) -> State:
        """As of the games."""
        return self._games.state_dict()

    def load_state_dict(self, state: State) -> Mapping[str, np.ndarray]:
        """As of the games; what is running is not recorded."""
        obs = self._games.load_state_dict(state)
        self._running = [None] * self.num_games
        self._screens[:] = obs[SCREEN]
        return self._shown(obs)

    def close(self) -> None:
        """Close the games."""
        self._games.close()


def _recorded_plans(plans: list[dict[str, Any]]) -> RecordedPlans | None:
    if not plans:
        return None
    return RecordedPlans(**{name: np.stack([plan[name] for plan in plans]) for name in _PLANS})


def make_recorded(
    config: GamesConfig, num_games: int, seeds: SeedSource, on_episode: Callable[[EpisodeRecord], None]
) -> RecordedGames:
    """``envs.tasks.make``, with a record of each episode; the player sees, and the games play, the same as without.

    Args:
        config: which tasks and what the player sees of them.
        num_games: B.
        seeds: which episodes are played.
        on_episode: gets each record before the step that ended its episode returns.

    Raises:
        ValueError: as ``make``.
    """
    hidden = frozenset({SCREEN}).difference(config.obs_keys)
    seen = config.replace(features=RECORDED_COLUMNS, obs_keys=(*config.obs_keys, *sorted(hidden)))
    return RecordedGames(make(seen, num_games, seeds), hidden, on_episode)
