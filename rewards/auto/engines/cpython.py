"""Runs programs in Python itself, in a jailed process: the second engine, where Monty cannot be had.

Inside the process everything can be reached, so what holds a program back is the kernel: see ``jail_exec.py``. It gets
Python's own speed, few builtins, and a process that is killed after any limit.
"""

from __future__ import annotations

import array
import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from rewards.auto.engines.pipe import Pipe, PipeClosedError, PipeFloodError, PipeTimeoutError
from rewards.auto.program import Program
from rewards.auto.sandbox.engine import (
    HASH_SEED,
    Answer,
    EngineError,
    Limits,
    MalformedAnswerError,
    ProgramMemoryError,
    ProgramTimeoutError,
    WorkerDiedError,
)
from rewards.auto.sandbox.jail import ENVIRONMENT, HASH_SEED_VARIABLE, Jail, Target, find_jail
from rewards.auto.sandbox.looping import CALL, PRELUDE, Loop, answered
from rewards.auto.sandbox.rewriting import Plan, readable_plan

GRACE_S = 0.2
"""How long after the limit of time the process is killed."""

_WORKER = str(Path(__file__).with_name("cpython_worker.py"))
_IMPORTS = (
    "array", "builtins", "encodings.utf_8", "json", "math", "signal", "sys", "types", "typing", "unicodedata",
    *(["_pylong"] if sys.version_info >= (3, 12) else []),
)  # fmt: skip
"""What the worker needs, and what the interpreter imports in the middle of an operation: no file can be read then."""

_INPUTS_MB = 32
"""Memory for what the loop holds beside the program's own values."""
_LONGEST_ANSWER = 64 << 20
_ERRORS: Mapping[str, type[EngineError]] = {"memory": ProgramMemoryError}


def cpython_target(limits: Limits) -> Target:
    """The worker, to be locked in."""
    return Target(path=_WORKER, memory=(_INPUTS_MB + limits.memory_mb) << 20, imports=_IMPORTS)


