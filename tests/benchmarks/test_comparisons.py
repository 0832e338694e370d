import json

import numpy as np
import pytest

from rewards.heron.tree import Level, PreferenceTree
from tests.benchmarks.comparisons import LOOP, ComparisonsBench, loop, measure, summarise


def test_the_loop_that_ours_are_measured_beside_says_the_same():
    draw = np.random.default_rng(0)
    factors = draw.integers(0, 4, (50, 3)).astype(np.float64)
    pairs = draw.integers(0, 50, (300, 2))
    levels = [
        Level(name=name, sign=sign, margin=margin) for name, sign, margin in (("a", 1, 2), ("b", -1, 1), ("c", 1, 0))
    ]
    expected = PreferenceTree(levels, "margin").compare(factors[pairs[:, 0]], factors[pairs[:, 1]]).outcome
    assert loop(factors.tolist(), [tuple(pair) for pair in pairs.tolist()], levels) == expected.tolist()
    assert set(expected.tolist()) == {-1, 0, 1}


def test_ratios_are_taken_round_by_round():
    found = summarise({LOOP: [1.0, 2.0, 4.0], "tree": [10.0, 30.0, 20.0]})
    assert found["tree"] == {
        "median": 20,
        "low": 10,
        "high": 30,
        "ratio_median": 10,
        "ratio_low": 5,
        "ratio_high": 15,
    }


def test_measuring_gives_a_table_and_every_round():
    shown, found = measure(ComparisonsBench(pairs=400, levels=2, rounds=2))
    assert all(name in shown for name in (LOOP, "tree, margin", "tree, bins"))
    assert {name: len(own) for name, own in found["measurements"].items()} == {
        LOOP: 2,
        "tree, margin": 2,
        "tree, bins": 2,
    }
    assert found["summary"]["reference"] == LOOP
    assert sum(found["summary"]["decided_by_margin"].values()) == pytest.approx(1)
    json.dumps(found)
