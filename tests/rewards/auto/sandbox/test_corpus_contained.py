"""What containment makes of the corpus: programs that are admitted, on shipped play.

The trusted half of it, the benign programs, is run by this very interpreter too, and nothing else is.
"""

import math
import struct
import time
from functools import cache

import numpy as np
import pytest

from envs.schema import COLUMNS
from rewards.auto.config import ContainmentConfig
from rewards.auto.episodes import builtin_transitions, transitions_of
from rewards.auto.language.admission import admit
from rewards.auto.program import NUMBER_COMPONENT
from rewards.auto.sandbox.contained import ContainedProgram
from rewards.auto.sandbox.engine import EngineError
from rewards.auto.sandbox.monty import build_engine
from tests.rewards.auto.corpus import HEAD, cases

EVERY = 6
"""Of the shipped transitions every sixth is tried: 287."""
STOPPED = {"timeout", "memory", "died"}
GOOD = HEAD + "    return obs['hp'] - prev_obs['hp'] + 0.5\n"
MOST_S = 10.0
"""Until a program is stopped, on a machine that has other things to do."""


def hired(**limits):
    config = ContainmentConfig(**limits)
    return config, build_engine(config)


@pytest.fixture(scope="module")
def roomy():
    config, engine = hired(batch_s=10.0)
    yield config, engine
    engine.close()


@pytest.fixture(scope="module")
def strict():
    config, engine = hired(batch_s=0.2, memory_mb=64)
    yield config, engine
    engine.close()


def named(*expected):
    some = cases(*expected)
    return pytest.mark.parametrize("case", some, ids=[case.name for case in some])


@cache
def play():
    """Every column of the schema, of some shipped transitions."""
    columns, _ = transitions_of(builtin_transitions(), tuple(COLUMNS))
    return {name: column[::EVERY] for name, column in columns.items()}


def rows(num):
    columns = {name: column[:num].copy() for name, column in play().items()}
    return columns, len(columns["action"])


def plainly(program, columns, num):
    """What this interpreter gives for each row: components, or None where it raises."""
    names = {"math": math}
    exec(program.source, names)
    for row in range(num):
        groups = {"obs": {}, "prev_obs": {}, "info": {}}
        for name in program.needed_columns:
            group, _, field = name.rpartition(".")
            groups.get(group, {})[field] = columns[name][row].item()
        try:
            value = names["reward"](groups["obs"], groups["prev_obs"], columns["action"][row].item(), groups["info"])
        except (ArithmeticError, LookupError, ValueError, TypeError):
            yield None
        else:
            yield value if isinstance(value, dict) else {NUMBER_COMPONENT: value}


def bits(value):
    return struct.pack("d", float(value))


def bytes_of(columns):
    return {name: column.tobytes() for name, column in columns.items()}


@named("benign")
def test_benign_programs_give_what_a_plain_interpreter_gives(roomy, case):
    config, engine = roomy
    program = admit(case.source)
    columns, num = rows(None)
    assert num == 287
    values = ContainedProgram(program, config, engine).evaluate(columns, num)
    for row, expected in enumerate(plainly(program, columns, num)):
        assert values.valid[row] == (expected is not None), values.why.get(row)
        for name, column in values.components.items():
            assert bits(column[row]) == bits((expected or {}).get(name, 0.0)), (row, name)
        assert set(expected or {}) <= set(values.components)


@named("timeout")
def test_greedy_programs_are_stopped(strict, case):
    config, engine = strict
    columns, num = rows(16)
    before, began = bytes_of(columns), time.monotonic()
    try:
        values = ContainedProgram(admit(case.source), config, engine).evaluate(columns, num)
        assert not values.valid.any()
    except EngineError as error:
        assert error.code in STOPPED, str(error)
    assert time.monotonic() - began < MOST_S
    assert bytes_of(columns) == before
    good = ContainedProgram(admit(GOOD), config, engine).evaluate(columns, num)
    assert good.valid.all()
    np.testing.assert_array_equal(good.components["reward"], columns["obs.hp"] - columns["prev_obs.hp"] + 0.5)


def outcome(program, config, engine, columns, num):
    """Everything that comes out, as it can be compared; checked on the way."""
    try:
        values = ContainedProgram(program, config, engine).evaluate(columns, num)
    except EngineError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
        return error.code
    assert values.valid.shape == (num,) and values.valid.dtype == bool
    assert set(values.why) == set(np.flatnonzero(~values.valid).tolist())
    for name, column in values.components.items():
        assert name.isidentifier() and column.shape == (num,) and column.dtype == np.float64
        assert np.isfinite(column).all() and (np.abs(column) <= config.max_value).all()
        assert not column[~values.valid].any()
    assert all(why.isprintable() and len(why) <= 300 for why in values.why.values())
    return bytes_of(values.components), values.valid.tobytes()


@named("contained")
def test_odd_programs_do_no_harm(roomy, case):
    config, engine = roomy
    program = admit(case.source)
    columns, num = rows(32)
    before = bytes_of(columns)
    first = outcome(program, config, engine, columns, num)
    assert bytes_of(columns) == before
    assert outcome(program, config, engine, columns, num) == first
