"""The benchmark of reward programs."""

import numpy as np
import pytest

from tests.benchmarks.programs import PROGRAMS, ProgramsBench, measure, summarise, transitions


@pytest.mark.parametrize("different", [64, 8, 1])
def test_so_many_rows_differ(different: int) -> None:
    columns = transitions(64, different, seed=3)
    rows = set(zip(*(column.tolist() for column in columns.values()), strict=True))
    assert len(rows) == different
    assert all(column.shape == (64,) for column in columns.values())
    assert set(PROGRAMS["number"].columns) == set(columns)


def test_medians_and_ranges() -> None:
    rounds = [{"per_s": speed, "per_processor_s": 2 * speed} for speed in (1.0, 5.0, 3.0)]
    assert summarise({"a": rounds}) == {"a": {"median": 3.0, "low": 1.0, "high": 5.0, "per_processor_s": 6.0}}


def test_every_case_is_measured() -> None:
    shown, results = measure(ProgramsBench(transitions=64, rounds=1))
    assert len(results["summary"]) == 2 * 4
    assert all(np.isfinite(row["median"]) and row["median"] > 0 for row in results["summary"].values())
    assert all(name in shown for name in results["summary"])
