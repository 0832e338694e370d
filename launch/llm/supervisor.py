"""Supervises a run's language model server: starts it beside the run, and restarts it when it dies."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from launch.errors import RunError, UserError
from launch.llm.config import ServerConfig
from launch.llm.server import VLLMServer

LOG_NAME = "vllm.log"
_POLL_S = 0.5


class OnEvent(Protocol):
    """Called with each event of the server, from the supervisor's thread."""

    def __call__(self, name: str, /, **fields: Any) -> None:
        """Take an event and its fields, which are JSON values."""
        ...


class SupervisedServer:
    """A server that is restarted when it dies, at the same address, so that clients need only retry.

    A thread watches it. Its events:

    * ``llm_server_ready``: ``base_url``, ``model``, ``seconds`` that the start took;
    * ``llm_server_died``: ``cause``, ``restart_in_s`` (None: no more restarts);
    * ``llm_server_given_up``: ``deaths`` within the window. The run may go on without it.

    Args:
        server: not started yet.
        on_event: called with each event, from the thread.
        max_deaths: deaths within the window that are tolerated.
        window_s: the window.
        backoff_s: wait before the first restart; doubles with each death within the window.
        backoff_max_s: longest wait.
    """

    def __init__(
        self,
        server: VLLMServer,
        on_event: OnEvent,
        *,
        max_deaths: int = 5,
        window_s: float = 1800.0,
        backoff_s: float = 1.0,
        backoff_max_s: float = 60.0,
    ) -> None:
        self._server, self._on_event = server, on_event
        self._max_deaths, self._window_s = max_deaths, window_s
        self._backoff_s, self._backoff_max_s = backoff_s, backoff_max_s
        self._deaths: deque[float] = deque()
        self._stopping = threading.Event()
        self._first_start_over = threading.Event()
        """Set once the server has answered, or its first start has failed."""
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._supervise, name="llm-server", daemon=True)

    def start(self) -> None:
        """Start it; returns at once."""
        self._thread.start()

    def wait_ready(self) -> None:
        """Wait until it has answered once.

        Raises:
            RunError: its first start failed (it is tried again all the same, until ``stop``), or its supervision.
        """
        self._first_start_over.wait()
        if self._failure is not None:
            raise RunError(self._failure)

    def stop(self) -> None:
        """End the server and the thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._server.stop()

    def _supervise(self) -> None:
        try:
            while not self._stopping.is_set():
                cause = self._serve_once()
                self._server.stop()  # what a dead server left
                if cause is None or not self._tolerate(cause):
                    return
        finally:  # however this thread ends, no caller may wait for it for ever
            if not self._first_start_over.is_set() and not self._stopping.is_set():
                self._failure = "the language model server is not supervised any more: its supervisor failed"
            self._first_start_over.set()

    def _serve_once(self) -> str | None:
        """Start the server and wait until it ends: why it did, None where ``stop`` was called."""
        began_s = time.monotonic()
        try:
            self._server.start()
            if not self._server.wait_ready(self._stopping.is_set):
                return None
        except (RunError, UserError, OSError) as error:
            return str(error)
        seconds = round(time.monotonic() - began_s, 1)
        self._on_event("llm_server_ready", base_url=self._server.base_url, model=self._server.model, seconds=seconds)
        self._first_start_over.set()
        while not self._stopping.wait(_POLL_S):
            if not self._server.is_alive:
                return f"the language model server ended: {self._server.log_tail()}"
        return None

    def _tolerate(self, cause: str) -> bool:
        """Count a death and wait before the restart; False where there were too many."""
        now = time.monotonic()
        self._deaths.append(now)
        while now - self._deaths[0] > self._window_s:
            self._deaths.popleft()
        recent = len(self._deaths)
        if not self._first_start_over.is_set():
            self._failure = cause
            self._first_start_over.set()
        if recent > self._max_deaths:
            self._on_event("llm_server_died", cause=cause, restart_in_s=None)
            self._on_event("llm_server_given_up", deaths=recent)
            return False
        wait_s = min(self._backoff_s * 2 ** (recent - 1), self._backoff_max_s)
        self._on_event("llm_server_died", cause=cause, restart_in_s=wait_s)
        return not self._stopping.wait(wait_s)


@contextmanager
def serving(
    model: str, config: ServerConfig, log_dir: Path, on_event: OnEvent, *, required: bool = False
) -> Iterator[str]:
    """A supervised server for the duration of the block; yields its ``base_url``, where it will answer.

    Args:
        model: a folder, or a name in the local cache of Hugging Face's hub.
        config: how it is served.
        log_dir: where vLLM's log goes, as ``vllm.log``.
        on_event: called with each of its events, from another thread.
        required: wait until it answers; otherwise the block begins at once, before the server is ready.

    Raises:
        UserError: there is no such model, no vLLM, or the port is taken; before anything is started.
        RunError: ``required``, and it does not come up at the first start.
    """
    server = VLLMServer(model, config, log_dir / LOG_NAME)
    supervised = SupervisedServer(server, on_event)
    supervised.start()
    try:
        if required:
            supervised.wait_ready()
        yield server.base_url
    finally:
        supervised.stop()
