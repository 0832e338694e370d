"""Reward programs over recorded play: its steps as columns, what programs answer for them, and what they pay.

Play comes as recorded episodes, shipped ones among them, or as files of JSON lines.

The shipped play is under ``data``: eighteen episodes, 1717 transitions, six endings in success and five in death, of
nine tasks of MiniHack and of whole games of NetHack, cut at 40 to 400 steps. The uniformly random policy played it, in
games with the seeds of ``TrainingSeeds(0, 0, 4)``; ``envs.recording.make_recorded`` recorded it, and it is kept without
screens. Of some thousand episodes those were chosen in which the most fields of the schema change (a descent, hunger,
blindness, items put on), and successes and deaths, which are rare in random play.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from envs.features import COLUMNS, rollout_columns
from envs.recording import EpisodeRecord
from rewards.auto.composition import Composer, Steps
from rewards.auto.config import CompositionConfig
from rewards.auto.program import Program
from rewards.auto.sandbox.contained import NonDeterministicError, Runner, Values, batches, part_of, run_in_batches
from rewards.auto.sandbox.engine import EngineError

MAX_FILE_BYTES = 512 << 20
"""Of a file of transitions; a device has no end."""

MAX_TEXT = 4096
"""Characters of a text in a file of transitions; the schema's are far shorter."""

_INT64 = np.iinfo(np.int64)
_DTYPES: Mapping[str, type] = {"int": np.int64, "bool": np.bool_, "str": np.str_}

_SIDE_BY_SIDE = 32
"""Episodes composed together: padded to the longest, they take memory."""

_ALIKE = 3
"""Failures of batches of one size after which no others of that size are tried; one less while none has answered."""
_LEAP = 8
"""How much smaller batches become at once while none has answered: it may be every row that takes too long."""


# ---- recorded episodes


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


# ---- what a program answers, and what it pays


def values_of(runner: Runner, program: Program, episodes: Sequence[EpisodeRecord]) -> Values:
    """What a program says of the N steps of episodes, one after the other.

    Raises:
        EngineError: the program has no answer for a batch.
        ValueError: an episode does not hold what the program reads.
    """
    columns, num = transitions_of(episodes, program.needed_columns)
    return run_in_batches(runner, columns, num)


def values_by_episode(values: Values, episodes: Sequence[EpisodeRecord]) -> list[dict[str, np.ndarray]]:
    """The same for each episode: ``{component: float64 [T]}``, nan where the program has no answer."""
    ends = np.cumsum([record.num_steps for record in episodes])[:-1]
    answered = {name: np.where(values.valid, value, np.nan) for name, value in values.components.items()}
    pieces = {name: np.split(value, ends) for name, value in answered.items()}
    return [{name: parts[i] for name, parts in pieces.items()} for i in range(len(episodes))]


@dataclass(frozen=True, eq=False)
class EpisodePay:
    """What one episode of T steps is paid."""

    reward: np.ndarray
    """float64 [T]; 0 where invalid."""
    valid: np.ndarray
    """bool [T]: the program has an answer."""

    def discounted(self, gamma: float) -> float:
        """The discounted return from the first step on; what is invalid pays nothing."""
        return float(self.reward @ gamma ** np.arange(len(self.reward)))

    @property
    def per_step(self) -> float:
        """Mean over the valid steps; nan where there is none."""
        return float(self.reward.sum() / self.valid.sum()) if self.valid.any() else float("nan")


def pay_of(
    values: Values, program: Program, episodes: Sequence[EpisodeRecord], composition: CompositionConfig, gamma: float
) -> list[EpisodePay]:
    """What each episode is paid, in order, composed as in training.

    Args:
        values: what the program says of these episodes (``values_of``).
        program: it says what kind each component is of.
        episodes: recorded play.
        composition: how components are composed.
        gamma: the learner's discount.
    """
    composer = Composer(composition, tuple(program.components), gamma=gamma)
    ends = np.cumsum([0, *(episode.num_steps for episode in episodes)])
    found: list[EpisodePay] = []
    for first in range(0, len(episodes), _SIDE_BY_SIDE):
        some = episodes[first : first + _SIDE_BY_SIDE]
        places = [np.arange(ends[first + i], ends[first + i + 1]) for i in range(len(some))]
        found += _composed(composer, program, values, some, places)
    return found


