"""A vLLM server as a child process: started, waited for, ended with everything that it started."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from launch.errors import RunError, UserError
from launch.llm import process_group
from launch.llm.config import ServerConfig
from launch.llm.vllm import find_model, find_vllm, server_command

_POLL_S = 0.25
_HEALTH_TIMEOUT_S = 5.0
_LAST_LINES = 8
_PORT_RELEASE_S = 10.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that mean every interface of a machine, and how it reaches itself there."""


class VLLMServer:
    """One vLLM server, in a process group of its own that a guard (``launch.llm.process_group``) watches.

    A context manager: on entry it starts and is waited for, at the end it stops. It may be started again after it
    has stopped or died, at the same address.

    Args:
        model: a folder, or a name in the local cache of Hugging Face's hub.
        config: how it is served.
        log_path: what vLLM says is appended to this file.

    Raises:
        UserError: there is no such model, no vLLM, the port is taken, or other machines could use it without a key.
    """

    def __init__(self, model: str, config: ServerConfig, log_path: Path) -> None:
        found, vllm = find_model(model), find_vllm(config.vllm)
        self._config, self.log_path = config, log_path
        self.model = config.served_model_name or found.name
        """What clients call the model."""
        self.vllm_version = vllm.version
        self.port = config.port or free_port(config.host)
        check_port(config.host, self.port)
        self._command = server_command(vllm, found, config, self.port)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begin = 0
        self._shared_memory: set[Path] = set()

    @property
    def base_url(self) -> str:
        """The address for clients: ``http://host:port/v1``."""
        host = f"[{self._address}]" if ":" in self._address else self._address
        return f"http://{host}:{self.port}/v1"

    @property
    def _address(self) -> str:
        """Where this machine reaches it."""
        return _EVERYWHERE.get(self._config.host, self._config.host)

    @property
    def group(self) -> int | None:
        """Id of the server's process group, which is the pid of its guard; None before a start and after a stop."""
        return None if self._process is None else self._process.pid

    @property
    def is_alive(self) -> bool:
        """It was started, and has not ended."""
        if self._process is None:
            return False
        # WNOWAIT leaves it waitable: until ``stop`` reaps it, no other process can be given its pid and group.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def start(self) -> None:
        """Start the processes; returns at once.

        Raises:
            UserError: the port is taken.
            RuntimeError: it runs already.
        """
        if self.is_alive:
            raise RuntimeError("the server runs already")
        self.stop()  # cleans up after an earlier one
        check_port(self._config.host, self.port)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._log_begin = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", process_group.__file__, *self._command.argv],
                env=self._command.environment,
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends: the guard then ends the rest
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Wait until it answers.

        Args:
            should_stop: asked again and again; True ends the wait.

        Returns:
            True where it answers, False where ``should_stop`` ended the wait.

        Raises:
            RunError: it ended, or did not answer in time; with the last lines of its log.
        """
        deadline_s = time.monotonic() + self._config.ready_timeout_s
        while not should_stop():
            if not self.is_alive:
                raise RunError(f"the language model server ended while it was starting: {self.log_tail()}")
            if self.is_healthy():
                # Recorded while it lives: it cannot be found out of a server that was killed.
                self._shared_memory = process_group.shared_memory(self._process.pid) if self._process else set()
                return True
            if time.monotonic() > deadline_s:
                raise RunError(
                    f"the language model server did not answer within {self._config.ready_timeout_s:g} s: "
                    f"{self.log_tail()}"
                )
            time.sleep(_POLL_S)
        return False

    def is_healthy(self) -> bool:
        """It answers, and its engine lives."""
        # http.client knows nothing of proxies: the server is on this machine.
        connection = http.client.HTTPConnection(self._address, self.port, timeout=_HEALTH_TIMEOUT_S)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def log_tail(self) -> str:
        """The last lines that it logged since its last start, and where the whole log is."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_begin)
            text = log.read().decode(errors="replace")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        last = "\n  ".join(lines[-_LAST_LINES:]) or "it logged nothing"
        return f"its log {self.log_path} ends with\n  {last}"

    def stop(self) -> None:
        """End it and everything that it started; nothing happens where it does not run.

        Returns when all are gone, after SIGTERM or else SIGKILL, and the port is free. Its shared memory is freed.
        """
        if self._process is None:
            return
        process_group.end(self._process.pid)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._process = None  # from now on its pid may be somebody else's
        _wait_until_free(self._config.host, self.port)
        for segment in self._shared_memory:
            segment.unlink(missing_ok=True)
        self._shared_memory = set()

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _wait_until_free(host: str, port: int) -> None:
    """A killed process releases its port when its last thread has ended, after the process itself has disappeared."""
    deadline_s = time.monotonic() + _PORT_RELEASE_S
    while time.monotonic() < deadline_s:
        try:
            check_port(host, port)
            return
        except UserError:
            time.sleep(0.05)


def free_port(host: str) -> int:
    """A port at which nothing listens now.

    Raises:
        UserError: this machine has no such address.
    """
    with _bound(host, 0) as listener:
        return listener.getsockname()[1]


def check_port(host: str, port: int) -> None:
    """Nothing listens at this port.

    Raises:
        UserError: something does, or this machine has no such address.
    """
    _bound(host, port).close()


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise UserError(f"there is no host '{host}': {error.strerror}") from None
    listener = socket.socket(family, kind, protocol)
    # As servers do: connections of an earlier server that are being closed do not matter.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise UserError(f"the server cannot listen at {host} port {port}: {os.strerror(error.errno or 0)}") from None
    return listener
