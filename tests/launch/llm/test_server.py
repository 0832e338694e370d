"""Starting, watching and ending a server: a fake ``vllm`` with real processes, sockets and shared memory."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launch.errors import RunError, UserError
from launch.llm import process_group
from launch.llm.config import ServerConfig
from launch.llm.server import VLLMServer, check_port, free_port
from tests.launch.llm.watching import argument, is_running, state, wait_until


def test_a_server_starts_answers_and_leaves_nothing(server):
    with server:
        seen = state(server.base_url)
        assert argument(seen["argv"], "--port") == str(server.port)
        assert seen["env"]["HF_HUB_OFFLINE"] == "1" and server.is_alive and server.is_healthy()
        assert os.getpgid(seen["pid"]) == os.getpgid(seen["engine"]) == server.group != os.getpgid(0)
        assert Path("/dev/shm", seen["segment"]).exists()
    assert not is_running(seen["pid"]) and not is_running(seen["engine"])
    assert not server.is_alive and not server.is_healthy()
    assert not Path("/dev/shm", seen["segment"]).exists()
    assert server.group is None
    server.stop()  # again is no fault


def test_a_dead_servers_pid_is_held_until_it_is_stopped_and_then_forgotten(server, monkeypatch):
    server.start()
    group = server.group
    os.killpg(group, signal.SIGKILL)
    wait_until(lambda: not server.is_alive)
    assert Path(f"/proc/{group}").exists(), "no other process can be given it"
    server.stop()
    assert not Path(f"/proc/{group}").exists() and not server.is_alive
    ended = []
    monkeypatch.setattr(process_group, "end", ended.append)
    server.stop()
    assert ended == []


def test_what_ignores_sigterm_is_killed(server):
    server._command = type(server._command)(
        server._command.argv, {**server._command.environment, "FAKE_VLLM": "stubborn"}
    )
    with server:
        seen = state(server.base_url)
        process_group.end(server.group, grace_s=0.3)
        assert not is_running(seen["pid"]) and not is_running(seen["engine"])


def test_a_server_that_dies_takes_its_engine_along_and_can_be_started_again(server):
    server.start()
    assert server.wait_ready()
    seen = state(server.base_url)
    os.kill(seen["pid"], signal.SIGKILL)
    wait_until(lambda: not server.is_alive)
    assert not is_running(seen["engine"])
    url = server.base_url
    server.start()
    assert not Path("/dev/shm", seen["segment"]).exists()
    assert server.wait_ready() and server.base_url == url and state(url)["pid"] != seen["pid"]


def test_a_killed_parent_leaves_no_server(vllm, model, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from launch.llm.server import *; "
        "from launch.llm.config import *; "
        f"s = VLLMServer({model!r}, ServerConfig(vllm={str(vllm)!r}), Path({str(tmp_path / 'log')!r})); "
        "s.start(); s.wait_ready(); print(s.base_url, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        seen = state(parent.stdout.readline().strip())
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    wait_until(lambda: not is_running(seen["pid"]) and not is_running(seen["engine"]))
    wait_until(lambda: not Path("/dev/shm", seen["segment"]).exists())


def test_a_start_that_fails_shows_the_log(vllm, model, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "bad-model")
    server = VLLMServer(model, ServerConfig(vllm=vllm), tmp_path / "logs" / "vllm.log")
    with (
        pytest.raises(RunError, match=r"(?s)ended while it was starting: its log .*this model type is not known"),
        server,
    ):
        pass
    assert not server.is_alive


def test_a_start_that_takes_too_long_is_ended(vllm, model, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "mute")
    server = VLLMServer(model, ServerConfig(vllm=vllm, ready_timeout_s=0.5), tmp_path / "vllm.log")
    with (
        pytest.raises(RunError, match=r"(?s)did not answer within 0\.5 s: .*it logged nothing"),
        server,
    ):
        pass
    assert not server.is_alive


def test_waiting_ends_when_told(vllm, model, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "mute")
    server = VLLMServer(model, ServerConfig(vllm=vllm), tmp_path / "vllm.log")
    server.start()
    assert not server.wait_ready(lambda: True)
    server.stop()


def test_a_taken_port_and_a_strange_address_are_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=r"cannot listen at 127\.0\.0\.1 port"):
            check_port("127.0.0.1", taken.getsockname()[1])
    check_port("127.0.0.1", free_port("127.0.0.1"))
    with pytest.raises(UserError, match=r"cannot listen at 192\.0\.2\.1"):
        free_port("192.0.2.1")
