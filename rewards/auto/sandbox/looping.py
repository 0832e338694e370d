"""The loop over transitions that is run beside a program, in whatever interprets it, and how its answer is read.

The loop's source is Python as Monty understands it. All its names begin and end with two underscores, which no
program may use, so a program cannot put anything in their place. It gives back a tuple of four: values by row, names of
components, values by component, reasons of failures by row; it has values by row, or names and values by component.

Columns cross as few bytes, which are also fast to loop over: a number from 0 to 255 is a byte of its own; where a
column has at most 256 different values, bytes say which of a short table each is; any other column is a list. Measured
with 13 columns of 2,048 rows into Monty: lists cost 2.1 microseconds a row, JSON 3.1 with the work on both sides, bytes
0.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rewards.auto.language.names import MAX_COMPONENT_NAME, is_component_name
from rewards.auto.program import MAX_COMPONENTS, NUMBER_COMPONENT
from rewards.auto.sandbox.engine import Answer, MalformedAnswerError
from rewards.auto.sandbox.rewriting import FUNCTION, Plan

MAX_REASON = 200
"""Characters of a row's failure."""

MAX_ROWS = 4096
"""Transitions that one loop is given."""

_CELLS = 120_000
"""Values that one loop is given, so that what it is given stays small beside the memory that a program has."""

_NUMBERS = frozenset({float, int, bool})
_HANDED_ON = frozenset({float, int, bool, str})
"""Types of values that may stand for a row; the host's checks refuse texts."""

_TABLE = 256
"""Different values that a byte can tell apart."""

_KEPT = ("zip", "iter", "range", "len", "list", "set", "dict", "type", "str")

PRELUDE = "".join(f"__{name}__ = {name}\n" for name in _KEPT)
"""To be run before the program's source: what the loop uses must not be what a program calls by the same name."""

_LOOP = """
def __why__(__error__):
    try:
        return (__type__(__error__).__name__ + ': ' + __str__(__error__))[:{max_reason}]
    except Exception:
        return __type__(__error__).__name__

def __loop__():
    __values__ = []
    __failures__ = {{}}
    __rows__ = __iter__({rows})
    while True:
        try:
            for {row} in __rows__:
                __values__.append({function}({arguments}))
            break
        except MemoryError:
            raise
        except BaseException as __error__:
            __failures__[__len__(__values__)] = __why__(__error__)
            __values__.append(None)
    return __values__, __failures__

def __by_component__(__values__):
    __names__ = __list__(__values__[0])
    if __len__(__names__) > {max_components} or [0 for __n__ in __names__ if __type__(__n__) is not __str__]:
        return None, None
    if __len__(__set__([__len__(__v__) for __v__ in __values__])) != 1:
        return None, None
    return __names__, [[__v__[__n__] for __v__ in __values__] for __n__ in __names__]

def __main__():
    __values__, __failures__ = __loop__()
    if __type__(__values__[0]) is __dict__:
        try:
            __names__, __columns__ = __by_component__(__values__)
            if __names__ is not None:
                return None, __names__, __columns__, __failures__
        except (TypeError, KeyError, IndexError):
            pass
    return __values__, None, None, __failures__
"""

CALL = "__main__()"
"""What the loop is started by."""


@dataclass(frozen=True)
class Loop:
    """One round of a program over transitions."""

    source: str
    """To be run beside the program's; ``CALL`` then gives the answer."""
    inputs: Mapping[str, Any]
    """Global names that it needs: bytes and lists."""
    num: int
    """Transitions."""


def loop_of(plan: Plan, columns: Mapping[str, np.ndarray], num: int) -> Loop:
    """The loop over all rows of some columns; ``num`` is at least 1."""
    inputs: dict[str, Any] = {}
    cells = {}
    for number, name in enumerate(plan.columns):
        encoded = encode(columns[name])
        inputs[f"__codes_{number}__"] = encoded.codes
        cells[name] = f"__cell_{number}__"
        if encoded.table is not None:
            inputs[f"__table_{number}__"] = encoded.table
            cells[name] = f"__table_{number}__[{cells[name]}]"
    source = _LOOP.format(
        max_reason=MAX_REASON,
        max_components=MAX_COMPONENTS,
        function=FUNCTION,
        arguments=", ".join(parameter.written(cells) for parameter in plan.parameters),
        row="(" + "".join(f"__cell_{n}__, " for n in range(len(cells))) + ")" if cells else "__cell__",
        rows="__zip__(" + ", ".join(f"__codes_{n}__" for n in range(len(cells))) + ")"
        if cells
        else f"__range__({num})",
    )
    return Loop(source=source, inputs=inputs, num=num)