class CPythonEngine:
    """Programs in Python; see ``rewards.auto.sandbox.engine.Engine``.

    Args:
        limits: of a batch.
        jail: for the worker; None = the strongest there is.
        hash_seed: decides the order of sets of texts.
    """

    def __init__(self, limits: Limits, jail: Jail | None = None, hash_seed: int = HASH_SEED) -> None:
        self.name = f"cpython {platform.python_version()}"
        self._limits = limits
        self._jail = find_jail(cpython_target(limits)) if jail is None else jail
        self._environment = {**ENVIRONMENT, HASH_SEED_VARIABLE: str(hash_seed)}
        self._plan: Plan | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._pipe: Pipe | None = None

    @property
    def isolation(self) -> Mapping[str, str]:
        """Each layer between the process and the machine."""
        return self._jail.layers

    def load(self, program: Program) -> None:
        """Take a program; its module level runs now, within the limits.

        Raises:
            EngineError: it could not be run.
        """
        self._plan = None
        plan = readable_plan(program)
        self._ask(plan, None, time.monotonic() + self._limits.batch_s)
        self._plan = plan

    def evaluate(self, columns: Mapping[str, np.ndarray], num: int) -> Answer:
        """Run the loaded program on transitions.

        Raises:
            EngineError: no answer for the batch, or nothing is loaded.
        """
        if self._plan is None:
            raise EngineError("no program is loaded")
        plan, deadline = self._plan, time.monotonic() + self._limits.batch_s
        return answered(plan, columns, num, lambda loop: self._ask(plan, loop, deadline))

    def close(self) -> None:
        """End the process; harmless when done twice."""
        worker, self._worker, self._pipe = self._worker, None, None
        if worker is None:
            return
        with suppress(PermissionError):  # of another user, without the right to end it: the closed pipe ends it
            worker.kill()
        for stream in (worker.stdin, worker.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        with suppress(subprocess.TimeoutExpired):
            worker.wait(timeout=5.0)

    @property
    def process(self) -> int | None:
        """Number of the process, once it has run something."""
        return None if self._worker is None else self._worker.pid

    def _ask(self, plan: Plan, loop: Loop | None, deadline: float) -> Any:
        """What the worker answers; None without a loop.

        Raises:
            EngineError: no answer.
        """
        message = _request(plan, loop, self._limits)
        try:
            header, parts = self._started().exchange(message, deadline + GRACE_S)
        except PipeTimeoutError:
            self.close()
            limit = f"{self._limits.batch_s:g} s"
            raise ProgramTimeoutError(f"the program took longer than {limit} for a batch and was killed") from None
        except PipeClosedError as error:
            self.close()
            raise WorkerDiedError(f"the process that ran the program ended: {error}") from None
        except PipeFloodError as error:
            self.close()
            raise MalformedAnswerError(f"what came back cannot be read: {error}") from None
        return self._read(header, parts, loop)

    def _read(self, header: bytes, parts: bytes, loop: Loop | None) -> Any:
        try:
            said = json.loads(header)
            if said["error"] is None:
                return None if loop is None else _unpacked(said, parts)
            kind, message = _ERRORS.get(said["error"], EngineError), str(said["message"])[:300]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self.close()
            raise MalformedAnswerError(f"what came back cannot be read: {error}") from error
        if kind is not EngineError:
            self.close()
        raise kind(f"the program failed: {message}")

    def _started(self) -> Pipe:
        """The pipes of the process; a new one where there is none, or where it has ended since.

        Raises:
            WorkerDiedError: it does not start.
        """
        if self._worker is not None and self._worker.poll() is not None:
            self.close()
        if self._pipe is None:
            try:
                self._worker = subprocess.Popen(
                    self._jail.command(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=self._environment,
                    cwd="/",
                )
            except OSError as error:
                raise WorkerDiedError(f"the process for programs does not start: {error}") from error
            self._pipe = Pipe(self._worker, _LONGEST_ANSWER)
        return self._pipe


def _request(plan: Plan, loop: Loop | None, limits: Limits) -> bytes:
    named, parts = [], []
    for name, value in ({} if loop is None else loop.inputs).items():
        form = "bytes" if isinstance(value, bytes) else "json"
        part = value if isinstance(value, bytes) else json.dumps(value).encode()
        named.append((name, form, len(part)))
        parts.append(part)
    header = {
        "source": plan.source,
        "loop": "" if loop is None else PRELUDE + loop.source,
        "call": CALL,
        "inputs": named,
        "recursion": limits.recursion,
        "cpu_s": math.ceil(limits.batch_s) + 1.0,
    }
    head = json.dumps(header).encode()
    whole = len(head) + sum(map(len, parts))
    return b"".join((len(head).to_bytes(8, "little"), whole.to_bytes(8, "little"), head, *parts))


def _unpacked(said: Mapping[str, Any], body: bytes) -> tuple[Any, Any, Any, Any]:
    """What the loop gave, with the rows that cannot be handed on among its failures.

    Raises:
        ValueError, KeyError, TypeError: it has not the form of an answer.
    """
    failures = {int(row): str(why) for row, why in said["failures"].items()}
    names, columns, at = said["names"], [], 0
    for form, size in said["parts"]:
        values = _values(form, body[at : at + size])
        at += size
        columns.append(_without_odd(values, failures))
    return (columns[0], None, None, failures) if names is None else (None, names, columns, failures)


def _values(form: str, part: bytes) -> list[Any]:
    if form == "d":
        return array.array("d", part).tolist()
    values = json.loads(part)
    if type(values) is not list:
        raise ValueError("a part is no list")
    return values


def _without_odd(values: list[Any], failures: dict[int, str]) -> list[Any]:
    """The values; where there is only the name of a type, or a dictionary with one, the row has failed."""
    if {float, int, bool, str}.issuperset(map(type, values)):
        return values
    for row, value in enumerate(values):
        inner: Sequence[Any] = list(value.values()) if type(value) is dict else [value]
        odd = next((cell for cell in inner if type(cell) in (list, dict)), None)
        if odd is not None:
            what = odd[0] if type(odd) is list and odd else "dict"
            failures.setdefault(row, f"returned a {what}, which is no number"[:200])
            values[row] = None
    return values
