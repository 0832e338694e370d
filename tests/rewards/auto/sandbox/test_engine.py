"""What the engine of reward programs must do."""

import math
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs.schema import COLUMNS
from rewards.auto.config import ContainmentConfig
from rewards.auto.language.admission import admit
from rewards.auto.program import Program
from rewards.auto.sandbox import monty
from rewards.auto.sandbox.contained import ContainedProgram
from rewards.auto.sandbox.engine import EngineError, Limits, ProgramMemoryError, ProgramTimeoutError, WorkerDiedError
from rewards.auto.sandbox.jail import IsolationError
from rewards.auto.sandbox.looping import MAX_ROWS
from rewards.auto.sandbox.monty import MontyEngine, build_engine
from rewards.auto.sandbox.rewriting import plan_of
from tests.rewards.auto.written_programs import body, program

needs_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at processes in /proc")


@pytest.fixture(scope="module")
def engine() -> Iterator[MontyEngine]:
    made = MontyEngine(Limits(batch_s=5.0))
    yield made
    made.close()


@pytest.fixture(scope="module")
def strict() -> Iterator[MontyEngine]:
    made = MontyEngine(Limits(batch_s=0.2, memory_mb=16))
    yield made
    made.close()


def rows_of(made: Program, columns: dict[str, np.ndarray], num: int) -> Iterator[tuple]:
    for row in range(num):
        groups: dict[str, dict] = {"obs": {}, "prev_obs": {}, "info": {}}
        for name in made.needed_columns:
            if name != "action":
                group, _, field = name.rpartition(".")
                groups[group][field] = columns[name][row].item()
        action = columns["action"][row].item() if "action" in columns else None
        yield groups["obs"], groups["prev_obs"], action, groups["info"]


def plainly(made: Program, columns: dict[str, np.ndarray], num: int) -> tuple[list, dict[int, str]]:
    """What this very interpreter gives, row by row."""
    names: dict = {"math": math}
    exec(made.source, names)
    values, failures = [], {}
    for row, arguments in enumerate(rows_of(made, columns, num)):
        try:
            values.append(names["reward"](*arguments))
        except (ArithmeticError, AssertionError, LookupError, NameError, ValueError, TypeError) as error:
            values.append(None)
            failures[row] = f"{type(error).__name__}: {error}"
    return values, failures


def bits(value: object) -> object:
    return (type(value), struct.pack("d", value)) if isinstance(value, float) else (type(value), value)


