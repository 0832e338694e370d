"""What runs reward programs: an engine behind a process border, and what may come out of it.

Answers are untrusted: ``rewards.auto.sandbox.contained`` checks them before anything else sees them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rewards.auto.program import Program


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one batch may use."""

    batch_s: float = 1.0
    """Seconds for a batch of transitions."""
    memory_mb: int = 64
    """Memory of the program's values."""
    recursion: int = 60
    """Depth of calls."""


class EngineError(Exception):
    """No answer for a whole batch; one sentence says why. The engine can be used again: it starts afresh."""

    code = "failed"
    """For logs."""


class ProgramTimeoutError(EngineError):
    """The program used more time than it may."""

    code = "timeout"


class ProgramMemoryError(EngineError):
    """The program used more memory than it may."""

    code = "memory"


class WorkerDiedError(EngineError):
    """The process that ran the program ended, or was ended."""

    code = "died"


class MalformedAnswerError(EngineError):
    """What came back cannot be read."""

    code = "malformed"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a program returned for N transitions, as it came: nothing about it is certain but the types said here."""

    components: Mapping[str, Sequence[Any]]
    """Of each component N values; None where this transition's dictionary lacks it, or has no answer. Anything else
    may stand there, also what is no number."""
    failures: Mapping[int, str]
    """Of transitions without an answer: why (``ZeroDivisionError: ...``, ``returned a str``)."""


class Engine(Protocol):
    """Runs one program at a time on batches of transitions, in a process of its own that it starts by exec.

    ``tests/rewards/auto/sandbox/test_engine.py`` holds Monty to this: the same values as a plain interpreter, bit for
    bit; limits of time and memory; nothing of one batch left for the next; a new process after a death.
    """

    @property
    def name(self) -> str:
        """Kind and version: ``monty 1.4.0``."""
        ...

    @property
    def isolation(self) -> Mapping[str, str]:
        """Each layer between the process and the machine: ``{"seccomp": "on", "landlock": "ABI 7", "user": "off"}``."""
        ...

    def load(self, program: Program) -> None:
        """Take a program; its module level runs now, within the limits.

        Raises:
            EngineError: it could not be run.
        """
        ...

    def evaluate(self, columns: Mapping[str, np.ndarray], num: int) -> Answer:
        """Run the loaded program on transitions.

        Args:
            columns: ``{qualified column: [N]}``, at least all that the program reads.
            num: N.

        Raises:
            EngineError: no answer for the batch.
        """
        ...

    def close(self) -> None:
        """End the process; harmless when done twice."""
        ...
