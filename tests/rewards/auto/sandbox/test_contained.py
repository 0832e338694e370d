"""The host's checks of what programs answer: nothing but bounded numbers comes out, and equal for equal inputs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.auto.config import ContainmentConfig
from rewards.auto.sandbox.contained import MIN_ROWS, ContainedProgram, FailureWatch, NonDeterministicError
from rewards.auto.sandbox.engine import Answer, MalformedAnswerError, ProgramTimeoutError, WorkerDiedError
from tests.rewards.auto import fake_engine as fake

HP = fake.program(
    """
def reward(obs, prev_obs, action, info):
    found = {"gain": obs["hp"] - prev_obs["hp"]}
    if info["succeeded"]:
        found["goal"] = 1.0 / obs["hp"]
    return found
""",
    "obs.hp",
    "prev_obs.hp",
    "info.succeeded",
    goal="sparse",
)


def _columns(num=40, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "obs.hp": rng.integers(0, 4, num),
        "prev_obs.hp": rng.integers(0, 4, num),
        "info.succeeded": rng.random(num) < 0.3,
        "obs.message": np.array(["unused"] * num),
    }


def _contained(script=None, program=HP, **kwargs):
    return ContainedProgram(program, ContainmentConfig(), fake.FakeEngine(script), **kwargs)


def _evaluated(change, num=6):
    """The values of a program whose transitions differ and pay 1, after something happened to its answer.

    All six rows are repeated, backwards: row 2 comes again as row 9.
    """
    source = "def reward(obs, prev_obs, action, info):\n    return {'x': 1.0, 'turn': obs['turn']}\n"
    contained = _contained({0: change}, fake.program(source, "obs.turn"))
    return contained.evaluate({"obs.turn": np.arange(num)}, num)


@pytest.mark.parametrize("distinct", [True, False])
def test_values_are_the_programs_and_what_is_missing_pays_nothing(distinct):
    columns = _columns()
    values = _contained(distinct=distinct).evaluate(columns, 40)
    hp, before, won = (columns[name] for name in ("obs.hp", "prev_obs.hp", "info.succeeded"))
    dead = won & (hp == 0)
    assert dead.any() and (won & ~dead).any()
    np.testing.assert_array_equal(values.valid, ~dead)
    np.testing.assert_array_equal(values.components["gain"], np.where(dead, 0, hp - before))
    np.testing.assert_array_equal(values.components["goal"], np.where(won & ~dead, 1 / np.maximum(hp, 1), 0))
    assert set(values.why) == set(np.flatnonzero(dead))
    assert set(values.why.values()) == {"ZeroDivisionError: float division by zero"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "component 'x' is nan"),
        (float("-inf"), "component 'x' is -inf"),
        (1e300, "component 'x': 1e+300 is beyond 1e+06"),
        (-1000001, "component 'x': -1000001 is beyond 1e+06"),
        pytest.param(10**5000, "component 'x': an integer of 16610 bits is beyond 1e+06", id="huge"),
        ("1.0", "component 'x' is a str, not a number"),
        ([1.0], "component 'x' is a list, not a number"),
        (1j, "component 'x' is a complex, not a number"),
        (np.float64(1), "component 'x' is a float64, not a number"),
    ],
)
def test_what_is_no_bounded_number_is_no_answer(value, reason):
    values = _evaluated(fake.answering("x", (2, 9), value))
    assert values.valid.tolist() == [True, True, False, True, True, True]
    assert values.why == {2: reason}
    assert values.components["x"].tolist() == [1, 1, 0, 1, 1, 1]
    assert values.components["turn"].tolist() == [0, 1, 0, 3, 4, 5]  # no half answers


@pytest.mark.parametrize("value", [1e6, -1e6, 10**6, True, False, 0, -0.0, None])
def test_what_is_a_bounded_number_is_one(value):
    values = _evaluated(fake.answering("x", (2, 9), value))
    assert values.valid.all() and values.components["x"][2] == (value or 0.0)
    assert all(component.dtype == np.float64 for component in values.components.values())


def _named(name):
    return lambda answer: replace(answer, components={**answer.components, name: answer.components["x"]})


class _Liar(list):
    def __iter__(self):
        return iter([1.0])


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: replace(answer, components={"x": answer.components["x"][:-1]}),
        lambda answer: replace(answer, components={"x": [*answer.components["x"], 1.0]}),
        lambda answer: replace(answer, components={"x": "1" * len(answer.components["x"])}),
        lambda answer: replace(answer, components={f"c{i}": answer.components["x"] for i in range(17)}),
        lambda answer: replace(answer, components={"x": _Liar(answer.components["x"])}),
        lambda answer: replace(answer, failures={-1: "why"}),
        lambda answer: replace(answer, failures={10**6: "why"}),
        lambda answer: replace(answer, failures={True: "why"}),
        lambda answer: replace(answer, failures={0: b"why"}),
        *map(_named, ["", "two words", "a.b", "1st", "x" * 65, "\u00e9", "x\n", "__class__", 3, None]),
    ],
)
def test_answers_of_the_wrong_shape_are_malformed(change):
    with pytest.raises(MalformedAnswerError):
        _evaluated(change)


def test_reasons_are_cut_and_printable():
    values = _evaluated(lambda answer: replace(answer, failures=dict.fromkeys((0, 11), "\x1b[2J" + "a" * 999)))
    assert values.why[0].startswith("\\x1b[2Jaaa") and values.why[0].isprintable() and len(values.why[0]) <= 210


# ---- equal inputs, equal answers


@pytest.mark.parametrize("distinct", [True, False])
def test_a_program_that_counts_its_calls_is_found_out(distinct):
    source = "def reward(obs, prev_obs, action, info):\n    return tick() * 1e-9\n"
    contained = _contained(program=fake.program(source, "obs.turn"), distinct=distinct)
    with pytest.raises(NonDeterministicError, match=r"component 'reward' was .* and then .*, of the same input"):
        contained.evaluate({"obs.turn": np.arange(100)}, 100)
    constant = _contained(program=fake.program(source), distinct=distinct)
    with pytest.raises(NonDeterministicError):  # one different row is left, and it is sent twice
        constant.evaluate({}, 100)


@pytest.mark.parametrize("value", [-0.0, 0, False, 5e-324, "0", None, float("nan")])
def test_a_repeated_row_must_be_the_same_bit_for_bit(value):
    source = "def reward(obs, prev_obs, action, info):\n    return 0.0\n"
    contained = _contained({0: fake.answering("reward", [-1], value)}, fake.program(source, "obs.turn"))
    with pytest.raises(NonDeterministicError):
        contained.evaluate({"obs.turn": np.arange(5)}, 5)


def test_a_failure_must_repeat_itself_too():
    with pytest.raises(NonDeterministicError, match="none the other time"):
        _evaluated(lambda answer: replace(answer, failures={len(answer.components["x"]) - 1: "why"}))


def test_nan_that_repeats_itself_is_no_answer_but_deterministic():
    def all_nan(answer):
        return Answer(components={"x": [float("nan")] * len(answer.components["x"])}, failures={})

    assert not _evaluated(all_nan).valid.any()


def test_rows_are_repeated_at_the_end_backwards_and_depend_on_the_batch():
    seen = []
    for seed in range(3):
        contained = _contained(distinct=False)
        contained.evaluate(_columns(40, seed), 40)
        sent = contained.engine.columns
        rows = np.stack([sent[name] for name in HP.columns], axis=1)
        assert contained.engine.rows == [48] and set(sent) == set(HP.columns)
        np.testing.assert_array_equal(rows[:40], np.stack([_columns(40, seed)[n] for n in HP.columns], axis=1))
        seen.append(rows[40:].tolist())
    assert seen[0] != seen[1] != seen[2]
    source = "def reward(obs, prev_obs, action, info):\n    return obs['turn']\n"
    contained = _contained(program=fake.program(source, "obs.turn"))
    for _ in range(2):
        contained.evaluate({"obs.turn": np.arange(100)}, 100)
        again = contained.engine.columns["obs.turn"][100:].tolist()
        assert len(again) == 8 and again == sorted(set(again), reverse=True)
        seen.append(again)
    assert seen[-1] == seen[-2]


def test_each_different_row_is_sent_once():
    contained = _contained()
    columns = {name: np.tile(column, 50) for name, column in _columns().items()}
    contained.evaluate(columns, 2000)
    different = len(set(zip(*(columns[name].tolist() for name in HP.columns), strict=True)))
    assert contained.engine.rows == [different + 8] and different < 33


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=60))
def test_spreading_changes_nothing(rows):
    hp, before, won = (np.array(column) for column in zip(*rows, strict=True))
    columns = {"obs.hp": hp, "prev_obs.hp": before, "info.succeeded": won}
    one, other = (_contained(distinct=d).evaluate(columns, len(rows)) for d in (True, False))
    np.testing.assert_array_equal(one.valid, other.valid)
    assert one.why == other.why and one.components.keys() == other.components.keys()
    for name, values in one.components.items():
        np.testing.assert_array_equal(values, other.components[name])


# ---- the engine


def test_the_learners_columns_cannot_be_written_to():
    columns = _columns()
    before = {name: column.copy() for name, column in columns.items()}
    contained = _contained(distinct=False)
    contained.evaluate(columns, 40)
    for name, sent in contained.engine.columns.items():
        with pytest.raises(ValueError, match="read-only"):
            sent[0] = 9
        sent.flags.writeable = True  # even so it is a copy
        sent[:] = 9
        np.testing.assert_array_equal(columns[name], before[name])


def test_failures_of_the_engine_pass_through_and_the_program_is_loaded_again():
    contained = _contained({0: ProgramTimeoutError("too slow"), 1: WorkerDiedError("gone")})
    with pytest.raises(ProgramTimeoutError, match="too slow"):
        contained.evaluate(_columns(), 40)
    with pytest.raises(WorkerDiedError):
        contained.evaluate(_columns(), 40)
    contained.evaluate(_columns(), 40)
    contained.evaluate(_columns(), 40)
    assert contained.engine.loads == 3


def test_no_rows_need_no_engine():
    contained = _contained()
    assert contained.evaluate({name: column[:0] for name, column in _columns().items()}, 0).valid.shape == (0,)
    assert contained.engine.loads == 0


# ---- the watch


def test_the_watch_waits_for_enough_rows_and_forgets():
    watch = FailureWatch(ContainmentConfig(max_failure_share=0.01, failure_window=2000))
    watch.add(MIN_ROWS - 1, 400)
    assert not watch.exceeded
    watch.add(1, 0)
    assert watch.exceeded
    watch.add(1499, 0)
    assert watch.exceeded and watch.num_rows == 1999
    watch.add(500, 20)  # the first batch is not needed any more to fill the window
    assert (watch.num_rows, watch.num_failed) == (2000, 20) and not watch.exceeded  # exactly the share may fail
    watch.add(1, 1)
    assert (watch.num_rows, watch.num_failed) == (2000, 21) and watch.exceeded


def test_a_short_window_is_enough_and_survives_a_checkpoint():
    config = ContainmentConfig(max_failure_share=0.0, failure_window=10)
    watch = FailureWatch(config)
    watch.add(9, 1)
    copy = FailureWatch(config)
    copy.load_state_dict(watch.state_dict())
    for one in (watch, copy):
        assert not one.exceeded
        one.add(1, 0)
        assert one.exceeded
        one.add(10, 0)
        assert not one.exceeded and one.num_rows == 10
