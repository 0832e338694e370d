"""A server beside a run: restarted when it dies, given up when it dies too often."""

import os
import signal
import threading

import pytest

from launch.errors import RunError
from launch.llm.config import ServerConfig
from launch.llm.server import VLLMServer
from launch.llm.supervisor import SupervisedServer, serving
from tests.launch.llm.watching import is_running, state, wait_until


class Events:
    def __init__(self):
        self.seen = []

    def __call__(self, name, /, **fields):
        self.seen.append((name, fields))

    def names(self):
        return [name for name, _ in self.seen]


def test_a_run_begins_before_its_server_answers_and_gets_it_back_after_a_death(vllm, model, tmp_path):
    events = Events()
    with serving(model, ServerConfig(vllm=vllm), tmp_path, events) as url:
        wait_until(lambda: events.names() == ["llm_server_ready"])
        assert events.seen[0][1]["base_url"] == url and events.seen[0][1]["model"] == "little"
        first = state(url)["pid"]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: events.names()[1:] == ["llm_server_died", "llm_server_ready"])
        assert events.seen[1][1]["restart_in_s"] == 1.0
        second = state(url)["pid"]
        assert second != first
    assert not is_running(second)
    assert events.names() == ["llm_server_ready", "llm_server_died", "llm_server_ready"]
    assert (tmp_path / "vllm.log").read_text().count("serving") == 2


def test_too_many_deaths_end_the_attempts(vllm, model, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "bad-model")
    server = VLLMServer(model, ServerConfig(vllm=vllm), tmp_path / "vllm.log")
    events = Events()
    supervised = SupervisedServer(server, events, max_deaths=2, backoff_s=0.1)
    supervised.start()
    with pytest.raises(RunError, match="ended while it was starting"):
        supervised.wait_ready()
    wait_until(lambda: "llm_server_given_up" in events.names())
    supervised.stop()
    assert events.names() == ["llm_server_died"] * 3 + ["llm_server_given_up"]
    assert [fields["restart_in_s"] for name, fields in events.seen[:3]] == [0.1, 0.2, None]
    assert events.seen[-1][1] == {"deaths": 3}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_supervisor_that_failed(server):
    def full_disk(name, /, **fields):
        raise OSError("no space left")

    supervised = SupervisedServer(server, full_disk)
    supervised.start()
    with pytest.raises(RunError, match="is not supervised any more"):
        supervised.wait_ready()
    supervised.stop()
    assert not server.is_alive


def test_a_required_server_is_waited_for(vllm, model, tmp_path, monkeypatch):
    with serving(model, ServerConfig(vllm=vllm), tmp_path, Events(), required=True) as url:
        assert state(url)["pid"]
    monkeypatch.setenv("FAKE_VLLM", "bad-model")
    with (
        pytest.raises(RunError, match="this model type is not known"),
        serving(model, ServerConfig(vllm=vllm), tmp_path, Events(), required=True),
    ):
        pass


def test_stopping_does_not_wait_for_a_slow_start(vllm, model, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "mute")
    with serving(model, ServerConfig(vllm=vllm), tmp_path, Events()):
        pass
    assert not [t for t in threading.enumerate() if t.name == "llm-server"]
