"""Transitions: of recorded episodes, the shipped ones, and files of JSON lines."""

import json
import math
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.schema import COLUMNS
from rewards.auto.config import CompositionConfig, ContainmentConfig
from rewards.auto.episodes import (
    EpisodePay,
    builtin_transitions,
    pay_of,
    read_transitions,
    run_isolating_failures,
    transitions_of,
    values_by_episode,
    values_of,
)
from rewards.auto.program import Program, read_as
from rewards.auto.sandbox.contained import (
    BATCH,
    NUM_REPEATED,
    ContainedProgram,
    NonDeterministicError,
    Values,
    run_in_batches,
)
from rewards.auto.sandbox.engine import ProgramTimeoutError
from tests.rewards.auto.fake_engine import FakeEngine, program
from tests.rewards.auto.played import episode

PROGRAM = Program(source="", columns=("obs.hp", "prev_obs.message", "action", "info.succeeded"))
GOAL = "1.0 if info['succeeded'] else -1.0 if info['died'] else 0.0"
WHOLE = {"obs": {"hp": 3}, "prev_obs": {"message": "Hello"}, "action": "north", "info": {"succeeded": False}}


def read(tmp_path, *lines, program=PROGRAM):
    path = tmp_path / "transitions.jsonl"
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_bytes("".join(text + "\n" for text in texts).encode("utf-8", "surrogatepass"))
    return read_transitions(path, program)


def coded(body, **components):
    source = f"def reward(obs, prev_obs, action, info):\n    return {body}\n"
    return program(source, "obs.hp", "info.succeeded", "info.died", **components)


def changed(group, **values):
    return WHOLE | {group: WHOLE[group] | values}


# ---- recorded play


def test_shipped_play_is_varied_and_small():
    episodes = builtin_transitions()
    endings = [record.ending for record in episodes]
    assert sum(record.num_steps for record in episodes) == 1717
    assert len({record.task for record in episodes}) == 11
    assert (endings.count("success"), endings.count("death"), endings.count("out of time")) == (6, 5, 7)
    assert all(record.screen is None for record in episodes)
    assert any(record.task.startswith("NetHack") for record in episodes)
    with as_file(files("rewards.auto") / "data") as folder:
        assert sum(path.stat().st_size for path in folder.iterdir()) < 150_000


def test_every_column_of_the_schema_is_there_for_shipped_play():
    columns, num = transitions_of(builtin_transitions(), tuple(COLUMNS))
    assert set(columns) == set(COLUMNS) and all(column.shape == (num,) for column in columns.values())
    kinds = {"int": "i", "bool": "b", "str": "U"}
    assert all(column.dtype.kind == kinds[COLUMNS[name].dtype] for name, column in columns.items())
    assert columns["info.succeeded"].sum() == 6 and columns["info.died"].sum() == 5
    assert columns["info.timed_out"].sum() == 7
    starts = np.cumsum([0, *(record.num_steps for record in builtin_transitions())])[:-1]
    assert (columns["info.step_in_episode"] == 0).nonzero()[0].tolist() == starts.tolist()
    inner = np.setdiff1d(np.arange(num), starts)
    assert (columns["prev_obs.turn"][inner] == columns["obs.turn"][inner - 1]).all()


def test_no_episodes_and_unknown_columns():
    columns, num = transitions_of([], ("obs.hp", "obs.message", "obs.confused"))
    assert num == 0 and [column.dtype.kind for column in columns.values()] == ["i", "U", "b"]
    assert transitions_of(builtin_transitions(), ()) == ({}, 1717)
    with pytest.raises(ValueError, match=r"unknown schema field 'obs\.hitpoints'"):
        transitions_of(builtin_transitions(), ("obs.hitpoints",))


# ---- files


def test_lines_become_columns(tmp_path):
    (found,) = read(tmp_path, WHOLE, changed("obs", hp=4.0), changed("prev_obs", message="naïve ☃")).parts
    assert found.rows.tolist() == [0, 1, 2] and found.lacks == []
    assert found.program.sha == PROGRAM.sha and found.program.needed_columns == PROGRAM.needed_columns
    assert found.columns["obs.hp"].tolist() == [3, 4, 3] and found.columns["obs.hp"].dtype == np.int64
    assert found.columns["prev_obs.message"].tolist() == ["Hello", "Hello", "naïve ☃"]
    assert found.columns["info.succeeded"].dtype == np.bool_
    assert found.columns["action"].tolist() == ["north"] * 3


def test_lines_that_hold_the_same_stand_together(tmp_path):
    lines = (
        changed("obs", hp=4),
        {**WHOLE, "obs": {}},
        {name: value for name, value in WHOLE.items() if name != "action"},
        {},
        {**WHOLE, "other": 1, "info": {"succeeded": True, "unheard_of": [1], "died": "unread"}},
        {**WHOLE, "obs": {"gold": 5}},
    )
    found = read(tmp_path, *lines)
    assert found.num == 6
    assert [part.rows.tolist() for part in found.parts] == [[0, 4], [1, 5], [2], [3]]
    assert [part.lacks for part in found.parts] == [[], ["obs.hp"], ["action"], list(PROGRAM.needed_columns)]
    assert found.parts[0].columns["info.succeeded"].tolist() == [False, True]
    for part in found.parts:
        assert part.program.needed_columns == tuple(part.columns) == part.program.columns
        assert part.program.sha == PROGRAM.sha


