"""A fake ``vllm``, a model for it, and a server of both."""

import json
import sys
from pathlib import Path

import pytest

from launch.llm.config import ServerConfig
from launch.llm.server import VLLMServer

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
