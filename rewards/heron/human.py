"""Preferences of people: pairs of recorded episodes, and which one of each is better, in a file of JSON lines.

    {"first": "episodes/000.npz", "second": "episodes/001.npz", "preferred": "first"}

``preferred`` is first, second or equal. Files are records of ``envs.recording``, relative to the file that names them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from envs.protocols import GamesSpec
from envs.recording import EpisodeRecord
from rewards.heron.config import TreeConfig
from rewards.heron.factors import FactorTable
from rewards.heron.inputs import StepInputs, step_inputs
from rewards.heron.preferences import PairBatch
from rewards.heron.segments import Segments

VERDICTS: Mapping[str, float] = MappingProxyType({"first": 1.0, "second": 0.0, "equal": 0.5})
"""What each verdict means for the first episode."""

_SIDES = ("first", "second")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Preference:
    """One line of the file."""

    first: EpisodeRecord
    """Without its screens, as ``second``; an episode that several lines name is one object."""
    second: EpisodeRecord
    target: float
    """p(the first is better): 1, 0 or 1/2."""
    where: str
    """File and line number."""


def read_preferences(path: Path) -> list[Preference]:
    """Everything that a file of preferences says, with the episodes that it names.

    Raises:
        ValueError: the file cannot be read or holds no preference, a line is no preference, an episode's file cannot
            be read, or two episodes cannot be compared; one sentence with the file and the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no file of preferences: it is not text in UTF-8") from None
    records: dict[Path, EpisodeRecord] = {}
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            found.append(_preference(line, path.parent, records, where))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if not found:
        raise ValueError(f"{path} holds no preference")
    return found


def _preference(line: str, folder: Path, records: dict[Path, EpisodeRecord], where: str) -> Preference:
    said = _fields(line)
    target = VERDICTS.get(said["preferred"])
    if target is None:
        raise ValueError(f"preferred is '{said['preferred']}', allowed are {', '.join(VERDICTS)}")
    first, second = (_record(folder / said[side], records) for side in _SIDES)
    if first.task != second.task:
        raise ValueError(f"the episodes are of different tasks, {first.task} and {second.task}")
    if _episode_id(first) == _episode_id(second):
        raise ValueError(f"{said['first']} and {said['second']} are the same episode")
    return Preference(first=first, second=second, target=target, where=where)


def _fields(line: str) -> dict[str, str]:
    """The three strings of a line; what else it holds is the user's own."""
    try:
        said: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos + 1})") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: it is nested too deep") from None
    names = (*_SIDES, "preferred")
    if not isinstance(said, dict):
        raise ValueError(f"expected an object with {', '.join(names)}, not {line.strip()[:60]}")
    for name in names:
        if name not in said:
            raise ValueError(f"'{name}' is missing; a preference has {', '.join(names)}")
        if not isinstance(said[name], str):
            raise ValueError(f"'{name}' is {json.dumps(said[name])[:60]}, it must be a string")
    return {name: said[name] for name in names}


def _record(path: Path, records: dict[Path, EpisodeRecord]) -> EpisodeRecord:
    """The record in a file, read once."""
    if path not in records:
        try:
            records[path] = replace(EpisodeRecord.load(path), screen=None)
        except OSError as error:
            raise ValueError(f"the episode {path} cannot be read: {error.strerror or error}") from None
    return records[path]


def _episode_id(record: EpisodeRecord) -> int:
    """The same wherever its file lies: 63 bits of a hash of what was played."""
    played = f"{record.task} {record.seeds} {[record.action_names[action] for action in record.actions]}"
    return int.from_bytes(blake2b(played.encode(), digest_size=8).digest(), "big") >> 1