def test_a_program_that_takes_a_group_whole_gets_what_there_is_of_it(tmp_path):
    open_program = Program(source="", columns=(), open_groups=frozenset({"info"}))
    (part,) = read(tmp_path, WHOLE, program=open_program).parts
    assert part.program.needed_columns == ("info.succeeded",) and "info.died" in part.lacks
    (nothing,) = read(tmp_path, WHOLE, {}, program=Program(source="", columns=())).parts
    assert nothing.columns == {} and nothing.rows.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "is not JSON"),
        ('{"obs": ', "is not JSON"),
        ("[1]", "is not a JSON object"),
        ("{} {}", "is not JSON"),
        ('{"obs": {}, "obs": {}}', "the key 'obs' stands twice"),
        ('{"obs": {"hp": 1, "hp": 2}}', "the key 'hp' stands twice"),
        ('{"obs": {"hp": NaN}}', "NaN is no number"),
        ('{"obs": {"other": -Infinity}}', "-Infinity is no number"),
        ('{"obs": {"hp": ' + "9" * 5000 + "}}", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ({**WHOLE, "obs": [3]}, "obs is not a JSON object"),
        ({**WHOLE, "info": 0}, "info is not a JSON object"),
        (changed("obs", hp=2**63), r"obs\.hp is beyond 64 bits"),
        (changed("obs", hp=-(2**63) - 1), r"obs\.hp is beyond 64 bits"),
        (changed("obs", hp=1e30), r"obs\.hp is beyond 64 bits"),
        ('{"obs": {"hp": 1e400}}', r"obs\.hp is Infinity, not a whole number"),
        (changed("obs", hp=3.5), r"obs\.hp is 3\.5, not a whole number"),
        (changed("obs", hp="3"), r'obs\.hp is "3", not a whole number'),
        (changed("obs", hp=True), r"obs\.hp is true, not a whole number"),
        (changed("obs", hp=None), r"obs\.hp is null, not a whole number"),
        (changed("info", succeeded=2), r"info\.succeeded is 2, not true or false"),
        (changed("prev_obs", message=1), r"prev_obs\.message is 1, not a text"),
        (changed("prev_obs", message="a\0"), "holds a character that no text has"),
        (changed("prev_obs", message="\ud800"), "holds a character that no text has"),
        (changed("prev_obs", message="a" * 5000), "has 5,000 characters"),
        ({**WHOLE, "action": 3}, r"action is 3, not a text"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    with pytest.raises(ValueError, match=rf"transitions\.jsonl, line 2.*{said}"):
        read(tmp_path, WHOLE, line, WHOLE)


def test_a_file_without_end_is_refused(monkeypatch):
    monkeypatch.setattr("rewards.auto.episodes.MAX_FILE_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="/dev/zero holds more than 1 MB"):
        read_transitions(Path("/dev/zero"), PROGRAM)


def test_what_is_not_text_and_ends_without_a_newline(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"obs": "\xff"}\n')
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        read_transitions(path, PROGRAM)
    path.write_text(json.dumps(WHOLE) + "\n" + json.dumps(WHOLE))
    assert read_transitions(path, PROGRAM).num == 2
    path.write_text("")
    assert read_transitions(path, PROGRAM).num == 0
    with pytest.raises(OSError):
        read_transitions(tmp_path / "nowhere", PROGRAM)


@given(st.integers(-(2**63), 2**63 - 1), st.text(max_size=30), st.booleans())
def test_values_come_through_unchanged(tmp_path_factory, number, text, truth):
    text = text.replace("\0", "")
    line = changed("obs", hp=number) | {"prev_obs": {"message": text}, "info": {"succeeded": truth}}
    (found,) = read(tmp_path_factory.getbasetemp(), line).parts
    assert [found.columns[name][0] for name in PROGRAM.columns] == [number, text, "north", truth]


def test_recorded_play_written_as_lines_reads_the_same(tmp_path):
    columns, num = transitions_of(builtin_transitions(), tuple(COLUMNS))
    lines = []
    for row in range(0, num, 20):
        line = {"obs": {}, "prev_obs": {}, "info": {}}
        for name, column in columns.items():
            group, _, field = name.rpartition(".")
            (line[group] if group else line)[field] = column[row].item()
        lines.append(line)
    everything = Program(source="", columns=tuple(COLUMNS))
    (found,) = read(tmp_path, *lines, program=everything).parts
    assert found.lacks == [] and len(found.rows) == math.ceil(num / 20)
    assert all((found.columns[name] == column[::20]).all() for name, column in columns.items())


def test_columns_are_named_as_programs_write_them():
    assert [read_as(name) for name in ("obs.hp", "action")] == ["obs['hp']", "action"]


# ---- what a program answers, and what it pays


def test_pay_by_hand():
    # Dense +1 a step pays 0.1 until the budget is used up; the success at the end pays 1.
    judged = coded(f"{{'goal': {GOAL}, 'alive': 1}}", goal="sparse", alive="dense")
    runner = ContainedProgram(judged, ContainmentConfig(), FakeEngine(), distinct=False)
    episodes = [episode("success", 2), episode("out of time", 12), episode("death", 1)]
    values = values_of(runner, judged, episodes)
    pay = pay_of(values, judged, episodes, CompositionConfig(dense="budget", dense_weight=0.1), 0.5)
    assert pay[0].reward.tolist() == pytest.approx([0.1, 1.1])
    assert pay[1].reward.tolist() == pytest.approx([0.1] * 9 + [0.0] * 3)
    assert pay[2].reward.tolist() == pytest.approx([-0.9])
    assert pay[0].discounted(0.5) == pytest.approx(0.1 + 0.5 * 1.1)
    assert pay[1].per_step == pytest.approx(0.9 / 12)


def test_what_is_invalid_is_no_pay_of_zero():
    pay = EpisodePay(np.array([0.0, 0.4]), np.array([False, True]))
    assert pay.per_step == pytest.approx(0.4)
    assert np.isnan(EpisodePay(np.zeros(2), np.zeros(2, bool)).per_step)


def test_batches_are_joined():
    class Halves:
        """The component is there in every other batch, and the third row of each has no answer."""

        def __init__(self):
            self.calls = 0

        def evaluate(self, columns, num):
            self.calls += 1
            valid = np.arange(num) != 2
            components = {"a": np.full(num, 1.0)} if self.calls % 2 else {}
            return Values(components=components, valid=valid, why={2: "because"})

    values = run_in_batches(Halves(), {"obs.hp": np.zeros(5000)}, 5000)
    assert values.components["a"].tolist() == [1.0] * 2048 + [0.0] * 2048 + [1.0] * 904
    assert list(values.why) == [2, 2050, 4098] and np.flatnonzero(~values.valid).tolist() == [2, 2050, 4098]


def test_recorded_play_is_scored_in_batches():
    engine = FakeEngine({1: ProgramTimeoutError("suspended")})
    judged = coded("obs['hp']")
    runner = ContainedProgram(judged, ContainmentConfig(), engine, distinct=False)
    episodes = [episode("death", 3000, obs_hp=np.arange(3000)), episode("death", 7, obs_hp=5)]
    found = values_by_episode(values_of(runner, judged, episodes), episodes)
    assert [rows - NUM_REPEATED for rows in engine.rows] == [BATCH, 3007 - BATCH, 3007 - BATCH]  # the second again
    assert found[0]["reward"].tolist() == list(range(3000)) and found[1]["reward"].tolist() == [5] * 7


# ---- rows that fail


class Clocked:
    """A runner whose every row takes a time of its own, and a clock that it moves."""

    def __init__(self, costs, limit=1.0):
        self.costs, self.limit, self.now, self.sizes = np.asarray(costs, float), limit, 0.0, []

    def evaluate(self, columns, num):
        rows = columns["obs.hp"]
        assert len(rows) == num
        self.sizes.append(num)
        took = self.costs[rows].sum()
        self.now += min(took, self.limit)
        if took > self.limit:
            raise ProgramTimeoutError("it took too long")
        return Values(components={"reward": rows * 2.0}, valid=np.ones(num, bool))

    def run(self, retry_s=20.0):
        num = len(self.costs)
        return run_isolating_failures(self, {"obs.hp": np.arange(num)}, num, retry_s=retry_s, clock=lambda: self.now)


def test_one_bad_row_does_not_fail_the_others():
    costs = np.zeros(2500)
    costs[1700] = 9.0
    runner = Clocked(costs)
    values = runner.run()
    assert np.flatnonzero(~values.valid).tolist() == [1700] and values.why == {1700: "timeout: it took too long"}
    expected = np.arange(2500) * 2.0
    expected[1700] = 0.0
    assert (values.components["reward"] == expected).all()
    assert runner.now == 12.0  # a batch of each size from 2048 to 1
    assert len(Clocked(np.zeros(2500)).run().why) == 0


def test_what_fails_everywhere_is_given_up_in_bounded_time():
    runner = Clocked(np.full(5000, 9.0))
    values = runner.run()
    assert not values.valid.any() and set(values.why.values()) == {"timeout: it took too long"}
    assert runner.now == 20.0 and len(values.why) == 5000
    few = Clocked(np.full(8, 9.0))
    assert not few.run().valid.any() and few.sizes == [8, 4, 4] + [1] * 8


def test_a_slow_program_is_given_batches_that_it_can_answer():
    runner = Clocked(np.full(3000, 0.002))  # 500 rows a second
    values = runner.run()
    assert values.valid.all()
    assert runner.sizes.count(BATCH) <= 3


def test_an_impure_program_gets_no_answer():
    class Impure(Clocked):
        def evaluate(self, columns, num):
            if columns["obs.hp"][0] > 0:
                raise NonDeterministicError("two answers")
            return super().evaluate(columns, num)

    values = Impure(np.zeros(3000)).run()
    assert not values.valid.any() and values.why[0] == "nondeterministic: two answers"
