"""``yendor serve-llm MODEL``: a vLLM server with settings that suit labelling, until it is stopped by a signal."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic_settings import CliPositionalArg

from launch.config.flags import AFTER
from launch.errors import RunError, UserError
from launch.llm.config import ServerConfig
from rewards.llm.config import read_key

if TYPE_CHECKING:
    from launch.llm.server import VLLMServer

_POLL_S = 0.25


class ServeFlags(ServerConfig):
    """Serve a language model for labelling, with vLLM, until Ctrl-C or SIGTERM; nothing is downloaded.

    yendor serve-llm MODEL [--flag value ...] [-- VLLM-FLAG ...]
    """

    model: CliPositionalArg[str]
    """A model: a folder in Hugging Face's format, or a name in the local cache."""
    extra: Annotated[tuple[str, ...], Field(alias=AFTER)] = ()
    """What is handed to vLLM."""


def run(flags: ServeFlags) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    from launch.llm.server import VLLMServer
    from launch.processes.lifecycle import StopRequest

    handle, log = tempfile.mkstemp(prefix="yendor-vllm-", suffix=".log")
    os.close(handle)
    try:
        server = VLLMServer(flags.model, flags, Path(log))
    except UserError:
        Path(log).unlink()
        raise
    with StopRequest() as stop:
        try:
            _serve(server, flags, lambda: stop.signal is not None)
        finally:
            server.stop()
    Path(log).unlink()  # kept where something went wrong
    return stop.exit_code


def _serve(server: VLLMServer, config: ServerConfig, should_stop: Callable[[], bool]) -> None:
    print(f"starting vLLM {server.vllm_version}; its log: {server.log_path}", flush=True)
    server.start()
    if not server.wait_ready(should_stop):
        return
    key = f" (the API key is that in {config.api_key_env})" if read_key(config.api_key_env) else ""
    print(f"serving {server.model} at {server.base_url}{key}; Ctrl-C ends it")
    print(f"  yendor train PRESET --llm.base-url {server.base_url} --llm.model {server.model}", flush=True)
    while not should_stop():
        if not server.is_alive:
            raise RunError(f"the language model server ended: {server.log_tail()}")
        time.sleep(_POLL_S)
