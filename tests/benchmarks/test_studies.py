"""Studies: resumable jobs, and figures that say what the results say."""

import json

import numpy as np
import pytest

from tests.benchmarks.store import Results
from tests.benchmarks.studies.curves import area_under_curve, load, success_on_grid
from tests.benchmarks.studies.figures import FIGURES, draw
from tests.benchmarks.studies.jobs import STUDIES, Job
from tests.benchmarks.studies.runner import Study
from tests.benchmarks.studies.tables import designs_table, differences, table, trees_table

TINY = (
    "--rollout.games-per-worker",
    "4",
    "--rollout.num-steps",
    "32",
    "--ppo.minibatch",
    "64",
    "--logging.interval-s",
    "0.01",
)


def test_every_job_has_a_name_of_its_own_within_its_study():
    for jobs in STUDIES.values():
        assert len({job.name for job in jobs}) == len(jobs)


def test_a_study_runs_its_jobs_once_and_goes_on_to_a_later_milestone(tmp_path):
    said = []

    def study(*milestones, out):
        job = Job(name="room-seed1", preset="room", seed=1, milestones=milestones, flags=TINY, episodes=2)
        return Study([job], Results(tmp_path / f"{out}.parquet"), tmp_path / "runs", 1, said.append)

    assert study(256, out="first").run()
    result = Results(tmp_path / "first.parquet").read()["room-seed1"]
    assert result["evaluations"]["256"]["summary"]["episodes"] == 2
    assert result["curve"]["step"][-1] == 256
    said.clear()
    assert study(256, out="first").run()
    assert said == ["1 of 1 jobs are done"]
    assert study(256, 512, out="second").run()
    longer = Results(tmp_path / "second.parquet").read()["room-seed1"]
    assert set(longer["evaluations"]) == {"256", "512"} and longer["curve"]["step"][-1] == 512
    assert longer["evaluations"]["256"] == result["evaluations"]["256"]
    assert [" ".join(c.split()[:3]) for c in longer["commands"]] == [
        "yendor train room",
        f"yendor eval {tmp_path / 'runs' / 'room-seed1'}",
        "yendor train --resume",
        f"yendor eval {tmp_path / 'runs' / 'room-seed1'}",
    ]


def test_a_result_that_was_left_by_a_killed_study_is_taken_over(tmp_path):
    left = tmp_path / "runs" / "finished" / "first" / "room-seed1.json"
    left.parent.mkdir(parents=True)
    left.write_text(json.dumps(_result([0.0, 1.0], 1.0)))
    job = Job(name="room-seed1", preset="room", seed=1, milestones=(100,))
    assert Study([job], Results(tmp_path / "first.parquet"), tmp_path / "runs", 1, lambda text: None).run()
    assert Results(tmp_path / "first.parquet").read() == {"room-seed1": _result([0.0, 1.0], 1.0)}
    assert not left.exists()


def _result(success, final, steps=100):
    return {
        "curve": {"step": [0, steps], "rollout/success": success},
        "evaluations": {str(steps): {"summary": {"success": final, "env_return": final}}},
        "captions": [],
    }


def test_curves_and_areas_by_hand():
    result = _result([0.0, 1.0], 1.0)
    assert success_on_grid(result, np.array([0, 25, 100])).tolist() == [0, 0.25, 1]
    assert area_under_curve(result, 100) == pytest.approx(0.5)
    late = {"curve": {"step": [10, 50, 100], "rollout/success": [None, 1.0, 1.0]}}
    assert success_on_grid(late, np.array([20, 50])).tolist() == [0, 1]  # nothing had ended by step 20


def test_tables_and_plots_of_two_variants(tmp_path):
    for study, name, finals in (("a", "keyroom", (0.5, 0.7)), ("b", "keyroom_oni", (0.7, 0.9))):
        for seed, final in enumerate(finals, start=1):
            Results(tmp_path / f"{study}.parquet").add({f"{name}-seed{seed}": _result([0.0, final], final)})
    runs = load(tmp_path)
    assert "| keyroom | 100 | 2 | **0.600** (0.500, 0.700) |" in table(runs)
    assert "| KeyRoom-S5 | PPO + ONI retrieval - PPO | 100 | success | +0.200 |" in differences(runs)
    assert draw(runs, "oni", tmp_path / "oni.png") and (tmp_path / "oni.png").stat().st_size > 5_000
    assert not draw({}, "oni", tmp_path / "none.png")
    assert all(panel.variants for panels in FIGURES.values() for panel in panels)


def test_the_longer_run_of_the_same_job_counts(tmp_path):
    for study, steps in (("short", 100), ("long", 300)):
        Results(tmp_path / f"{study}.parquet").add({"room-seed1": _result([0.0, 1.0], 1.0, steps)})
    (only,) = load(tmp_path)["room"]
    assert list(only["evaluations"]) == ["300"]


def test_the_table_of_trees_pools_the_seeds():
    def result(decided, right):
        level = {"name": "success", "decided": decided, "right": right, "compared": 10}
        return {"heron": {"levels": [level | {"accuracy": right / decided if decided else None}]}}

    runs = {"plain": [{"heron": None}, {}], "x_heron": [result(4, 3), result(0, 0)], "y_heron": [result(0, 0)]}
    shown = trees_table(runs)
    assert "| x_heron | success | 4 | 20 | **0.750** (0.750, -) |" in shown
    assert "| y_heron | success | 0 | 10 | never decided |" in shown and "plain" not in shown


def test_the_table_of_searches_shows_what_they_cost_and_found(tmp_path):
    results = Results(tmp_path / "design.parquet")
    runs = {"success": 0.5, "each": [0.4, 0.6], "low": -0.8, "high": 1.8, "env_return": 0.45, "steps": [1000, 1000]}
    runs |= {"runs": {"a": {}, "b": {}}, "broken": {}, "quarantined": {}}
    found = {
        "trials": 7,
        "search_steps": 7000,
        "selection": {"success": 0.75, "n": 20},
        "report": runs,
        "sparse": runs | {"success": 0.0, "each": [0.0], "quarantined": {"b": "slow"}},
    }
    results.add({"corridor_grammar": found})
    nothing = runs | {"success": None, "each": [], "steps": [], "runs": {}, "broken": {"a": "OSError"}}
    results.add({"room_grammar": found | {"selection": None, "report": nothing, "sparse": None}})
    rows = designs_table(results).splitlines()[2:]
    assert rows == [
        "| corridor_grammar | 7 | 7,000 | 0.750 (n = 20) | chosen program | 1,000 | **0.500** (0.400, 0.600) "
        "| 0.000 to 1.000 | 0.450 |  |",
        "| corridor_grammar | 7 | 7,000 | 0.750 (n = 20) | no program | 1,000 | **0.000** (0.000) | one seed | 0.450 "
        "| quarantined in 1 of 2 |",
        "| room_grammar | 7 | 7,000 | - | chosen program | - | - | - | - | broke: 1 of 1 |",
    ]