def _composed(
    composer: Composer,
    program: Program,
    values: Values,
    episodes: Sequence[EpisodeRecord],
    places: Sequence[np.ndarray],
) -> list[EpisodePay]:
    """Episodes side by side; where one has ended, steps are invalid."""

    def padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
        table = np.zeros((max(map(len, arrays)), len(arrays)), arrays[0].dtype)
        for b, array in enumerate(arrays):
            table[: len(array), b] = array
        return table

    steps = Steps(
        valid=padded([values.valid[at] for at in places]),
        terminated=padded([episode.terminated for episode in episodes]),
        truncated=padded([episode.truncated for episode in episodes]),
    )
    given = {name: padded([value[at] for at in places]) for name, value in values.components.items()}
    composed, _ = composer.compose(given, program.components, steps, composer.initial_state(len(episodes)))
    return [EpisodePay(composed.total[: len(at), b], values.valid[at]) for b, at in enumerate(places)]


# ---- answers for as many rows as can be had: a limit is put on batches, and one bad row can use all of it


@dataclass
class _PartialValues:
    """What is known of N rows so far."""

    num: int
    components: dict[str, np.ndarray] = field(default_factory=dict)
    lacking: dict[str, np.ndarray] = field(default_factory=dict)
    why: dict[int, str] = field(default_factory=dict)

    def take(self, rows: range, values: Values) -> None:
        for name, value in values.components.items():
            self.components.setdefault(name, np.zeros(self.num))[rows.start : rows.stop] = value
            self.lacking.setdefault(name, np.ones(self.num, bool))[rows.start : rows.stop] = values.lacks(name)
        self.why |= {rows.start + row: why for row, why in values.why.items()}

    def refuse(self, rows: range, why: str) -> None:
        self.why |= dict.fromkeys(rows, why)

    def values(self) -> Values:
        valid = np.ones(self.num, bool)
        valid[list(self.why)] = False
        return Values(components=self.components, valid=valid, why=self.why, lacking=self.lacking)


def run_isolating_failures(
    runner: Runner,
    columns: Mapping[str, np.ndarray],
    num: int,
    *,
    retry_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Values:
    """Run a program on rows; a batch without an answer is halved until single rows are left to blame.

    Large batches come first, so that what can be answered soon is. A program that is no function of its inputs gets no
    row answered, whatever it said before.

    Args:
        runner: where it runs; it must survive an ``EngineError``.
        columns: ``{qualified column: [N]}``.
        num: N.
        retry_s: seconds for batches that fail, and for the parts of them; what is left then has no answer.
        clock: seconds, never going back.
    """
    found, failures, cap = _PartialValues(num), Counter[int](), num
    left = deque((rows, False) for rows in batches(num))
    why, spent = "", 0.0
    while left:
        rows, is_retry = left.popleft()
        if spent >= retry_s:
            found.refuse(rows, why)
        elif len(rows) > cap:
            left.extend((half, True) for half in _halves(rows))
        else:
            began = clock()
            try:
                found.take(rows, runner.evaluate(part_of(columns, rows), len(rows)))
            except NonDeterministicError as error:
                found.refuse(range(num), _reason(error))
                break
            except EngineError as error:
                is_retry, why = True, _reason(error)
                failures[len(rows)] += 1
                cap = min(cap, _cap(len(rows), failures[len(rows)], answered=bool(found.components)))
                if len(rows) == 1:
                    found.refuse(rows, why)
                left.extend((half, True) for half in _halves(rows))
            spent += (clock() - began) * is_retry
    return found.values()


def _cap(size: int, failures: int, *, answered: bool) -> int:
    """Rows of the batches that are tried from now on, given failures of batches of one size."""
    if failures < (_ALIKE if answered else _ALIKE - 1):
        return size
    return max(1, size // (2 if answered else _LEAP))


def _halves(rows: range) -> list[range]:
    """Two halves; none of a single row."""
    middle = rows.start + len(rows) // 2
    return [range(rows.start, middle), range(middle, rows.stop)] if len(rows) > 1 else []


def _reason(error: EngineError) -> str:
    return f"{error.code}: {error}"


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