def loops_of(plan: Plan, columns: Mapping[str, np.ndarray], num: int) -> Iterator[Loop]:
    """Loops over pieces of the rows, one after the other."""
    most = max(64, min(MAX_ROWS, _CELLS // max(1, len(plan.columns))))
    for start in range(0, num, most):
        piece = {name: columns[name][start : start + most] for name in plan.columns}
        yield loop_of(plan, piece, min(most, num - start))


def answer_of(came: Any, num: int) -> Answer:
    """Read what a loop over ``num`` rows gave back.

    Raises:
        MalformedAnswerError: it has not the loop's form.
    """
    if type(came) is not tuple or len(came) != 4:
        raise MalformedAnswerError("what came back is not the loop's answer")
    values, names, by_name, failures = came
    if type(failures) is not dict or not all(
        type(row) is int and 0 <= row < num and type(why) is str for row, why in failures.items()
    ):
        raise MalformedAnswerError("what came back says of no row why it failed")
    if type(values) is list and len(values) == num:
        return _by_row(values, failures)
    if not _is_table(names, by_name, num):
        raise MalformedAnswerError(f"what came back does not hold {num} rows")
    if _odd(names) or any(None in column for column in by_name):
        return _by_row([dict(zip(names, row, strict=True)) for row in zip(*by_name, strict=True)], failures)
    return Answer(components=dict(zip(names, by_name, strict=True)), failures=failures)


def _is_table(names: Any, columns: Any, num: int) -> bool:
    lists = type(names) is list and type(columns) is list
    if not lists or len(names) != len(columns) or len(names) > MAX_COMPONENTS or len(set(map(str, names))) < len(names):
        return False
    return all(type(name) is str for name in names) and all(type(c) is list and len(c) == num for c in columns)


def _by_row(values: Sequence[Any], failures: Mapping[int, str]) -> Answer:
    """The answer of rows that are numbers, or dictionaries, or anything."""
    if _NUMBERS.issuperset(map(type, values)):
        return Answer(components={NUMBER_COMPONENT: values}, failures=failures)
    components: dict[str, list[Any]] = {}
    found = dict(failures)
    for row, value in enumerate(values):
        if row not in found:
            own, problem = _components_of(value)
            if not problem and len(components.keys() | own.keys()) > MAX_COMPONENTS:
                problem = f"returned more than {MAX_COMPONENTS} different components"
            if problem:
                found[row] = problem
                continue
            for name, cell in own.items():
                components.setdefault(name, [None] * len(values))[row] = cell
    return Answer(components=components, failures=found)


def _components_of(value: Any) -> tuple[dict[str, Any], str]:
    """Components of one row, or why there are none."""
    if type(value) in _HANDED_ON:
        return {NUMBER_COMPONENT: value}, ""
    if type(value) is not dict:
        return {}, "returned None" if value is None else f"returned a {type(value).__name__}"[:MAX_REASON]
    without = next((name for name in value if value[name] is None), None)
    problem = _odd(value) or (f"component '{without}' is None, not a number" if without is not None else "")
    return ({}, problem[:MAX_REASON]) if problem else (value, "")


def _odd(names: Iterable[Any]) -> str:
    """What is wrong with names of components; empty where nothing is."""
    for name in names:
        if type(name) is not str:
            return f"returned a dictionary with a {type(name).__name__} for a component's name"
        if not is_component_name(name):
            return f"a component is called {ascii(name)[:MAX_COMPONENT_NAME]}: its name may hold letters, digits and _"
    return ""


def answered(plan: Plan, columns: Mapping[str, np.ndarray], num: int, ask: Callable[[Loop], Any]) -> Answer:
    """The answer for all rows, loop by loop.

    Args:
        plan: of the program that is loaded.
        columns: ``{qualified column: [N]}``.
        num: N.
        ask: runs a loop where programs run, and gives what came back.

    Raises:
        EngineError: ``ask`` says so, or what came back cannot be read.
    """
    answers, sizes = [], []
    for loop in loops_of(plan, columns, num):
        answers.append(answer_of(ask(loop), loop.num))
        sizes.append(loop.num)
    return join(answers, sizes) if answers else Answer(components={}, failures={})


def join(answers: Sequence[Answer], sizes: Sequence[int]) -> Answer:
    """The answer for the rows of all pieces, given how many rows each has."""
    if len(answers) == 1:
        return answers[0]
    names = dict.fromkeys(name for answer in answers for name in answer.components)
    components = {
        name: [
            cell
            for answer, size in zip(answers, sizes, strict=True)
            for cell in answer.components.get(name, [None] * size)
        ]
        for name in names
    }
    starts = np.cumsum([0, *sizes]).tolist()
    failures = {
        start + row: why for answer, start in zip(answers, starts, strict=False) for row, why in answer.failures.items()
    }
    return Answer(components=components, failures=failures)


# ---- columns as bytes


@dataclass(frozen=True)
class Encoded:
    """One column of N values."""

    codes: bytes | list[Any]
    """N: the values themselves, or their places in ``table``."""
    table: list[Any] | None = None


def encode(column: np.ndarray) -> Encoded:
    """A column [N] of integers, booleans, texts or floats."""
    if column.dtype.kind == "b":
        return Encoded(column.astype(np.uint8).tobytes(), [False, True])
    if column.dtype.kind in "iu" and len(column):
        return _integers(column)
    return _others(column.tolist()) if column.dtype.kind == "U" else Encoded(column.tolist())


def _integers(column: np.ndarray) -> Encoded:
    low, high = int(column.min()), int(column.max())
    if low >= 0 and high < _TABLE:
        return Encoded(column.astype(np.uint8).tobytes())
    if high - low < _TABLE:
        return Encoded((column - low).astype(np.uint8).tobytes(), list(range(low, high + 1)))
    return _others(column.tolist())


def _others(values: list[Any]) -> Encoded:
    place_of: dict[Any, int] = {}
    for value in values:
        if value not in place_of:
            if len(place_of) == _TABLE:
                return Encoded(values)
            place_of[value] = len(place_of)
    return Encoded(bytes(map(place_of.__getitem__, values)), list(place_of))
