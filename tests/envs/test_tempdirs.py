import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from envs import tempdirs
from envs.seeding import TrainingSeeds
from envs.tasks import GamesConfig, make

ROOT = Path(__file__).parents[2]
PLAY = """
import os, signal, sys, time
import numpy as np
from envs.seeding import TrainingSeeds
from envs.tasks import GamesConfig, make
{before}
games = make(GamesConfig(task="MiniHack-Room-5x5-v0", obs_keys=("blstats",)), 2, TrainingSeeds(0, 0, 2))
games.reset()
{after}
"""


def start(folder, before="", after=""):
    code = PLAY.format(before=before, after=after)
    env = {**os.environ, "YENDOR_TMPDIR": str(folder), "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    )


def test_closing_the_last_games_removes_their_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("YENDOR_TMPDIR", str(tmp_path))
    tempdirs.remove()
    config = GamesConfig(task="MiniHack-Room-5x5-v0", obs_keys=("blstats",))
    one, other = (make(config, 1, TrainingSeeds(0, 0, 1)) for _ in range(2))
    assert len(list(tmp_path.iterdir())) == 1
    one.close()
    one.close()
    assert len(list(tmp_path.iterdir())) == 1
    other.reset()
    other.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("after", ["", "sys.exit(3)", "raise ValueError"])
def test_nothing_is_left_at_exit(tmp_path, after):
    process = start(tmp_path, after=after)
    process.communicate(timeout=60)
    assert not list(tmp_path.iterdir())


def test_sigterm_cleans_up_and_still_kills(tmp_path):
    process = start(tmp_path, after="print('ready', flush=True); time.sleep(60)")
    assert process.stdout.readline() == "ready\n" and list(tmp_path.iterdir())
    process.terminate()
    assert process.wait(timeout=20) == -signal.SIGTERM
    assert not list(tmp_path.iterdir())


def test_sigterm_passes_on_to_the_handler_that_was_there(tmp_path):
    before = "signal.signal(signal.SIGTERM, lambda n, f: (print('mine', flush=True), sys.exit(7)))"
    process = start(tmp_path, before, "print('ready', flush=True); time.sleep(60)")
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("mine\n", 7) and not list(tmp_path.iterdir())


def test_a_forked_child_leaves_its_parents_games_alone(tmp_path):
    after = """
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
for _ in range(300):
    games.step(np.array([0, 1]))
print('fine')
"""
    process = start(tmp_path, after=after)
    assert process.communicate(timeout=60)[0] == "fine\n" and process.returncode == 0
    assert not list(tmp_path.iterdir())


def test_sweep_removes_what_the_dead_left_and_only_that(tmp_path):
    living = start(tmp_path, after="print('ready', flush=True); time.sleep(60)")
    dead = start(tmp_path, after="print('ready', flush=True); time.sleep(60)")
    assert living.stdout.readline() == dead.stdout.readline() == "ready\n"
    (tmp_path / "something-else").mkdir()
    dead.send_signal(signal.SIGKILL)
    dead.wait(timeout=20)
    assert tempdirs.sweep(tmp_path) == 1
    assert len(list(tmp_path.iterdir())) == 2
    living.terminate()
    living.wait(timeout=20)
    assert [p.name for p in tmp_path.iterdir()] == ["something-else"]