def some_columns(made: Program, num: int, seed: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    texts = np.array(["", "the door opens", "you see a key", "it is N°5 ☃", "WHAMM!"])
    made_of = {
        "int": lambda: rng.integers(-3, 30, num),
        "bool": lambda: rng.random(num) < 0.5,
        "str": lambda: texts[rng.integers(0, len(texts), num)],
    }
    return {name: made_of[COLUMNS[name].dtype]() for name in made.needed_columns}


PROGRAMS = {
    "comparisons": body(
        """
r = 0.0
if obs['hp'] < prev_obs['hp']:
    r -= 0.1
if 'door' in obs['message'] or action == 'kick':
    r += 1 / 3
return r
""",
        "obs.hp",
        "prev_obs.hp",
        "obs.message",
        "action",
    ),
    "helpers and constants": program(
        """
LIMITS = (3, 10, 20)
GOOD = {"the door opens": 2.0, "WHAMM!": -1}

def level(value, bounds):
    for number, bound in enumerate(bounds):
        if value < bound:
            return number
    return len(bounds)

def reward(obs, prev_obs, action, info):
    return level(obs['hp'], LIMITS) * 0.1 + GOOD.get(obs['message'], 0)
""",
        "obs.hp",
        "obs.message",
    ),
    "components": program(
        """
COMPONENTS = {"goal": "sparse"}

def reward(obs, prev_obs, action, info):
    return {
        "goal": 1.0 if info['succeeded'] else -1.0 if info['died'] else 0.0,
        "explore": info['new_tiles_seen'],
        "flag": info['died'],
    }
""",
        "info.succeeded",
        "info.died",
        "info.new_tiles_seen",
    ),
    "maths": body(
        """
x = obs['hp'] + 0.1
low = x * 1e-300 * 1e-20
return math.sqrt(x * x) + math.exp(-x / 7) + abs(x) ** 0.5 - x // 3 % 2 + round(x, 2) + math.floor(x) + low
""",
        "obs.hp",
    ),
    "large integers": body("return (obs['hp'] + 7) ** 40 * 10 ** 30 - obs['gold']", "obs.hp", "obs.gold"),
    "not finite": body(
        "return [math.inf, -math.inf, math.nan, -0.0, 5e-324][obs['hp'] % 5]",
        "obs.hp",
    ),
    "failures": body("return 1 / obs['hp'] if obs['hp'] < 20 else {}[obs['hp']]", "obs.hp"),
    "inner functions": body(
        """
def near(limit):
    return obs['hp'] < limit
worst = min((abs(obs['hp'] - k), k) for k in range(5))
pick = lambda k: k + prev_obs['hp']
return (1 if near(5) else 0) + worst[1] + pick(2) * 0.5
""",
        "obs.hp",
        "prev_obs.hp",
    ),
    "texts": body(
        """
words = obs['message'].split()
return len(words) + ('key' in words) * 0.5 + obs['message'].count('e') + len(f"{obs['message']}!")
""",
        "obs.message",
    ),
    "match": body(
        """
match obs['hunger']:
    case 0 | 1:
        return 0.0
    case 3:
        return -0.1
    case _:
        return -1.0
""",
        "obs.hunger",
    ),
    "a group handed on": program(
        """
def rise(now, before, field):
    return now[field] - before[field]

def reward(obs, prev_obs, action, info):
    return sum(rise(obs, prev_obs, field) for field in ('hp', 'gold')) + 0.25 * info['died']
""",
        "info.died",
        open_groups=("obs", "prev_obs"),
    ),
    "shadowed names": body(
        """
total = obs['hp']
for info in range(3):
    total += info
obs = {'hp': 100}
return total + obs['hp']
""",
        "obs.hp",
    ),
    "nothing read": body("return 0.5"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_are_those_of_a_plain_interpreter(engine: MontyEngine, name: str) -> None:
    made = PROGRAMS[name]
    columns = some_columns(made, 300)
    engine.load(made)
    answer = engine.evaluate(columns, 300)
    values, failures = plainly(made, columns, 300)
    kinds = {row: why.partition(":")[0] for row, why in answer.failures.items()}
    assert kinds == {row: why.partition(":")[0] for row, why in failures.items()}
    names = list(next((v for v in values if isinstance(v, dict)), {"reward": 0}))
    assert list(answer.components) == names
    for component in names:
        expected = [None if v is None else v[component] if isinstance(v, dict) else v for v in values]
        assert list(map(bits, answer.components[component])) == list(map(bits, expected))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_all_numbers_and_texts_cross_the_border_unchanged(engine: MontyEngine, data: st.DataObject) -> None:
    num = data.draw(st.integers(1, 20))
    text = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=20)
    columns = {
        "obs.turn": np.array(data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=num, max_size=num))),
        "obs.hp": np.array(data.draw(st.lists(st.integers(-10, 300), min_size=num, max_size=num))),
        "obs.message": np.array(data.draw(st.lists(text, min_size=num, max_size=num)), "U40"),
        "info.died": np.array(data.draw(st.lists(st.booleans(), min_size=num, max_size=num))),
    }
    parts = "'t': obs['turn'], 'h': obs['hp'] / 7, 'd': info['died'], 'm': obs['message']"
    engine.load(body(f"return {{{parts}}}", *columns))
    came = engine.evaluate(columns, num).components
    assert came["t"] == columns["obs.turn"].tolist()
    assert list(map(bits, came["h"])) == [bits(v / 7) for v in columns["obs.hp"].tolist()]
    assert list(map(bits, came["d"])) == list(map(bits, columns["info.died"].tolist()))
    assert came["m"] == columns["obs.message"].tolist()


