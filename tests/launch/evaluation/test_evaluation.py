import os
from dataclasses import dataclass

import pytest
import torch

from envs.data import EndStatus, EpisodeResult, EpisodeSeeds
from envs.recording import EpisodeRecord
from envs.seeding import evaluation_seeds
from launch.evaluation.evaluation import Evaluation, progression, run_evaluation, summarise
from launch.evaluation.policies import RandomSource


def _result(task="MiniHack-Room-5x5-v0", *, success=True, steps=10, **game):
    end = EndStatus.TASK_SUCCESSFUL if success else EndStatus.ABORTED
    return EpisodeResult(
        task=task,
        seeds=EpisodeSeeds(1, 2, 3),
        env_return=float(success),
        num_steps=steps,
        end_status=end,
        success=success,
        game=game,
    )


def test_minihack_figures_by_hand():
    row = summarise([_result(steps=4), _result(steps=6), _result(steps=100), _result(success=False)])
    assert row["success"] == row["env_return"] == 0.75
    assert row["success_low"] < 0.75 < row["success_high"]
    assert row["steps_to_success"] == 6
    assert row["truncated_rate"] == 0.25 and row["death_rate"] == 0
    assert "score" not in row


def test_nethack_figures_by_hand():
    games = [
        {
            "score": s,
            "max_depth": d,
            "max_xp_level": 1,
            "turns": 10,
            "gold": 0,
            "end_reason": "DIED",
            "death_message": m,
        }
        for s, d, m in ((0, 1, "killed by a newt"), (10, 2, "killed by a newt"), (20, 10, "starved"))
    ]
    row = summarise([_result("NetHackScore-v0", success=False, **game) for game in games])
    assert (row["score"], row["score_median"], row["score_max"]) == (10, 10, 20)
    assert row["max_depth"] == pytest.approx(13 / 3) and row["max_depth_max"] == 10
    assert row["progression"] == pytest.approx((0.0126 + 0.0154 + 0.1256) / 3)
    assert row["death_causes"] == {"killed by a newt": 2, "starved": 1}
    assert row["end_reasons"] == {"DIED": 3}


def test_an_evaluation_on_ray_equals_one_in_this_process(tmp_path):
    def played(num_workers):
        return run_evaluation(
            Evaluation(
                source=RandomSource(runs=tmp_path / str(num_workers)),
                task="MiniHack-Room-5x5-v0",
                seeds=evaluation_seeds(6),
                num_workers=num_workers,
                games_per_worker=2,
            )
        )

    assert played(0) == played(2)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_every_process_computes_on_one_thread(num_workers, tmp_path):
    @dataclass(frozen=True)
    class Counting(RandomSource):
        """Says which process built it, on how many threads."""

        def build(self, games_spec):
            (tmp_path / f"{os.getpid()}").write_text(str(torch.get_num_threads()))
            return super().build(games_spec)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seeds = evaluation_seeds(1)
        source = Counting(runs=tmp_path / "runs")
        run_evaluation(Evaluation(source=source, task="MiniHack-Room-5x5-v0", seeds=seeds, num_workers=num_workers))
    finally:
        torch.set_num_threads(before)
    (built,) = tmp_path.glob("[0-9]*")
    assert built.read_text() == "1" and (built.name == str(os.getpid())) == (num_workers == 0)


def test_records_are_kept_beside_the_results_and_an_episode_without_its_record_is_played_again(tmp_path):
    def evaluation(runs, *, record):
        return Evaluation(
            source=RandomSource(runs=tmp_path / runs),
            task="MiniHack-Room-5x5-v0",
            seeds=evaluation_seeds(4),
            num_workers=0,
            record=record,
        )

    plain, recorded = evaluation("plain", record=False), evaluation("recorded", record=True)
    assert run_evaluation(plain) == run_evaluation(recorded)
    assert not list(plain.episodes_folder.glob("*.npz"))
    for seeds in recorded.seeds:
        assert EpisodeRecord.load(recorded.record_file(seeds)).seeds == seeds
        assert recorded.episode_file(seeds).read_text() == plain.episode_file(seeds).read_text()

    lost, kept = recorded.record_file(recorded.seeds[0]), recorded.record_file(recorded.seeds[1])
    lost.unlink()
    before = kept.stat().st_mtime_ns
    played = []
    run_evaluation(evaluation("recorded", record=False), lambda done, total: played.append(done))
    assert played == [] and not lost.exists()
    run_evaluation(recorded, lambda done, total: played.append(done))
    assert played == [4] and lost.exists() and kept.stat().st_mtime_ns == before


def test_progression_is_the_better_of_depth_and_level():
    assert progression(1, 1) == 0.0126
    assert progression(10, 1) == 0.1256
    assert progression(1, 14) == 0.4940
    assert progression(99, 1) == 0.8068  # deeper than the table goes
    assert progression(0, 0) == 0.0
