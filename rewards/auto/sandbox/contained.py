"""What a reward program answers, checked by the host: the last line of containment.

Whatever comes out of an engine is untrusted. Here it becomes numbers that are finite and bounded, or no answer with a
reason; and equal inputs must have had equal answers, bit for bit.
"""

from __future__ import annotations

import math
import operator
import zlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Protocol

import numpy as np

from envs.protocols import State
from rewards.auto.config import ContainmentConfig
from rewards.auto.language.names import MAX_COMPONENT_NAME, is_component_name
from rewards.auto.program import MAX_COMPONENTS, Program
from rewards.auto.sandbox.engine import (
    Answer,
    Engine,
    EngineError,
    MalformedAnswerError,
    ProgramTimeoutError,
    WorkerDiedError,
)

NUM_REPEATED = 8
"""Rows of each batch that are asked for twice."""

MAX_REASON = 200
"""Characters of a reason that a program gives."""

BATCH = 2048
"""Transitions sent together at most: what ``ContainmentConfig.batch_s`` is for."""

_FORGIVEN = (WorkerDiedError, ProgramTimeoutError)
"""What may be the machine's doing: somebody else ended the process, or it was suspended or overloaded."""

MIN_ROWS = 500
"""Rows before which a share says nothing, unless the window is shorter."""

_SAMPLE = 256
"""Rows in which none comes twice before equal rows are not looked for: that costs about a tenth of running them."""

_PLAIN = frozenset({int, float, bool, type(None)})
_COMPARED = _PLAIN | {str}
_is_none = partial(operator.is_, None)


class NonDeterministicError(EngineError):
    """Equal inputs had different answers."""

    code = "nondeterministic"


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """What a program says of N transitions, after the host's checks."""

    components: Mapping[str, np.ndarray]
    """float64 [N] of each component, finite; 0 where a row lacks it or has no answer."""
    valid: np.ndarray
    """bool [N]; False where the program has no answer."""
    why: Mapping[int, str] = field(default_factory=dict)
    """Of the rows without an answer: one clause."""
    lacking: Mapping[str, np.ndarray] = field(default_factory=dict)
    """bool [N] of components that only some rows have: True where one has not."""

    def lacks(self, name: str) -> np.ndarray:
        """Bool [N]: rows that do not have a component."""
        if name in self.lacking:
            return self.lacking[name]
        return np.full(len(self.valid), name not in self.components)