@pytest.mark.parametrize("num", [255, 256, 257, 1000])
def test_columns_with_few_and_with_many_different_values(engine: MontyEngine, num: int) -> None:
    columns = {"obs.turn": np.arange(num) * 1000, "obs.message": np.array([f"text {n}" for n in range(num)])}
    engine.load(body("return obs['turn'] + len(obs['message'])", *columns))
    expected = [1000 * n + len(f"text {n}") for n in range(num)]
    assert list(engine.evaluate(columns, num).components["reward"]) == expected


def test_no_rows_are_no_answers(engine: MontyEngine) -> None:
    engine.load(body("return obs['hp']", "obs.hp"))
    answer = engine.evaluate({"obs.hp": np.zeros(0, np.int64)}, 0)
    assert all(len(values) == 0 for values in answer.components.values())
    assert not answer.failures


def test_more_rows_than_one_loop_takes(engine: MontyEngine) -> None:
    num = 2 * MAX_ROWS + 5
    engine.load(body("return 1 / (obs['turn'] - 5000)", "obs.turn"))
    answer = engine.evaluate({"obs.turn": np.arange(num)}, num)
    assert dict(answer.failures) == {5000: "ZeroDivisionError: division by zero"}
    expected = [None if n == 5000 else 1 / (n - 5000) for n in range(num)]
    assert list(answer.components["reward"]) == expected


def test_all_fields_of_an_open_group_are_there_and_others_are_not(engine: MontyEngine) -> None:
    fields = [name for name in COLUMNS if name.startswith("obs.")]
    made = body("key = ('charisma', 'no_such_field')[obs['hp'] > 1]\nreturn obs[key] + len(obs)", open_groups=("obs",))
    columns = some_columns(made, 3)
    columns["obs.hp"] = np.array([0, 5, 1])
    engine.load(made)
    answer = engine.evaluate(columns, 3)
    assert dict(answer.failures) == {1: "KeyError: 'no_such_field'"}
    charisma = columns["obs.charisma"]
    assert answer.components["reward"][0] == charisma[0] + len(fields)
    assert answer.components["reward"][2] == charisma[2] + len(fields)


def test_components_that_rows_lack(engine: MontyEngine) -> None:
    source = "return {'a': 1.5} if obs['hp'] == 0 else {'b': 2, 'a': -0.0} if obs['hp'] == 1 else 7.0"
    engine.load(body(source, "obs.hp"))
    answer = engine.evaluate({"obs.hp": np.array([0, 1, 2])}, 3)
    assert answer.components == {"a": [1.5, -0.0, None], "b": [None, 2, None], "reward": [None, None, 7.0]}
    assert not answer.failures


@pytest.mark.parametrize(
    ("value", "why"),
    [("[1, 2]", "list"), ("None", "None"), ("(1,)", "tuple"), ("{3: 1.0}", "dict"), ("{'a': [1]}", "list")],
)
def test_what_is_no_number_is_no_answer(engine: MontyEngine, value: str, why: str) -> None:
    engine.load(body(f"return {value} if obs['hp'] else 1.0", "obs.hp"))
    answer = engine.evaluate({"obs.hp": np.array([0, 1])}, 2)
    assert answer.components["reward"][0] == 1.0
    handed_on = [values[1] for values in answer.components.values() if values[1] is not None]
    assert (1 in answer.failures and why in answer.failures[1]) or handed_on == [[1]]
    assert 0 not in answer.failures


@pytest.mark.parametrize("grown", ["[a, a]", "(a, a)", "{'a': a, 'b': a}"])
@pytest.mark.parametrize("returned", ["a", "{'x': a}"])
def test_what_shares_itself_without_end_is_refused_at_once(engine: MontyEngine, grown: str, returned: str) -> None:
    made = body(f"a = 1.0\nfor _ in range(60):\n    a = {grown}\nreturn {returned}", "obs.hp")
    began = time.monotonic()
    values = ContainedProgram(made, ContainmentConfig(), engine).evaluate({"obs.hp": np.arange(9)}, 9)
    assert not values.valid.any() and time.monotonic() - began < 5.0  # 2^60 entries, were they looked at


