"""The built wheel, in a clean virtual environment, outside the checkout."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(*command, cwd):
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_wheel_trains_evaluates_and_lists_labels(tmp_path):
    source, away = tmp_path / "source", tmp_path / "away"
    away.mkdir()
    # A copy, so that the build leaves nothing in the checkout.
    _run("git", "clone", "--quiet", ROOT, source, cwd=tmp_path)
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("yendor-*.whl")
    _run(sys.executable, "-m", "venv", "venv", cwd=tmp_path)
    pip = tmp_path / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet"
    _run(*pip, "torch>=2.11,<2.14", cwd=away)
    _run(*pip, wheel, cwd=away)
    yendor = tmp_path / "venv" / "bin" / "yendor"
    tiny = "--rollout.num-workers 1 --rollout.games-per-worker 4 --rollout.num-steps 32 --ppo.minibatch 64"
    _run(yendor, "train", "keyroom_oni", "--name", "r", "--total-steps", "512", *tiny.split(), cwd=away)
    assert "success" in _run(yendor, "eval", "runs/r", "--episodes", "4", cwd=away)
    assert "lexicon" in _run(yendor, "labels", "list", "runs/r", cwd=away)
    _run(yendor, "report", "runs/r", cwd=away)
    assert (away / "runs" / "r" / "report.html").stat().st_size > 10_000
