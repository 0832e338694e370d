import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from envs import files
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
    files.remove_folder()
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
    assert files.sweep(tmp_path) == 1
    assert len(list(tmp_path.iterdir())) == 2
    living.terminate()
    living.wait(timeout=20)
    assert [p.name for p in tmp_path.iterdir()] == ["something-else"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a.txt"
    files.write_atomic(file, "old")
    with pytest.raises(KeyError), files.replacing(file) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"] and file.read_text() == "old"
    with files.replacing(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"] and file.read_text() == "new"


def test_a_lock_is_held_by_one_and_leaves_what_the_file_says(tmp_path):
    file = tmp_path / "lock"
    file.write_text("mine")
    one, other = files.file_lock(file), files.file_lock(file)
    one.acquire(blocking=False)
    with pytest.raises(TimeoutError):
        other.acquire(blocking=False)
    with pytest.raises(TimeoutError):
        other.acquire(timeout=0.05, poll_interval=0.01)
    thread = threading.Thread(target=one.release)
    thread.start()
    thread.join()
    with other:
        assert file.read_text() == "mine"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        files.file_lock(tmp_path / "folder").acquire(blocking=False)


def test_a_torn_line_is_cut_off_and_values_become_json(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"n": 1}\n{"n": ')
    assert list(files.read_lines(file)) == [{"n": 1}]
    lines = files.JsonLines(file)
    lines.append({"n": np.float32(2), "inf": math.inf, "path": Path("a"), "set": {3}, 4: np.arange(2)})
    lines.close()
    assert list(files.read_lines(file))[1] == {"n": 2.0, "inf": None, "path": "a", "set": [3], "4": [0, 1]}
    file.write_text("[]\n")
    with pytest.raises(ValueError, match="line 1 is not a JSON object"):
        list(files.read_lines(file))