def test_none_is_no_value_of_a_component(engine: MontyEngine) -> None:
    for rows in ("{'a': 1.0, 'b': None}", "{'a': 1.0, 'b': None if obs['hp'] else 2.0}"):
        engine.load(body(f"return {rows}", "obs.hp"))
        answer = engine.evaluate({"obs.hp": np.array([0, 1])}, 2)
        assert answer.failures[1] == "component 'b' is None, not a number"


@pytest.mark.parametrize("name", ["hp-loss", "two words", "größe", "a.b", "__class__", "x" * 65, ""])
def test_a_component_with_an_odd_name_fails_its_row(engine: MontyEngine, name: str) -> None:
    engine.load(body(f"return {{'a' if obs['hp'] else {name!r}: 1.0}}", "obs.hp"))
    answer = engine.evaluate({"obs.hp": np.array([0, 1])}, 2)
    assert list(answer.failures) == [0] and "letters, digits and _" in answer.failures[0]
    engine.load(body(f"return {{{name!r}: 1.0}}"))
    assert list(engine.evaluate({}, 2).failures) == [0, 1]


def test_numbers_are_rounded_as_python_does(engine: MontyEngine) -> None:
    made = body(
        """
x = obs['hp'] / 40
small = obs['hp'] * 1e-7
return {
    'two': round(x, 2), 'one': round(-x / 50, 1), 'named': round(number=small, ndigits=7), 'none': round(x, 0),
    'long': round(x, 30), 'longer': round(small, 400), 'huge': round(x * 1e300, 2), 'odd': round(x, True),
    'whole': round(x), 'integer': round(obs['hp'], -1), 'nothing': round(x, None),
}
""",
        "obs.hp",
    )
    columns = {"obs.hp": np.arange(-1000, 1000)}
    engine.load(made)
    answer = engine.evaluate(columns, 2000)
    expected, _ = plainly(made, columns, 2000)
    for name, values in answer.components.items():
        assert list(map(bits, values)) == [bits(row[name]) for row in expected], name


def test_a_text_does_not_come_back_as_a_number(engine: MontyEngine) -> None:
    engine.load(body("return '3.5' if obs['hp'] else 2", "obs.hp"))
    assert list(engine.evaluate({"obs.hp": np.array([0, 1])}, 2).components["reward"]) == [2, "3.5"]


def test_more_components_than_may_be(engine: MontyEngine) -> None:
    engine.load(body("return {f'c{k}': 1.0 for k in range(17 * obs['hp'])} or {'a': 0.5}", "obs.hp"))
    answer = engine.evaluate({"obs.hp": np.array([0, 1])}, 2)
    assert "16" in answer.failures[1]
    assert answer.components["a"][0] == 0.5


def test_nothing_of_one_batch_is_left_for_the_next(engine: MontyEngine) -> None:
    source = "SEEN = []\ndef reward(obs, prev_obs, action, info):\n    SEEN.append(obs['hp'])\n    return len(SEEN)\n"
    engine.load(program(source, "obs.hp"))
    columns = {"obs.hp": np.arange(3)}
    first, second = (list(engine.evaluate(columns, 3).components["reward"]) for _ in range(2))
    assert first == second == [1, 2, 3]


def test_a_program_cannot_take_the_place_of_what_the_loop_uses(engine: MontyEngine) -> None:
    source = """
def zip(*of):
    return []
def type(of):
    return 1
def reward(obs, prev_obs, action, info):
    return obs['hp'] * 2
"""
    engine.load(program(source, "obs.hp"))
    answer = engine.evaluate({"obs.hp": np.array([4, 5])}, 2)
    assert list(answer.components["reward"]) == [8, 10]


