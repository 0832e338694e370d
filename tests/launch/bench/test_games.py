"""The games alone: actions by hand, and short runs."""

import json

import numpy as np
import pytest

from launch.bench.games import EnvBench, ParallelSpec, SteppedGames
from launch.bench.harness import Round
from launch.cli import main
from launch.errors import UserError


def test_games_are_measured_in_processes_of_their_own_and_everything_is_kept(tmp_path, capsys):
    out = tmp_path / "deep" / "env.json"
    assert main(["bench", "env", "--rounds", "2", "--seconds", "0.1", "--games", "2", "--json", str(out)]) == 0
    kept = json.loads(out.read_text())
    names = [spec.name for spec in EnvBench(games=(2,)).specs()]
    assert names == ["yendor-2", "yendor-plain-2"]
    assert [m["system"] for m in kept["measurements"]] == names * 2
    assert all(m["steps"] > 0 and m["seconds"] >= 0.1 and m["memory_mb"] > 50 for m in kept["measurements"])
    assert kept["command"][0] == "yendor" and kept["flags"]["games"] == [2]
    assert kept["summary"]["reference"] is None
    assert "yendor-2 " in capsys.readouterr().out


class FakeSpec:
    """Says how many steps it does in a round, and how long that takes."""

    is_reference = False

    def __init__(self, name, steps, seconds):
        self.name, self.steps, self.seconds = name, steps, seconds

    def build(self):
        return self

    def warm_up(self):
        pass

    def run_round(self, seconds):
        return Round(steps=self.steps, seconds=self.seconds + seconds)

    def close(self):
        pass


def test_processes_together_do_the_steps_of_all_in_the_time_of_the_slowest():
    system = ParallelSpec("both", [FakeSpec("a", 10, 1.0), FakeSpec("b", 30, 2.0)], is_reference=False).build()
    try:
        system.warm_up()
        measured = system.run_round(0.5)
    finally:
        system.close()
    assert (measured.steps, measured.seconds) == (40, 2.5)


def test_the_processes_of_a_system_play_games_of_their_own():
    (spec, *_) = EnvBench(processes=3).specs()
    assert [member.stream for member in spec.members] == [0, 1, 2]
    assert {member.config.obs_keys for member in spec.members} == {("glyphs_crop", "blstats")}


def test_blocks_of_actions_are_played_over_and_over():
    played = []
    games = SteppedGames(lambda actions: played.append(actions.tolist()), lambda: None, np.arange(6).reshape(3, 2))
    assert games.run_round(0.0).steps == 6
    games.run_round(0.0)
    assert played == [[0, 1], [2, 3], [4, 5]] * 2


def test_a_task_that_cannot_be_played_is_refused():
    with pytest.raises(UserError, match="unknown task 'MiniHack-Room-6x6-v0'"):
        EnvBench(task="MiniHack-Room-6x6-v0").specs()
