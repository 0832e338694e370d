"""``yendor serve-llm`` with a fake ``vllm``."""

import os
import signal
import subprocess
import sys

import pytest

from launch.commands.serve_llm import ServeFlags
from launch.config.flags import parse
from launch.errors import UserError
from tests.launch.llm.watching import argument, is_running, state


def test_flags_on_the_command_line():
    config = parse(ServeFlags, ["m", "--port", "8000", "--dtype", "float32", "--", "--quantization", "fp8"], "x")
    assert (config.port, config.dtype, config.extra) == (8000, "float32", ("--quantization", "fp8"))
    with pytest.raises(UserError, match="--trust-remote-code cannot be handed"):
        parse(ServeFlags, ["m", "--", "--trust-remote-code"], "x")


def test_the_command_serves_until_a_signal(vllm, model, tmp_path):
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
