"""The study of offline planning: a job from its logs to its figures, and the tables."""

import json

import pytest

from tests.benchmarks.store import Results
from tests.benchmarks.studies import offline
from tests.benchmarks.studies.offline import OFFLINE_STUDIES, OfflineJob, run_offline_job
from tests.benchmarks.studies.tables import forks_table, mazes_table


def test_every_job_has_logs_and_a_name_of_its_own():
    for jobs in OFFLINE_STUDIES.values():
        assert {job.data for job in jobs} <= set(offline.DATA)
        assert len({job.name for job in jobs}) == len(jobs)


def test_a_job_logs_learns_and_plans_once(tmp_path, monkeypatch):
    def tiny(data, seed, runs):
        policy = ["--policy", "walker", "--task", "Yendor-Maze2D-Umaze-v0", "--obs-keys", "blstats"]
        return [
            ["offline", "record", str(data), *policy, "--steps", "400", "--games-per-worker", "2", "--workers", "0"]
        ]

    monkeypatch.setitem(offline.DATA, "play_tiny", tiny)
    small = ("--learn.batch", "8", "--critic.batch", "8", "--total-updates", "3")
    goals = ("--learn.goals", "hindsight", "--critic.reward", "goal")
    job = OfflineJob(
        name="play_tiny_one_step-seed1",
        data="play_tiny",
        seed=1,
        critic=("--head.kind", "one_step", *goals, *small),
        flags=("--head.kind", "one_step", "--learn.goals", "hindsight", *small),
        plans={"none": ("--planner.mode", "none")},
        episodes=3,
    )
    run_offline_job(job, tmp_path, tmp_path / "runs")
    first = json.loads((tmp_path / f"{job.name}.json").read_text())
    found = first["evaluations"]["none"]
    assert len(found["episodes"]) == 3 == len(found["shortest"]) and min(found["shortest"]) > 0
    assert [command.split()[1:3] for command in first["commands"][:3]] == [
        ["offline", "record"],
        ["offline", "train"],
        ["offline", "train"],
    ]
    monkeypatch.setattr(offline, "main", lambda argv: pytest.fail(f"{argv} was run again"))
    run_offline_job(job, tmp_path, tmp_path / "runs")
    again = json.loads((tmp_path / f"{job.name}.json").read_text())
    assert again["evaluations"] == first["evaluations"]


def test_the_table_of_mazes_by_hand(tmp_path):
    results = Results(tmp_path / "offline_maze.parquet")

    def found(*episodes):
        return {
            "none": {
                "episodes": [[0, won, steps, 0.0] for won, steps, _ in episodes],
                "shortest": [w for *_, w in episodes],
            }
        }

    results.add({"play_one_step-seed1": {"evaluations": found((0, 60, 9), (0, 60, 2))}})
    results.add({"play_one_step-seed2": {"evaluations": found((0, 60, 9), (1, 3, 2))}})
    results.add({"play_masked-seed1": {"evaluations": found((1, 12, 9), (1, 3, 2))}})
    results.add({"play_masked-seed2": {"evaluations": found((1, 13, 9), (1, 2, 2))}})
    rows = mazes_table(results).splitlines()[2:]
    assert rows[0].startswith("| play | masked | none | 2 | **1.000** (1.000, 1.000) | 1.000 to 1.000 | 1.000 (")
    assert "| 2.0 | +0.750 (" in rows[0]
    assert "| play | one_step | none | 2 | **0.250** (0.000, 0.500) |" in rows[1]


def test_the_table_of_forks_by_hand(tmp_path):
    results = Results(tmp_path / "offline_fork.parquet")
    north, south, lost = ["northeast"] * 10, ["southeast"] * 10, ["west"] * 30
    results.add({"fork_masked-seed1": {"evaluations": {"entropy": {"actions": [north, south, south, lost]}}}})
    (row,) = forks_table(results).splitlines()[2:]
    assert row == "| masked | entropy | 1 | 4 | **0.750** (0.750) | 0.33 |"