def human_pairs(preferences: Sequence[Preference], inputs: StepInputs, table: FactorTable) -> PairBatch:
    """Judged pairs whose segments are whole episodes.

    Args:
        preferences: at least one.
        inputs: what the reward model reads of a step.
        table: the factors.

    Raises:
        ValueError: an episode lacks a column, or a factor cannot be computed over it; with the file and the line.
    """
    segments: dict[int, Segments] = {}
    for preference in preferences:
        for record in (preference.first, preference.second):
            if id(record) in segments:
                continue
            try:
                segments[id(record)] = _segment(record, inputs, table)
            except ValueError as error:
                raise ValueError(f"{preference.where}: {error}") from None
    every = Segments.joined(list(segments.values()))
    place = {ident: at for at, ident in enumerate(segments)}
    return PairBatch(
        first=every.take(np.array([place[id(preference.first)] for preference in preferences])),
        second=every.take(np.array([place[id(preference.second)] for preference in preferences])),
        target=np.array([preference.target for preference in preferences]),
        source="human",
    )


def _segment(record: EpisodeRecord, inputs: StepInputs, table: FactorTable) -> Segments:
    """A whole episode. Tasks have numbers within a run only, and judged pairs are never dealt by task: it is 0."""
    rollout, lengths = record.as_rollout(), np.array([record.num_steps])
    assert rollout.caption_id is not None
    return Segments(
        inputs=inputs(rollout)[:, 0],
        lengths=lengths,
        factors=table.over_segments(table.per_step(rollout)[:, 0], lengths),
        episode_id=np.array([_episode_id(record)]),
        first_step=np.zeros(1, np.int64),
        ended=rollout.done[-1],
        task=np.zeros(1, np.int64),
        caption_id=rollout.caption_id[:, 0],
    )


def pairs_in_file(
    config: TreeConfig, action_names: Sequence[str], task_ids: Sequence[str] | None = None
) -> PairBatch | None:
    """What people said of recorded NetHack play, as the reward model reads it; None where nobody was asked.

    Args:
        config: names the file.
        action_names: of the games that the reward is for.
        task_ids: which tasks the games play; None = whichever the episodes are of.

    Raises:
        ValueError: as ``read_preferences`` and ``human_pairs``; or an episode is of another task, or was played with
            an action that the games lack.
    """
    if config.judges.human is None:
        return None
    names, table = tuple(action_names), FactorTable.from_ranking(config.ranking)
    preferences = read_preferences(config.judges.human)
    if task_ids is not None:
        _check_tasks(preferences, task_ids)
    preferences = _with_actions(preferences, names)
    spec = GamesSpec(tasks=(), obs={}, action_names=names, has_messages=True)
    return human_pairs(preferences, step_inputs(config.model, table.columns, spec, None), table)


def _check_tasks(preferences: Sequence[Preference], task_ids: Sequence[str]) -> None:
    """Refuse episodes of other tasks; both episodes of a preference are of one."""
    for preference in preferences:
        task = preference.first.task
        if task not in task_ids:
            raise ValueError(
                f"{preference.where}: the episodes are of the task {task}, this run plays {', '.join(task_ids)}"
            )


def _with_actions(preferences: Sequence[Preference], names: tuple[str, ...]) -> list[Preference]:
    """The same, with actions by their places in ``names``: a task of its own may have fewer than a run of several."""
    places = {name: place for place, name in enumerate(names)}
    renamed: dict[int, EpisodeRecord] = {}
    for preference in preferences:
        for record in (preference.first, preference.second):
            if id(record) in renamed:
                continue
            # What could have been played, but was not, does not matter.
            own = np.array([places.get(name, -1) for name in record.action_names])
            actions = own[record.actions]
            if (actions < 0).any():
                unknown = record.action_names[record.actions[np.argmin(actions)]]
                raise ValueError(
                    f"{preference.where}: an episode was played with the action '{unknown}', not in this run"
                )
            renamed[id(record)] = replace(record, action_names=names, actions=actions)
    return [replace(p, first=renamed[id(p.first)], second=renamed[id(p.second)]) for p in preferences]
