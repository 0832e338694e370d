import json

import pytest

from launch.errors import UserError
from tests.benchmarks.datasets import DatasetsBench, measure


def test_measuring_gives_a_table_and_every_round():
    task = {"task": "MiniHack-Room-5x5-v0", "keys": ("blstats", "message")}
    shown, found = measure(DatasetsBench(**task, steps=300, played=50, windows=20, rounds=2))
    assert "one episode of 300 steps; windows of 16: blstats, message" in shown and "bytes a step" in shown
    assert len(found["measurements"]["rounds"]) == 2
    summary = found["summary"]
    assert (
        0 < summary["window_cpu_p50"]["low"] <= summary["window_cpu_p50"]["median"] <= summary["window_cpu_p99"]["high"]
    )
    sizes = dict(summary["bytes_a_step"])
    assert sizes.pop("all") == pytest.approx(sum(sizes.values())) and sizes["obs.message"] > 0
    json.dumps(found)


def test_bad_input_is_one_sentence():
    with pytest.raises(UserError, match="unknown task 'MiniHack-Rom-5x5-v0'"):
        measure(DatasetsBench(task="MiniHack-Rom-5x5-v0"))
