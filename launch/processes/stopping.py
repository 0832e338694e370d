"""SIGTERM, Ctrl-C and a closed terminal: the first asks the run to save and stop, the second ends the process."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopRequest:
    """A flag that signals raise; a context manager that puts the old handlers back.

    Attributes:
        signal: the signal that asked to stop; None while nothing did.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def install(self) -> None:
        """Put the handlers in place (again: Ray replaces them with its own when it starts)."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """What the shell expects after a signal (128 + its number); 0 if there was none."""
        return 0 if self.signal is None else 128 + self.signal
