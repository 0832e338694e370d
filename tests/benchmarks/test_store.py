"""What studies leave: read back as it was, replaced by name, never in parts."""

import json

import pytest

from launch.errors import UserError
from tests.benchmarks.store import RESULTS, Results, run, studies

CURVE = {"step": [1, 2], "rollout/success": [None, 0.5], "env_return_each": [[1.0, -2.5], [0.25]]}


def test_records_come_back_as_they_were(tmp_path):
    results = Results(tmp_path / "a.parquet")
    assert results.names() == [] and results.read() == {}
    records = {"x-seed1": {"job": {"flags": ["--x"]}, "train_s": None, "curve": CURVE}, "random": {"n": 1}}
    results.add(records)
    results.add({"y-seed1": {"curve": {"step": [3], "rollout/score": [7]}}})
    assert results.read() == records | {"y-seed1": {"curve": {"step": [3], "rollout/score": [7]}}}
    assert results.names() == ["x-seed1", "random", "y-seed1"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_run_that_is_added_again_is_replaced(tmp_path):
    results = Results(tmp_path / "a.parquet")
    results.add({"x": {"n": 1, "curve": CURVE}, "y": {"n": 2}})
    results.add({"x": {"n": 3}})
    assert results.read() == {"x": {"n": 3}, "y": {"n": 2}}


def test_nothing_changes_where_writing_fails(tmp_path):
    results = Results(tmp_path / "a.parquet")
    results.add({"x": {"curve": CURVE}})
    with pytest.raises(TypeError):
        results.add({"y": {"n": object()}})
    assert results.names() == ["x"] and [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_the_command_adds_lists_and_shows(tmp_path, capsys):
    file = tmp_path / "x-seed1.json"
    file.write_text(json.dumps({"n": 1, "curve": CURVE}))
    assert run(["add", "a", str(file)], tmp_path) == 0
    assert run(["list"], tmp_path) == 0
    assert capsys.readouterr().out == "a: x-seed1\n"
    assert run(["show", "a", "x-seed1"], tmp_path) == 0
    assert json.loads(capsys.readouterr().out) == {"n": 1, "curve": CURVE}
    with pytest.raises(UserError, match="unknown run 'x-seed2'; did you mean x-seed1"):
        run(["show", "a", "x-seed2"], tmp_path)
    with pytest.raises(UserError, match="is not a JSON object"):
        file.write_text("[]")
        run(["add", "a", str(file)], tmp_path)


def test_what_is_kept_can_be_read():
    kept = {name: results.read() for name, results in studies(RESULTS).items()}
    assert {"soundness", "oni", "heron", "heron_control", "design", "bench"} <= set(kept)
    assert all(kept.values())