def test_an_exception_of_one_row_is_that_row_s(engine: MontyEngine) -> None:
    engine.load(body("if obs['hp'] == 1:\n    raise ValueError('no ' + 'x' * 1000)\nreturn obs['hp']", "obs.hp"))
    answer = engine.evaluate({"obs.hp": np.arange(3)}, 3)
    assert list(answer.failures) == [1]
    assert answer.failures[1].startswith("ValueError: no xxx")
    assert len(answer.failures[1]) == 200
    assert [answer.components["reward"][row] for row in (0, 2)] == [0, 2]


MATHS = dict.fromkeys(
    ("asinh", "atan", "cbrt", "ceil", "cos", "cosh", "degrees", "erf", "erfc", "exp", "exp2", "expm1", "fabs", "floor",
     "gamma", "lgamma", "log", "log10", "log1p", "log2", "radians", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
     "ulp"), 0.3
) | {"acosh": 1.2, "acos": -0.9, "asin": -0.9, "atanh": -0.9}  # fmt: skip
"""Functions of one number, and what from on they are tried."""

LAZY = {
    "import": ("import math", "return math.sqrt(obs['hp'])"),
    "annotations": (
        "LIMIT: int | None = 3\ndef low(x: float | None, of: dict[str, int] | tuple[int, ...]) -> 'float': return x",
        "y: list[int] = [1]\nreturn low(obs['hp'], {}) + len(y)",
    ),
    "named characters": ("def f(o): return '\\N{BULLET}' in o['message']", "return f(obs)"),
    "huge integers": ("", "return (10 ** 9000 + obs['hp']) // (10 ** 4000 + 7) % 1000 + 10 ** 9000 % (10 ** 4000 + 3)"),
    "long digits": ("", "return len(str(10 ** 4000)) + int('9' * 4000) % 7 + obs['hp']"),
    "too long digits": ("", "return len(str(10 ** 5000)) + obs['hp']"),
    "formats": (
        "",
        "return len(f\"{obs['hp'] / 7:12.3e}|{obs['hp']:08d}|{3:n}|{0.5:%}|{'a'!r:>9}\" + '%5.2f %r' % (1.5, 'a'))",
    ),
    "percent": ("", "return float('%.3g' % (obs['hp'] / 7)) + float(str(obs['hp'] / 7))"),
    "texts": (
        "",
        "x = obs['message']\nreturn len(x.casefold().title()) + len(x.upper().split())",
    ),
    "sorting": ("", "return sorted([('b', 2), ('a', obs['hp'])], key=lambda p: (-p[1], p[0]), reverse=True)[0][1]"),
    "errors": ("", "return 1 / 0 if obs['hp'] < 5 else {}['a'] if obs['hp'] < 9 else int('x')"),
    "more errors": ("", "return math.sqrt(-1) if obs['hp'] < 9 else [1, 2][obs['hp']]"),
    "assertions": ("", "assert obs['hp'] > 5, f\"{obs['hp']}\"\nreturn 1"),
    "unpacking": ("", "a, b = range(obs['hp'])\nreturn a - b"),
    "patterns": (
        "",
        "match [obs['hp'], {'a': 1}]:\n    case [int(x), {'a': y, **rest}]:\n        return x + y + len(rest)",
    ),
    "escapes": ("", "return len('\\d\\é') + (obs['hp'] is 5) + ~True"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")  # of the odd text
@pytest.mark.parametrize("name", LAZY)
def test_nothing_that_python_loads_late_is_missing(engine: MontyEngine, name: str) -> None:
    before, lines = LAZY[name]
    function = "\n".join("    " + line for line in lines.splitlines())
    source = f"{before}\ndef reward(obs, prev_obs, action, info):\n{function}\n"
    made = program(source, "obs.hp", "obs.message")
    columns = some_columns(made, 40)
    engine.load(made)
    answer = engine.evaluate(columns, 40)
    values, failures = plainly(made, columns, 40)
    kinds = {row: why.partition(":")[0] for row, why in answer.failures.items()}
    assert kinds == {row: why.partition(":")[0] for row, why in failures.items()}
    given = answer.components.get("reward", [None] * 40)
    assert list(map(bits, given)) == list(map(bits, values))


ONE = sorted(MATHS)
ROUGH = {"atanh", "cbrt", "erf", "erfc", "gamma", "lgamma"}
"""Monty's own: they differ from Python's in the last bits."""


@pytest.mark.parametrize("names", [ONE[start : start + 16] for start in range(0, len(ONE), 16)])
def test_mathematical_functions_are_python_s(engine: MontyEngine, names: list[str]) -> None:
    parts = ", ".join(f"'{name}': math.{name}(obs['hp'] / 7 + {MATHS[name]})" for name in names)
    made = body(f"return {{{parts}}}", "obs.hp")
    columns = {"obs.hp": np.arange(7)}
    engine.load(made)
    answer = engine.evaluate(columns, 7)
    assert not answer.failures
    values, _ = plainly(made, columns, 7)
    for name in names:
        expected = [value[name] for value in values]
        if name in ROUGH:
            np.testing.assert_allclose(answer.components[name], expected, rtol=1e-13)
        else:
            assert list(map(bits, answer.components[name])) == list(map(bits, expected))


def test_other_processes_say_the_same_of_what_hangs_on_hashes(engine: MontyEngine) -> None:
    made = body("return [*{'a', 'b', 'c', 'd', 'e', 'f', 'g'}].index('c')")
    said = set()
    for _ in range(4):
        engine.close()
        engine.load(made)
        said.add(engine.evaluate({}, 1).components["reward"][0])
    assert len(said) == 1


def test_deep_calls_end(engine: MontyEngine) -> None:
    source = """
def down(n):
    return 0 if n == 0 else 1 + down(n - 1)
def reward(obs, prev_obs, action, info):
    return down(obs['turn'])
"""
    engine.load(program(source, "obs.turn"))
    assert list(engine.evaluate({"obs.turn": np.array([40])}, 1).components["reward"]) == [40]
    answer = engine.evaluate({"obs.turn": np.array([100_000, 40])}, 2)
    assert answer.failures[0].startswith("RecursionError")
    assert answer.components["reward"][1] == 40


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ("while True:\n    pass", ProgramTimeoutError),
        (
            "while True:\n    try:\n        while True:\n            pass\n    except Exception:\n        pass",
            ProgramTimeoutError,
        ),
        ("return sum(range(10 ** 14))", ProgramTimeoutError),
        ("x = 3\nwhile True:\n    x = x * x", ProgramTimeoutError),  # only the process's end stops this one
        ("x = 'y'\nwhile True:\n    x = x + x", ProgramMemoryError),
        ("return len('x' * 10 ** 9)", ProgramMemoryError),
    ],
)  # fmt: skip
def test_limits_hold_and_the_next_batch_is_answered(strict: MontyEngine, lines: str, error: type[EngineError]) -> None:
    columns = {"obs.hp": np.arange(4)}
    strict.load(body(f"if obs['hp'] < 2:\n    return 1.0\n{lines}", "obs.hp"))
    start = time.monotonic()
    with pytest.raises((error, ProgramMemoryError) if "x * x" in lines else error):
        strict.evaluate(columns, 4)
    assert time.monotonic() - start < 5.0
    assert list(strict.evaluate({"obs.hp": np.array([0, 1])}, 2).components["reward"]) == [1.0, 1.0]


