"""Systems measured in alternation: by hand-made figures, and by processes that fail."""

import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from envs.tasks import GamesConfig
from launch.bench.games import VectorSpec
from launch.bench.harness import (
    IsolatedSystem,
    PeakMemory,
    Round,
    in_turn,
    machine,
    raw,
    summarise,
    table,
    tree_memory_mb,
)
from launch.errors import RunError


class Named:
    def __init__(self, name, is_reference):
        self.name, self.is_reference = name, is_reference


def rounds(*speeds, split=None, memory_mb=None):
    return [Round(steps=int(10 * v), seconds=10.0, split=split or {}, memory_mb=memory_mb) for v in speeds]


SPECS = [Named("ours", False), Named("slow", True), Named("fast", True)]
FOUND = {
    "ours": rounds(300, 200, 400, split={"games": 0.75, "learn": 0.25}, memory_mb=1234.5),
    "slow": rounds(50, 50, 50),
    "fast": rounds(100, 100, 50),
}


def test_the_ratio_is_taken_round_by_round_to_the_fastest_reference():
    summary = summarise(SPECS, FOUND)
    assert summary["reference"] == "fast"
    ours = summary["systems"]["ours"]
    assert ours["ratios"] == [3.0, 2.0, 8.0]
    assert (ours["ratio_median"], ours["ratio_low"], ours["ratio_high"]) == (3.0, 2.0, 8.0)
    assert (ours["median"], ours["low"], ours["high"]) == (300.0, 200.0, 400.0)
    assert ours["split"] == {"games": 0.75, "learn": 0.25} and ours["memory_mb"] == 1234.5
    assert "ratio_median" not in summary["systems"]["slow"]


def test_every_reference_has_its_ratios():
    against = summarise(SPECS, FOUND)["systems"]["ours"]["against"]
    assert {name: ratios["ratios"] for name, ratios in against.items()} == {
        "slow": [6.0, 4.0, 8.0],
        "fast": [3.0, 2.0, 8.0],
    }


def test_the_table_shows_speeds_ratios_memory_and_splits():
    lines = table(summarise(SPECS, FOUND)).splitlines()
    assert lines[1].split() == [
        "ours",
        "300",
        "200-400",
        "3.00x",
        "2.00-8.00",
        "1,234",
        "games",
        "75%,",
        "learn",
        "25%",
    ]
    assert lines[3].split() == ["fast", "100", "50-100", "1"]
    assert lines[4] == "ours: 6.00x slow, 3.00x fast"


def test_without_a_reference_there_are_no_ratios():
    summary = summarise(SPECS[:1], {"ours": FOUND["ours"]})
    assert summary["reference"] is None and "ratios" not in summary["systems"]["ours"]


def test_every_measurement_is_kept_in_the_order_in_which_it_was_made():
    order = [(row["round"], row["system"]) for row in raw(FOUND)]
    assert order[:4] == [(0, "ours"), (0, "slow"), (0, "fast"), (1, "ours")]
    assert raw(FOUND)[0]["steps"] == 3000


def test_the_machine_is_described_without_its_name():
    found = machine()
    assert found["cores"] >= 1 and {"torch", "nle", "stable-baselines3"} <= set(found["versions"])
    assert not {"host", "node", "hostname"} & set(found)


def test_a_system_that_fails_says_why():
    config = GamesConfig(task="MiniHack-Nowhere-v0")
    broken = IsolatedSystem(VectorSpec("broken", config, 2, seed=1))
    try:
        with pytest.raises(RunError, match="broken failed: ValueError: unknown task"):
            broken.warm_up()
        with pytest.raises(RunError, match="broken died"):
            broken.run_round(0.1)
    finally:
        broken.close()


def test_memory_is_that_of_a_process_and_its_descendants():
    holding = "b = bytearray(b'x' * 64_000_000)"
    waiting = "print('ready', flush=True); input()"
    inner = f"{holding}; {waiting}"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    process = subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    with PeakMemory(process.pid) as peak:
        found = tree_memory_mb(process.pid)
    process.communicate(b"\n")
    assert 64 < found < 200
    assert peak.mb == pytest.approx(found, rel=0.2)
    assert tree_memory_mb(process.pid) == 0


def test_a_system_that_is_told_to_end_ends_what_it_started(tmp_path):
    system = IsolatedSystem(StartsAnother(tmp_path / "pid"))
    system.warm_up()
    started = int((tmp_path / "pid").read_text())
    os.kill(system.pid, signal.SIGTERM)
    with pytest.raises(RunError, match="died"):
        system.run_round(0.1)
    system.close()
    assert not psutil.pid_exists(started)


class StartsAnother:
    """A system with a process in a session of its own."""

    name, is_reference = "starter", False

    def __init__(self, path):
        self.path = path

    def build(self):
        return self

    def warm_up(self):
        self.process = subprocess.Popen(["sleep", "60"], start_new_session=True)
        self.path.write_text(str(self.process.pid))

    def run_round(self, seconds):
        return Round(steps=1, seconds=seconds)

    def close(self):
        self.process.kill()
        self.process.wait()


def test_cases_take_turns_after_rounds_that_do_not_count():
    called, reported = [], []
    cases = {name: lambda number, name=name: called.append((number, name)) or len(called) for name in "ab"}
    found = in_turn(cases, 2, warm_up=1, report=lambda *measured: reported.append(measured))
    assert called == [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert found == {"a": [3, 5], "b": [4, 6]}
    assert reported == [(1, "a", 3), (1, "b", 4), (2, "a", 5), (2, "b", 6)]


def test_an_order_can_be_drawn_for_each_round():
    orders = []
    cases = {name: lambda number, name=name: orders.append(name) for name in "abc"}
    in_turn(cases, 20, warm_up=0, order=np.random.default_rng(0))
    rounds = {"".join(orders[at : at + 3]) for at in range(0, 60, 3)}
    assert len(rounds) > 3 and all(sorted(one) == list("abc") for one in rounds)
