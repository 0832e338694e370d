"""What is measured: contenders, each in a process of its own that sleeps while others are measured."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol

from launch.errors import RunError

_JOIN_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Round:
    """One measurement."""

    steps: int
    """Environment steps, over all games."""
    seconds: float
    """Wall clock."""
    split: Mapping[str, float] = field(default_factory=dict)
    """Share of the wall clock by activity (``games``, ``inference``, ``learn``, ``wait``); of activities in
    several processes at once, each process's own share, averaged."""
    memory_mb: float | None = None
    """Peak memory of the contender's processes together (proportional set size), where it was watched."""

    @property
    def steps_per_s(self) -> float:
        """Environment steps per second."""
        return self.steps / self.seconds


class Contender(Protocol):
    """Something whose speed is measured; idle between rounds."""

    def warm_up(self) -> None:
        """Whatever only the first steps need: allocations, caches, compilation."""
        ...

    def run_round(self, seconds: float) -> Round:
        """Work for about so long, and say how much was done; nothing goes on afterwards."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class Maker(Protocol):
    """Builds a contender in the process that will run it; a small record that can be sent there."""

    @property
    def name(self) -> str:
        """As shown."""
        ...

    @property
    def is_reference(self) -> bool:
        """The others are measured against the fastest reference."""
        ...

    def build(self) -> Contender:
        """The contender, ready for ``warm_up``."""
        ...


class Isolated:
    """A contender in a process of its own, driven over a pipe.

    Args:
        maker: builds it there.

    Raises:
        RunError: from every method: the contender failed or died; the cause is in the text.
    """

    def __init__(self, maker: Maker) -> None:
        self.name, self.is_reference = maker.name, maker.is_reference
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # Not a daemon: some contenders start processes of their own.
        self._process = context.Process(target=_serve, args=(maker, theirs), daemon=False)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Its process, from which all others of this contender descend."""
        assert self._process.pid is not None, "it was started"
        return self._process.pid

    def warm_up(self) -> None:
        """See ``Contender``."""
        self.ask("warm_up")
        self.answer()

    def run_round(self, seconds: float) -> Round:
        """See ``Contender``."""
        self.ask("run_round", seconds)
        return self.answer()

    def close(self) -> None:
        """Let it end by itself; end it by force where it does not."""
        self._pipe.close()
        self._process.join(_JOIN_S)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def ask(self, method: str, *arguments: float) -> None:
        """Begin a call of one of ``Contender``'s methods; ``answer`` ends it."""
        # A process that is gone says so by having no answer.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send((method, arguments))

    def answer(self) -> Any:
        """What the method that was asked for returned."""
        try:
            answer, error = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(_JOIN_S)
            raise RunError(f"contender {self.name} died (exit code {self._process.exitcode})") from None
        if error is not None:
            raise RunError(f"contender {self.name} failed: {error}")
        return answer


def _serve(maker: Maker, pipe: Connection) -> None:
    """Answer until the other end is closed."""
    # Ctrl-C reaches the whole group; the driver answers it, and then closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whoever is told to end still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    contender: Contender | None = None
    with ExitStack() as stack, suppress(EOFError, BrokenPipeError):
        while True:
            method, arguments = pipe.recv()
            try:
                if contender is None:
                    contender = maker.build()
                    stack.callback(contender.close)
                answer = getattr(contender, method)(*arguments)
            except Exception as error:  # noqa: BLE001  (sent to the driver, which raises it)
                traceback.print_exc()
                pipe.send((None, f"{type(error).__name__}: {error}"))
                return
            pipe.send((answer, None))


def num_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