class ContainedProgram:
    """A program in its engine, and the checks of what it answers.

    The engine gets copies, so that nothing a program does reaches the columns that the learner sees. ``NUM_REPEATED``
    rows, chosen by the batch's content, are sent a second time at its end and backwards: a program that answers them
    differently is no pure function of its inputs.

    Args:
        program: it is loaded when it is first needed.
        config: bound of its values, and what an engine is built from.
        engine: None = ``rewards.auto.sandbox.monty.build_engine(config)``.
        distinct: where rows of the columns that are read come again and again, send each only once and spread its
            answer. The repeated rows are sent all the same.
    """

    def __init__(
        self, program: Program, config: ContainmentConfig, engine: Engine | None = None, *, distinct: bool = True
    ) -> None:
        self.program = program
        self.engine: Engine = _built(config) if engine is None else engine
        self._max_value = config.max_value
        self._distinct = distinct
        self._loaded = False

    def evaluate(self, columns: Mapping[str, np.ndarray], num: int) -> Values:
        """Run the program on transitions.

        Args:
            columns: ``{qualified column: [N]}``, at least all that the program reads; never written to.
            num: N.

        Raises:
            EngineError: there is no answer for the whole batch; ``NonDeterministicError`` and
                ``MalformedAnswerError`` come from the checks made here.
        """
        if num == 0:
            return Values(components={}, valid=np.ones(0, bool))
        read = {name: columns[name] for name in self.program.needed_columns}
        rows, spread = self._rows(read, num)
        again = _repeated(read.values(), rows)
        answer = self._ask(read, np.concatenate([rows, rows[again]]))
        _compare(answer, len(rows), again)
        return _spread(_checked(answer, len(rows), self._max_value), spread)

    def _rows(self, columns: Mapping[str, np.ndarray], num: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows that are sent, int64 [M], and for each of the N rows its place among them."""
        if self._distinct and _repeats_itself([column[:_SAMPLE] for column in columns.values()]):
            return _distinct_rows(columns.values(), num)
        return np.arange(num), np.arange(num)

    def _ask(self, columns: Mapping[str, np.ndarray], rows: np.ndarray) -> _Cells:
        sent = {name: column[rows] for name, column in columns.items()}
        for column in sent.values():
            column.flags.writeable = False
        try:
            if not self._loaded:
                self.engine.load(self.program)
                self._loaded = True
            answer = self.engine.evaluate(sent, len(rows))
        except EngineError:
            self._loaded = False
            raise
        return _read(answer, len(rows))

    def close(self) -> None:
        """End the engine; harmless when done twice."""
        self.engine.close()


def _built(config: ContainmentConfig) -> Engine:
    from rewards.auto.sandbox.monty import build_engine  # here, so that checks need no engine installed

    return build_engine(config)


# ---- which rows are sent


def _repeats_itself(columns: Sequence[np.ndarray]) -> bool:
    """Whether some rows are equal."""
    return not columns or len(set(zip(*(column.tolist() for column in columns), strict=True))) < len(columns[0])


def _distinct_rows(columns: Iterable[np.ndarray], num: int) -> tuple[np.ndarray, np.ndarray]:
    """One row for each different content, int64 [M], and for each of the N rows its place among them."""
    cells = [column.tolist() for column in columns]
    keys = list(zip(*cells, strict=True)) if cells else [()] * num
    row_of = dict(zip(keys, range(num), strict=True))
    place_of = dict(zip(row_of, count()))  # not strict: count has no end
    rows = np.fromiter(row_of.values(), np.int64, len(row_of))
    return rows, np.fromiter(map(place_of.__getitem__, keys), np.int64, num)


def _repeated(columns: Iterable[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Places among ``rows`` that are asked for again, the last first; they follow from the numbers in the batch."""
    content = len(rows)
    for column in columns:
        if column.dtype.kind != "U":
            content = zlib.crc32(column.tobytes(), content)
    chosen = np.random.default_rng(content).choice(len(rows), min(NUM_REPEATED, len(rows)), replace=False)
    return np.sort(chosen)[::-1]


# ---- reading what came


@dataclass(frozen=True, eq=False)
class _Cells:
    """A copy of an answer whose outer shape is certain."""

    components: Mapping[str, list[Any]]
    failures: Mapping[int, str]


def _read(answer: Answer, num: int) -> _Cells:
    """A copy of an answer of ``num`` rows.

    Raises:
        MalformedAnswerError: a name, a number of rows or the whole is not what it should be.
    """
    components, failures = dict(answer.components), dict(answer.failures)
    if len(components) > MAX_COMPONENTS:
        raise MalformedAnswerError(f"it answers with {len(components)} components; at most {MAX_COMPONENTS} may be")
    copies: dict[str, list[Any]] = {}
    for name, values in components.items():
        if type(name) is not str or not is_component_name(name):
            raise MalformedAnswerError(
                f"a component is called {ascii(name)[:MAX_COMPONENT_NAME]}, which is no plain name"
            )
        copies[name] = values.tolist() if isinstance(values, np.ndarray) else list(values)
        if isinstance(values, str | bytes) or len(copies[name]) != num:
            raise MalformedAnswerError(f"component '{name}' does not have one entry for each of {num} rows")
    if not all(type(row) is int and 0 <= row < num and type(why) is str for row, why in failures.items()):
        raise MalformedAnswerError("a failure is of no row of the batch, or has no reason")
    shown = {why: printable(why) for why in set(failures.values())}
    return _Cells(copies, {row: shown[why] for row, why in failures.items()})


def printable(text: str) -> str:
    """At most ``MAX_REASON`` characters of a text, with escapes for what a terminal would not show as it is."""
    cut = text[:MAX_REASON]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def _compare(cells: _Cells, num: int, again: np.ndarray) -> None:
    """Hold the rows from ``num`` on against those they repeat.

    Raises:
        NonDeterministicError: one differs.
    """
    for second, first in enumerate(again.tolist(), start=num):
        if (first in cells.failures) != (second in cells.failures):
            raise NonDeterministicError("a row had an answer once and none the other time, of the same input")
        for name, values in cells.components.items():
            if not _identical(values[first], values[second]):
                shown = f"{_shown(values[first])} and then {_shown(values[second])}"
                raise NonDeterministicError(f"component '{name}' was {shown}, of the same input")


def _identical(first: Any, second: Any) -> bool:
    """Same type and, where a value or a text is, same bits; all nan are one.

    What holds others is refused by its type: a list in itself sixty times over has 2^60 entries to compare.
    """
    if type(first) is not type(second) or type(first) not in _COMPARED:
        return type(first) is type(second)
    return first.hex() == second.hex() if type(first) is float else first == second


def _shown(cell: Any) -> str:
    """A value for people, however long it is."""
    if type(cell) is int and cell.bit_length() > 64:
        return f"an integer of {cell.bit_length()} bits"
    return repr(cell) if type(cell) in _PLAIN else f"a {type(cell).__name__}"


# ---- numbers


def _checked(cells: _Cells, num: int, limit: float) -> Values:
    """The first ``num`` rows as numbers; rows with anything else have no answer."""
    components: dict[str, np.ndarray] = {}
    why = {row: reason for row, reason in cells.failures.items() if row < num}
    for name, values in cells.components.items():
        components[name], problems = _numbers(name, values[:num], limit)
        why = problems | why
    lacking = {name: _lacking(values[:num]) for name, values in cells.components.items() if None in values}
    valid = np.ones(num, bool)
    valid[list(why)] = False
    for value in components.values():
        value[~valid] = 0.0
    return Values(components=components, valid=valid, why=why, lacking=lacking)


def _lacking(cells: list[Any]) -> np.ndarray:
    return np.fromiter(map(_is_none, cells), bool, len(cells))


def _numbers(name: str, cells: list[Any], limit: float) -> tuple[np.ndarray, dict[int, str]]:
    """float64 [N], and what is wrong with rows that hold no number within the limit; they and None are 0."""
    kinds = set(map(type, cells))
    if not kinds <= _PLAIN:
        return _slow_numbers(name, cells, limit)
    try:
        value = np.array(cells, np.float64)
    except OverflowError:  # an integer beyond any float
        return _slow_numbers(name, cells, limit)
    if type(None) in kinds:
        value[_lacking(cells)] = 0.0
    beyond = np.flatnonzero(~(np.abs(value) <= limit))
    value[beyond] = 0.0
    return value, {row: _problem(name, cells[row], limit) for row in beyond.tolist()}


def _slow_numbers(name: str, cells: list[Any], limit: float) -> tuple[np.ndarray, dict[int, str]]:
    problems = {row: problem for row, cell in enumerate(cells) if (problem := _problem(name, cell, limit))}
    return np.array([0.0 if r in problems or c is None else float(c) for r, c in enumerate(cells)]), problems


def _problem(name: str, cell: Any, limit: float) -> str:
    """Why a value is no answer; empty where it is one."""
    if type(cell) not in _PLAIN:
        return f"component '{name}' is a {type(cell).__name__[:MAX_COMPONENT_NAME]}, not a number"
    if cell is None:
        return ""
    if type(cell) is float and not math.isfinite(cell):
        return f"component '{name}' is {cell}"
    return f"component '{name}': {_shown(cell)} is beyond {limit:g}" if abs(cell) > limit else ""


def _spread(values: Values, places: np.ndarray) -> Values:
    """Each of the N rows gets what was answered at its place."""
    valid = values.valid[places]
    bad = np.flatnonzero(~valid).tolist()
    return Values(
        components={name: value[places] for name, value in values.components.items()},
        valid=valid,
        why={row: values.why[int(places[row])] for row in bad},
        lacking={name: rows[places] for name, rows in values.lacking.items()},
    )


# ---- batches of bounded size, so that batch_s always means the same


class Runner(Protocol):
    """What runs a program: ``ContainedProgram``."""

    def evaluate(self, columns: Mapping[str, np.ndarray], num: int) -> Values:
        """Run it on N transitions.

        Raises:
            EngineError: no answer for the whole.
        """
        ...

    def close(self) -> None:
        """End it."""
        ...


def run_in_batches(runner: Runner, columns: Mapping[str, np.ndarray], num: int) -> Values:
    """Run a program on any number of transitions.

    One batch of them may fail by a death or a timeout and is sent again; the second such failure is the program's.

    Args:
        runner: where it runs; it must survive an ``EngineError``.
        columns: ``{qualified column: [N]}``.
        num: N.

    Raises:
        EngineError: no answer for a batch.
    """
    patient = _Patient(runner)
    rows = batches(num)
    return _joined(rows, [patient.evaluate(part_of(columns, some), len(some)) for some in rows])


def batches(num: int) -> list[range]:
    """Rows 0 to N - 1 in batches."""
    return [range(start, min(start + BATCH, num)) for start in range(0, num, BATCH)]


def part_of(columns: Mapping[str, np.ndarray], rows: range) -> dict[str, np.ndarray]:
    """These rows of columns."""
    return {name: column[rows.start : rows.stop] for name, column in columns.items()}


@dataclass
class _Patient:
    """Sends one batch again."""

    runner: Runner
    has_forgiven: bool = False

    def evaluate(self, columns: Mapping[str, np.ndarray], num: int) -> Values:
        try:
            return self.runner.evaluate(columns, num)
        except _FORGIVEN:
            if self.has_forgiven:
                raise
        self.has_forgiven = True
        return self.runner.evaluate(columns, num)


def _joined(rows: Sequence[range], parts: Sequence[Values]) -> Values:
    """Answers one after the other; a component that one of them lacks is 0 there."""
    names = dict.fromkeys(name for part in parts for name in part.components)
    zeros = [np.zeros(len(part.valid)) for part in parts]
    lacking = {name: np.concatenate([part.lacks(name) for part in parts]) for name in names}
    return Values(
        components={
            name: np.concatenate([part.components.get(name, zero) for part, zero in zip(parts, zeros, strict=True)])
            for name in names
        },
        valid=np.concatenate([np.zeros(0, bool), *(part.valid for part in parts)]),
        why={some.start + row: why for some, part in zip(rows, parts, strict=True) for row, why in part.why.items()},
        lacking={name: rows for name, rows in lacking.items() if rows.any()},
    )


class FailureWatch:
    """Counts transitions without an answer over the newest ``failure_window``.

    It forgets whole batches: what counts are the fewest newest batches that fill the window.

    Args:
        config: length of the window, and the share that is too much.
    """

    def __init__(self, config: ContainmentConfig) -> None:
        self._config = config
        self._batches: deque[tuple[int, int]] = deque()
        self.num_rows = 0
        self.num_failed = 0

    def add(self, num_rows: int, num_failed: int) -> None:
        """Take in a batch."""
        self._batches.append((num_rows, num_failed))
        self.num_rows += num_rows
        self.num_failed += num_failed
        while self.num_rows - self._batches[0][0] >= self._config.failure_window:
            rows, failed = self._batches.popleft()
            self.num_rows -= rows
            self.num_failed -= failed

    @property
    def exceeded(self) -> bool:
        """More failed than may, of enough rows to say so."""
        enough = self.num_rows >= min(self._config.failure_window, MIN_ROWS)
        return enough and self.num_failed > self._config.max_failure_share * self.num_rows

    def state_dict(self) -> State:
        """The batches in the window."""
        return {"batches": [list(batch) for batch in self._batches]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._batches.clear()
        self.num_rows = self.num_failed = 0
        for rows, failed in state["batches"]:
            self.add(int(rows), int(failed))
