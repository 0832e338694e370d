"""Exchanges messages with a process over its pipes, up to a deadline."""

from __future__ import annotations

import os
import selectors
import subprocess
import time


class PipeClosedError(Exception):
    """The process ended."""


class PipeTimeoutError(Exception):
    """The deadline passed."""


class PipeFloodError(Exception):
    """The message is longer than it may be."""


_HEAD = 16
_AT_A_TIME = 1 << 18


class Pipe:
    """The pipes of a process; see ``cpython_worker.py`` for what a message looks like.

    Args:
        process: with pipes for standard input and output.
        longest: most bytes that a message of the process may have.
    """

    def __init__(self, process: subprocess.Popen[bytes], longest: int) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process has no pipes")
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._longest = longest

    def exchange(self, message: bytes, deadline: float) -> tuple[bytes, bytes]:
        """Send a message; header and parts of the answer.

        Args:
            message: whole, with its lengths.
            deadline: on the monotonic clock.

        Raises:
            PipeClosedError, PipeTimeoutError, PipeFloodError: there is no answer.
        """
        self._send(memoryview(message), deadline)
        head = self._receive(_HEAD, deadline)
        header, whole = (int.from_bytes(head[at : at + 8], "little") for at in (0, 8))
        if not header <= whole <= self._longest:
            raise PipeFloodError(f"an answer of {whole} bytes")
        body = self._receive(whole, deadline)
        return body[:header], body[header:]

    def _send(self, rest: memoryview, deadline: float) -> None:
        while rest:
            self._wait(self._in, selectors.EVENT_WRITE, deadline)
            try:
                rest = rest[os.write(self._in, rest[:_AT_A_TIME]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise PipeClosedError("it reads no more") from None

    def _receive(self, num: int, deadline: float) -> bytes:
        pieces = []
        while num:
            self._wait(self._out, selectors.EVENT_READ, deadline)
            piece = os.read(self._out, min(num, _AT_A_TIME))
            if not piece:
                raise PipeClosedError("it writes no more")
            pieces.append(piece)
            num -= len(piece)
        return b"".join(pieces)

    @staticmethod
    def _wait(descriptor: int, event: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, event)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise PipeTimeoutError
