"""``yendor serve-llm MODEL``: a vLLM server with settings that suit labelling, until it is told to stop."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launch.arguments import parse
from launch.errors import RunError, UserError
from launch.llm.config import ServerConfig
from rewards.llm.config import read_key

if TYPE_CHECKING:
    from launch.llm.server import VLLMServer

_PROG = "yendor serve-llm MODEL"
_USAGE = """usage: yendor serve-llm MODEL [--flag value ...] [-- VLLM-FLAG ...]

MODEL is a folder in Hugging Face's format, or the name of a model in the local cache; nothing is downloaded.
What follows -- is handed to vLLM. 'yendor serve-llm MODEL --help' lists the flags.
"""
_POLL_S = 0.25


def run(argv: Sequence[str]) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_USAGE)
        return 0
    model, *rest = argv
    if model.startswith("-"):
        raise UserError("the model comes first: yendor serve-llm MODEL --flag value ...")
    config = _config(rest)
    from launch.llm.server import VLLMServer
    from launch.processes.lifecycle import StopRequest

    handle, log = tempfile.mkstemp(prefix="yendor-vllm-", suffix=".log")
    os.close(handle)
    try:
        server = VLLMServer(model, config, Path(log))
    except UserError:
        Path(log).unlink()
        raise
    with StopRequest() as stop:
        try:
            _serve(server, config, lambda: stop.signal is not None)
        finally:
            server.stop()
    Path(log).unlink()  # kept where something went wrong
    return stop.exit_code


def _config(argv: Sequence[str]) -> ServerConfig:
    words = list(argv)
    at = words.index("--") if "--" in words else len(words)
    config = parse(ServerConfig(), words[:at], _PROG)
    if not words[at + 1 :]:
        return config
    from launch.arguments import validate

    return validate(ServerConfig, config.model_dump() | {"extra": tuple(words[at + 1 :])})


def _serve(server: VLLMServer, config: ServerConfig, should_stop: Callable[[], bool]) -> None:
    print(f"starting vLLM {server.vllm_version}; its log: {server.log_path}", flush=True)
    server.start()
    if not server.wait_ready(should_stop):
        return
    key = f" (the API key is that in {config.api_key_env})" if read_key(config.api_key_env) else ""
    print(f"serving {server.model} at {server.base_url}{key}; Ctrl-C ends it")
    print(f"  yendor train keyroom_oni --llm.base-url {server.base_url} --llm.model {server.model}", flush=True)
    while not should_stop():
        if not server.is_alive:
            raise RunError(f"the language model server ended: {server.log_tail()}")
        time.sleep(_POLL_S)
