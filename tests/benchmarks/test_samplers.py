import json

import numpy as np
import pytest

from tests.agents.heads.enumerated import FORK, ExactDenoiser, shortest_plans
from tests.benchmarks import samplers
from tests.benchmarks.samplers import SamplersBench, errors, measure


def test_errors_of_a_distribution_over_the_plans():
    exact = ExactDenoiser(shortest_plans(FORK), 4)
    found = errors(np.array([0.5, 0.2]), exact)
    assert found == {"total_variation": pytest.approx(0.3), "valid": pytest.approx(0.7)}


def test_measuring_gives_a_table_and_every_number(monkeypatch):
    monkeypatch.setattr(samplers, "MAPS", {"fork": FORK})
    shown, found = measure(SamplersBench(passes=(1, 2)))
    decodings = found["summary"]["fork"]["decodings"]
    # Both ways differ everywhere: one pass agrees with either by chance, two must draw half of the places blindly.
    assert decodings["1 pass"] == {
        "total_variation": pytest.approx(1 - 2**-7),
        "valid": pytest.approx(2**-7),
        "passes": 1,
    }
    assert decodings["2 passes"]["valid"] == pytest.approx(2**-3)
    for exact in ("a pass a token", "left to right", "entropy bound 0.5"):
        assert decodings[exact]["total_variation"] == pytest.approx(0, abs=1e-6)
    assert decodings["entropy bound 0.5"]["passes"] == pytest.approx(2)
    assert all(name in shown for name in decodings)
    json.dumps(found)