def test_the_module_level_is_within_the_limits(strict: MontyEngine) -> None:
    rest = "\ndef reward(obs, prev_obs, action, info):\n    return 1.0\n"
    with pytest.raises(ProgramTimeoutError):
        strict.load(program("while True:\n    pass" + rest))
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        strict.load(program("X = 1 / 0" + rest))
    with pytest.raises(EngineError, match="no program"):
        strict.evaluate({}, 1)
    strict.load(program(rest))
    assert list(strict.evaluate({}, 2).components["reward"]) == [1.0, 1.0]


@needs_linux
def test_a_killed_process_is_replaced(engine: MontyEngine) -> None:
    engine.load(body("while obs['hp']:\n    pass\nreturn 2.5", "obs.hp"))
    engine.evaluate({"obs.hp": np.array([0])}, 1)
    process = engine.process
    assert process is not None
    killer = threading.Timer(0.3, os.kill, (process, signal.SIGKILL))
    killer.start()
    start = time.monotonic()
    with pytest.raises(WorkerDiedError):
        engine.evaluate({"obs.hp": np.array([1])}, 1)
    assert time.monotonic() - start < 3.0
    killer.join()
    assert list(engine.evaluate({"obs.hp": np.array([0])}, 1).components["reward"]) == [2.5]
    assert engine.process != process


