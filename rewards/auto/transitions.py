"""Transitions that programs are tried on: of recorded episodes, shipped ones among them, and of files of JSON lines.

The shipped play is under ``data``: eighteen episodes, 1717 transitions, six endings in success and five in death, of
nine tasks of MiniHack and of whole games of NetHack, cut at 40 to 400 steps. The uniformly random policy played it, in
games with the seeds of ``TrainingSeeds(0, 0, 4)``; ``envs.recording.make_recorded`` recorded it, and it is kept without
screens. Of some thousand episodes those were chosen in which the most fields of the schema change (a descent, hunger,
blindness, items put on), and successes and deaths, which are rare in random play.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from envs.features import COLUMNS, rollout_columns
from envs.recording import EpisodeRecord
from rewards.auto.program import Program

MAX_FILE_BYTES = 512 << 20
"""Of a file of transitions; a device has no end."""

MAX_TEXT = 4096
"""Characters of a text in a file of transitions; the schema's are far shorter."""

_INT64 = np.iinfo(np.int64)
_DTYPES: Mapping[str, type] = {"int": np.int64, "bool": np.bool_, "str": np.str_}


def transitions_of(episodes: Sequence[EpisodeRecord], columns: Sequence[str]) -> tuple[dict[str, np.ndarray], int]:
    """The steps of episodes, one after the other, as columns.

    Args:
        episodes: recorded play.
        columns: qualified names; those that follow from how the steps ended are worked out.

    Returns:
        ``{column: [N]}``, and N.

    Raises:
        ValueError: a name is unknown, or a record does not hold it.
    """
    found = [rollout_columns(record.as_rollout(), columns) for record in episodes]
    none = {name: np.zeros(0, _DTYPES[COLUMNS[name].dtype]) for name in columns if not found}
    return (
        none or {name: np.concatenate([one[name][:, 0] for one in found]) for name in columns},
        sum(record.num_steps for record in episodes),
    )


@cache
def builtin_transitions() -> tuple[EpisodeRecord, ...]:
    """The shipped episodes, in the order of their files' names; read once in a process."""
    with as_file(files("rewards.auto") / "data") as folder:
        return tuple(EpisodeRecord.load(path) for path in sorted(folder.glob("*.npz")))


# ---- files of JSON lines


@dataclass(frozen=True, kw_only=True)
class TransitionRows:
    """Lines of a file that hold the same fields, of those that a program may read."""

    program: Program
    """The program, which is given these fields and no others: it fails where it reads what the lines lack."""
    columns: Mapping[str, np.ndarray]
    """``{column: [M]}`` of what the lines hold."""
    rows: np.ndarray
    """int64 [M]: which lines these are, from 0 on."""
    lacks: Sequence[str]
    """Columns that the program may read and the lines do not hold."""


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """The lines of a file, as far as a program may read them."""

    num: int
    """Lines."""
    parts: Sequence[TransitionRows]
    """Together all the lines, in the order of the first of each."""


def read_transitions(path: Path, program: Program) -> Transitions:
    """Transitions from a file: a line is an object with ``obs``, ``prev_obs``, ``action`` and ``info``.

    Fields that the program does not read are not looked at. A whole number may be written as a float (``3.0``), and
    true and false as 1 and 0. A line need not hold all that the program may read: ``obs.get('gold', 0)`` is then 0, and
    null in place of a group of fields is a group that holds none. Blank lines at the end are passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is too large, a line is not JSON by the letter (also: a key twice, NaN), not an object, or
            a field that the program reads is not what the schema says; one sentence names the line and the field.
    """
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} holds more than {MAX_FILE_BYTES >> 20} MB")
    lines = content.rstrip().split(b"\n") if content.strip() else []
    rows_of: dict[tuple[str, ...], list[int]] = {}
    values: dict[str, dict[int, Any]] = {name: {} for name in program.needed_columns}
    for row, line in enumerate(lines):
        place = f"{path}, line {row + 1}"
        flat = _flat(_parsed(line, place), place)
        held = tuple(name for name in values if name in flat)
        for name in held:
            values[name][row] = _CHECKS[COLUMNS[name].dtype](flat[name], f"{place}: {name}")
        rows_of.setdefault(held, []).append(row)
    return Transitions(num=len(lines), parts=[_part(program, *same, values) for same in rows_of.items()])


def _part(
    program: Program, held: tuple[str, ...], rows: Sequence[int], values: Mapping[str, Mapping[int, Any]]
) -> TransitionRows:
    return TransitionRows(
        program=replace(program, columns=held, open_groups=frozenset()),
        columns={name: np.array([values[name][row] for row in rows], _DTYPES[COLUMNS[name].dtype]) for name in held},
        rows=np.array(rows, np.int64),
        lacks=[name for name in values if name not in held],
    )


def _parsed(line: bytes, place: str) -> dict[str, Any]:
    try:
        found = json.loads(line.decode(), object_pairs_hook=_once_each, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{place} is not a JSON object")
    return found


def _once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(n for n in names if names.count(n) > 1)}' stands twice")
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _flat(line: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Qualified names to values.

    Raises:
        ValueError: a group of fields is not an object.
    """
    flat: dict[str, Any] = {"action": line["action"]} if "action" in line else {}
    for group in ("obs", "prev_obs", "info"):
        fields = {} if line.get(group) is None else line[group]
        if not isinstance(fields, dict):
            raise ValueError(f"{place}: {group} is not a JSON object")
        flat |= {f"{group}.{name}": value for name, value in fields.items()}
    return flat


def _whole(value: Any, place: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{place} is {_shown(value)}, not a whole number")
    if not _INT64.min <= value <= _INT64.max:
        raise ValueError(f"{place} is beyond 64 bits")
    return value


def _truth(value: Any, place: str) -> bool:
    if value not in (True, False):
        raise ValueError(f"{place} is {_shown(value)}, not true or false")
    return bool(value)


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place} is {_shown(value)}, not a text")
    if len(value) > MAX_TEXT:
        raise ValueError(f"{place} has {len(value):,} characters, more than {MAX_TEXT:,}")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{place} holds a character that no text has (NUL, or half of a pair)")
    return value


_CHECKS = {"int": _whole, "bool": _truth, "str": _text}


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
