"""Training labelled by a real vLLM server, which is killed in the middle of it."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest

from launch.cli import main
from rewards.labels.store import LabelStore

pytestmark = pytest.mark.vllm

PACE = {"retrieval": 1, "classification": 1, "ranking": 6}
"""Labels a second: KeyRoom-S5 says 13 things, so that all would be labelled before the server is killed."""
SMALL = [
    *("--rollout.num-workers", "1", "--rollout.games-per-worker", "8", "--rollout.num-steps", "32"),
    *("--ppo.minibatch", "128", "--ppo.epochs", "1", "--model.encoder.hidden", "32"),
    *("--logging.interval-s", "0.5", "--no-logging.tensorboard", "--labels.labeller.retry-deadline-s", "5"),
]
DEADLINE_S = 180.0


@contextmanager
def training(tmp_path, *flags):
    """``yendor train keyroom_oni`` in a process of its own, ended by SIGTERM; gives its run folder."""
    command = ["train", "keyroom_oni", "--runs", str(tmp_path), "--name", "run", "--total-steps", "100000000"]
    process = subprocess.Popen([sys.executable, "-m", "launch.cli", *command, *SMALL, *flags])
    try:
        yield process, tmp_path / "run"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def lines(run):
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def events(run, kind):
    found = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event for event in found if event["kind"] == kind]


def until(process, condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, "training has ended"
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def last(run, name):
    found = lines(run)
    return found[-1].get(name, 0.0) if found else 0.0


def stored(run):
    with LabelStore(run / "labels.sqlite", read_only=True) as store:
        labels, _ = store.since(0, limit=1_000_000)
    return labels


@pytest.mark.parametrize("kind", PACE)
def test_training_outlives_a_killed_server_and_labels_resume(vllm_server, tmp_path, kind):
    at_a_slow_pace = ["--labels.labeller.max-labels-per-s", str(PACE[kind]), "--reward.oni.kind", kind]
    where = ["--llm.base-url", vllm_server.base_url, "--llm.model", vllm_server.model]
    with training(tmp_path, *where, *at_a_slow_pace) as (process, run):
        until(process, lambda: last(run, "labels/known") >= 4 * PACE[kind])
        vllm_server.kill()
        acknowledged = {label.key: label.value for label in stored(run)}
        until(process, lambda: bool(events(run, "labels_stopped")))
        at = last(run, "step")
        until(process, lambda: last(run, "step") > at + 2000)
        known = last(run, "labels/known")
        assert not events(run, "labels_resumed")
        vllm_server.restart()
        until(process, lambda: bool(events(run, "labels_resumed")) and last(run, "labels/known") > known)
        until(process, lambda: last(run, "labels/coverage") > 0.3)
    labels = stored(run)
    kept = {label.key: label.value for label in labels}
    assert kept.items() >= acknowledged.items(), "an acknowledged label was lost"
    assert len({label.key for label in labels}) == len(labels)
    asked = [(label.caption_id, label.second_id) for label in labels]
    assert len(set(asked)) == len(asked), "something was labelled twice"
    written = sum(last(run, f"labels/{name}") for name in ("labelled", "refused", "uncovered"))
    assert written <= len(labels) and all(label.model == vllm_server.model for label in labels)
    assert len(events(run, "labels_stopped")) == len(events(run, "labels_resumed")) == 1


def test_a_run_serves_its_own_model_and_starts_it_again(standin_model, vllm, tmp_path):
    serve = ["--llm.serve", str(standin_model), "--llm-server.vllm", str(vllm.executable)]
    with training(tmp_path, *serve, "--labels.labeller.max-labels-per-s", "1") as (process, run):
        until(process, lambda: last(run, "labels/known") >= 3)
        assert last(run, "step") > 0
        (server,) = {
            os.getpgid(child.pid)
            for child in psutil.Process(process.pid).children(recursive=True)
            if os.getpgid(child.pid) == child.pid and "process_group" in " ".join(child.cmdline())
        }
        os.killpg(server, signal.SIGKILL)
        until(process, lambda: len(events(run, "llm_server_ready")) == 2)
        known = last(run, "labels/known")
        until(process, lambda: last(run, "labels/known") > known)
    assert [event["kind"] for event in events(run, "llm_server_died")] == ["llm_server_died"]
    assert {label.model for label in stored(run)} == {standin_model.name}
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(standin_model) in " ".join(p.info["cmdline"] or [])]


def test_a_second_seed_asks_only_for_what_is_new(vllm_server, tmp_path):
    where = ["--llm.base-url", vllm_server.base_url, "--labels.path", str(tmp_path / "shared.sqlite")]
    command = ["train", "keyroom_oni", "--runs", str(tmp_path), "--total-steps", "8192", *SMALL, *where]
    asked = []
    for seed in ("1", "2"):
        assert main([*command, "--labels.mode", "barrier", "--name", f"seed{seed}", "--seed", seed]) == 0
        asked.append(lines(tmp_path / f"seed{seed}")[-1]["labels/asked"])
    with LabelStore(tmp_path / "shared.sqlite", read_only=True) as store:
        assert store.count() == sum(asked)
    assert asked[1] < asked[0] / 2
