"""The whole path: games, labels, rewards, PPO, checkpoints; in this process and on Ray."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from launch.config.presets import preset
from launch.config.train_config import TrainConfig
from launch.errors import RunError, UserError
from launch.processes.lifecycle import StopRequest
from launch.runs.folder import RunFolder, read_events
from launch.training.driver import train
from tests.launch.running import trained

UPDATE = 4 * 32
"""Environment steps of one update below."""


def small_run(tmp_path, **changes):
    """A small run with every part in it: labels, two streams, checkpoints."""
    config = {
        "runs": str(tmp_path),
        "name": "run",
        "threads": 1,
        "total_steps": 4 * UPDATE,
        "rollout": {"num_workers": 0, "games_per_worker": 4, "num_steps": 32},
        "ppo": {"minibatch": 64, "epochs": 2, "precision": "fp32"},
        "labels": {"mode": "barrier"},
        "logging": {"interval_s": 0.01, "tensorboard": False},
    }
    values = preset("keyroom_oni").model_dump(mode="json")
    for layer in (config, changes):
        for key, value in layer.items():
            values[key] = values[key] | value if isinstance(value, dict) else value
    return TrainConfig.model_validate(values)


HERE = {"num_workers": 0}
PEERS = {"num_workers": 2, "games_per_worker": 2}


@pytest.mark.parametrize(
    ("core", "rollout"),
    [("none", HERE), ("gru", HERE), ("none", PEERS), pytest.param("gru", PEERS, marks=pytest.mark.slow)],
)
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, core, rollout):
    model = {"model": {"core": core, "core_hidden": 16}, "rollout": rollout}
    whole = trained(small_run(tmp_path / "whole", **model))
    trained(small_run(tmp_path / "cut", total_steps=2 * UPDATE, **model))
    resumed = trained(small_run(tmp_path / "cut", **model), resume=True)
    assert whole.steps == resumed.steps == 4 * UPDATE
    assert whole.weights_sha256 == resumed.weights_sha256


@pytest.mark.parametrize("kind", ["classification", "ranking"])
def test_a_resumed_reward_model_equals_the_uninterrupted_one(tmp_path, kind):
    oni = {"kind": kind, "weight": 0.1, "min_labels": 4, "steps_per_label": 1, "refresh_updates": 2}
    changes = {"reward": {"oni": oni}, "labels": {"mode": "barrier", "client": {"kind": "scripted"}}}
    whole = trained(small_run(tmp_path / "whole", total_steps=8 * UPDATE, **changes))
    trained(small_run(tmp_path / "cut", total_steps=5 * UPDATE, **changes))
    resumed = trained(small_run(tmp_path / "cut", total_steps=8 * UPDATE, **changes), resume=True)
    assert whole.weights_sha256 == resumed.weights_sha256
    figures = {name: value for name, value in whole.metrics.items() if name.startswith(("reward_model/", "rewards/"))}
    assert figures.items() <= resumed.metrics.items()
    assert whole.metrics["reward_model/gradient_steps"] > 0 and whole.metrics["labels/coverage"] == 1.0


@pytest.mark.parametrize("rollout", [HERE, PEERS])
def test_a_run_leaves_its_folder_complete(tmp_path, rollout):
    trained(small_run(tmp_path, rollout=rollout))
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4 * UPDATE
    assert lines[-1]["labels/known"] > 0
    assert {"rewards/env/mean", "rewards/oni/mean", "policy/entropy", "time/steps_per_s"} <= lines[-1].keys()
    captions = json.loads((run / "captions.json").read_text())
    assert captions and all(row["text"] for row in captions)
    assert any(row["label"] is not None for row in captions)
    kinds = [event["kind"] for event in read_events(run)]
    assert kinds[-2:] == ["checkpoint", "finished"]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    config = small_run(tmp_path, checkpoint={"interval_updates": 1})
    trained(config)
    newest = tmp_path / "run" / "checkpoints" / f"{4 * UPDATE:012d}" / "model.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    longer = small_run(tmp_path, checkpoint={"interval_updates": 1}, total_steps=5 * UPDATE)
    trained(longer, resume=True)
    events = read_events(tmp_path / "run")
    (damaged,) = [event for event in events if event["kind"] == "checkpoint_damaged"]
    assert "model.safetensors" in damaged["text"]
    (resumed,) = [event for event in events if event["kind"] == "resumed"]
    assert resumed["step"] == 3 * UPDATE


def test_one_ray_worker_gives_the_same_run_as_none(tmp_path):
    here = trained(small_run(tmp_path / "here"))
    on_ray = trained(small_run(tmp_path / "ray", rollout={"num_workers": 1}, placement="split"))
    peer = trained(small_run(tmp_path / "peer", rollout={"num_workers": 1}, placement="symmetric"))
    assert here.weights_sha256 == on_ray.weights_sha256 == peer.weights_sha256


def _ray_worker_pids():
    """Rollout actors and peers below this process."""
    below = psutil.Process().children(recursive=True)
    names = [(p.pid, " ".join(p.cmdline())) for p in below if p.is_running()]
    return [pid for pid, name in names if "RolloutActor" in name or "PeerActor" in name]


class _Killer:
    """A progress display that kills rollout workers when it is shown an update."""

    def __init__(self, times):
        self.times, self.killed, self.notes = times, [], []

    def update(self, step, metrics):
        for pid in _ray_worker_pids():
            if len(self.killed) < self.times and pid not in self.killed:
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
                return

    def note(self, text):
        self.notes.append(text)


def _train_with(killer, config):
    folder = RunFolder.create(config.runs, config.name, config.model_dump_json(), prefix="x")
    with folder, StopRequest() as stop:
        return train(config, folder, killer, stop)


@pytest.mark.parametrize(("placement", "lag"), [("split", 1), ("symmetric", 0)])
def test_a_dead_worker_is_replaced_and_one_that_keeps_dying_ends_the_run(tmp_path, placement, lag):
    rollout = {"num_workers": 2, "max_policy_lag": lag}
    asynchronous = {"labels": {"mode": "async"}, "ppo": {"minibatch": 64}, "total_steps": 12 * 2 * UPDATE}
    asynchronous["placement"] = placement
    once = _Killer(1)
    summary = _train_with(once, small_run(tmp_path / "once", rollout=rollout, **asynchronous))
    assert len(once.killed) == 1
    assert summary.metrics["workers/deaths"] == 1
    assert summary.metrics["rollout/dropped"] == 1
    assert summary.metrics["policy/lag_max"] == lag
    assert [e["kind"] for e in read_events(tmp_path / "once" / "run")].count("worker_died") == 1

    often = _Killer(5)
    config = small_run(
        tmp_path / "often",
        rollout=rollout | {"max_worker_deaths": 1},
        **(asynchronous | {"total_steps": 10**6}),
    )
    with pytest.raises(RunError, match="max_worker_deaths 1"):
        _train_with(often, config)


class _KillsAll(_Killer):
    """Kills every peer at once, when it is shown the first update."""

    def update(self, step, metrics):
        for pid in _ray_worker_pids() if not self.killed else ():
            os.kill(pid, signal.SIGKILL)
            self.killed.append(pid)


def test_when_every_peer_dies_nothing_is_made_up(tmp_path):
    config = small_run(tmp_path, rollout=PEERS, labels={"mode": "async"}, total_steps=10**6)
    with pytest.raises(RunError, match="every peer died, and their network with them; go on with --resume"):
        _train_with(_KillsAll(1), config)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["split", "symmetric"])
def test_a_worker_that_grew_too_much_is_replaced_and_plays_on_where_it_stood(tmp_path, placement):
    rollout = {"num_workers": 2, "games_per_worker": 2}
    often = {"checkpoint": {"interval_updates": 1}, "placement": placement}
    kept = trained(small_run(tmp_path / "kept", rollout=rollout, **often))
    fresh = trained(small_run(tmp_path / "fresh", rollout=rollout | {"recycle_growth_mb": 1e-9}, **often))
    kinds = [e["kind"] for e in read_events(tmp_path / "fresh" / "run")]
    assert "worker_recycled" in kinds
    assert fresh.metrics["workers/deaths"] == 0
    assert kept.weights_sha256 == fresh.weights_sha256


@pytest.mark.parametrize(("num_workers", "placement"), [(0, "split"), (1, "split"), (2, "symmetric")])
def test_sigterm_saves_and_leaves_nothing_behind(tmp_path, num_workers, placement):
    # Not below tmp_path: Ray's sockets need a short path.
    temporary = Path(tempfile.mkdtemp(prefix="yt-"))
    shared_memory = set(Path("/dev/shm").iterdir())
    command = (
        f"train keyroom_oni --name run --runs {tmp_path} --rollout.num-workers {num_workers} "
        f"--placement {placement} "
        "--rollout.games-per-worker 4 --rollout.num-steps 32 --ppo.minibatch 64 --logging.interval-s 0.2"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.cli", *command.split()],
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.2)
    children = psutil.Process(process.pid).children(recursive=True)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)  # before anything is asserted: a failed test leaves nothing running either
    code = process.wait(timeout=60)
    assert bool(children) == bool(num_workers)
    assert code == 128 + signal.SIGTERM
    assert time.monotonic() - began < 30
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert (tmp_path / "run" / "latest").exists()
    # torch makes a cache folder of its own, one for each user, which is not ours to remove.
    assert [p.name for p in temporary.iterdir() if not p.name.startswith("torchinductor")] == []
    assert set(Path("/dev/shm").iterdir()) <= shared_memory
    shutil.rmtree(temporary)


def test_a_run_folder_in_use_is_refused(tmp_path):
    config = small_run(tmp_path)
    with (
        RunFolder.create(config.runs, "run", config.model_dump_json()),
        pytest.raises(UserError, match="in use by"),
    ):
        RunFolder.open(tmp_path / "run")