@needs_linux
def test_a_process_that_died_between_batches_is_not_noticed(engine: MontyEngine) -> None:
    engine.load(body("return 2.5"))
    engine.evaluate({}, 1)
    process = engine.process
    assert process is not None
    os.kill(process, signal.SIGKILL)
    time.sleep(0.1)
    assert list(engine.evaluate({}, 1).components["reward"]) == [2.5]


@needs_linux
def test_closing_ends_the_process_and_may_be_done_twice() -> None:
    made = MontyEngine(Limits())
    made.load(body("return 1.0"))
    process = made.process
    made.close()
    made.close()
    assert process is not None
    assert not Path(f"/proc/{process}").exists()


@needs_linux
def test_processes_know_nothing_of_ours(engine: MontyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2")
    engine.close()
    engine.load(body("return 1.0"))
    assert b"hunter2" not in Path(f"/proc/{engine.process}/environ").read_bytes()
    assert Path(f"/proc/{engine.process}/cwd").readlink() == Path("/")


FUTURE = """'''A text.'''
from __future__ import (  # as models write it
    annotations,
); LIMIT: int = 3

def reward(obs: dict, prev_obs: dict, action: str, info: dict) -> float:
    return 1 / (obs['hp'] - LIMIT)
"""


@pytest.mark.parametrize("source", [FUTURE, FUTURE.replace(": dict", "").replace(": str", "").replace(" -> float", "")])
def test_the_import_of_future_annotations_is_passed_over(engine: MontyEngine, source: str) -> None:
    made = admit(source)
    assert made.columns == ("obs.hp",)
    engine.load(made)
    assert list(engine.evaluate({"obs.hp": np.array([5, 4])}, 2).components["reward"]) == [0.5, 1.0]


def test_what_nothing_needs_is_not_run() -> None:
    plan = plan_of(admit(FUTURE))
    assert "__future__" not in plan.source and "float" not in plan.source
    assert [parameter.is_group for parameter in plan.parameters] == [False, False]  # obs['hp'] and action
    assert plan_of(program("x = 1\n")).source == "x = 1\n"


def _full() -> str:
    raise OSError(28, "No space left on device")


def _forbidden() -> str:
    raise IsolationError("nothing can be executed")


@pytest.mark.parametrize("trouble", [_full, _forbidden])
def test_a_process_that_cannot_be_started_again_has_died(
    trouble: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MontyEngine(Limits())
    made.load(body("return 1.5"))
    assert made.process is not None
    os.kill(made.process, signal.SIGKILL)
    _wait_until_gone(made.process)
    monkeypatch.setattr(monty, "_folder_for_executables", trouble)
    with pytest.raises(WorkerDiedError, match="does not start"):
        made.evaluate({}, 1)
    monkeypatch.undo()
    assert list(made.evaluate({}, 1).components["reward"]) == [1.5]
    made.close()


def _wait_until_gone(process: int) -> None:
    for _ in range(200):
        if not monty._is_alive(process):
            return
        time.sleep(0.02)


def test_a_launcher_that_cannot_be_spawned_has_died(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = MontyEngine(Limits())
    monkeypatch.setattr(monty, "_folder_for_executables", lambda: str(tmp_path))
    monkeypatch.setattr(Path, "chmod", lambda path, mode: None)  # it may not be executed
    with pytest.raises(WorkerDiedError, match="does not start"):
        made.load(body("return 1.5"))
    made.close()


def test_an_engine_is_built_from_a_configuration() -> None:
    made = build_engine(ContainmentConfig())
    assert made.name.startswith("monty ")
    made.close()
