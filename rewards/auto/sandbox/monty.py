"""Runs programs in Monty, an interpreter of a part of Python that knows no Python objects, in a jailed process.

Every loop gets a session of its own, so nothing of one batch is left for the next. The interpreter keeps the limits of
time, memory and depth; where it does not notice (a single operation on huge integers), the process is killed a second
later. Its numbers are Python's, bit for bit, but for the last bits of math's atanh, cbrt, erf, erfc, gamma and lgamma.
"""

from __future__ import annotations

import datetime
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pydantic_monty

from rewards.auto.config import ContainmentConfig
from rewards.auto.program import Program
from rewards.auto.sandbox.engine import (
    Answer,
    EngineError,
    Limits,
    MalformedAnswerError,
    ProgramMemoryError,
    ProgramTimeoutError,
    WorkerDiedError,
)
from rewards.auto.sandbox.jail import IsolationError, Jail, Target, check_level, describe, find_jail
from rewards.auto.sandbox.looping import CALL, PRELUDE, Loop, answered
from rewards.auto.sandbox.rewriting import Plan, readable_plan

GRACE_S = 1.0
"""How long after the limit of time the process is killed."""

_ROUND = """
__round__ = round
def round(number, ndigits=None):
    if not (isinstance(number, float) and isinstance(ndigits, int) and ndigits >= 0):
        return __round__(number, ndigits)
    return float(f"{number:.{ndigits + 0}f}") if ndigits <= 340 and -1e16 < number < 1e16 else number
"""
"""Monty's own rounds what is written as x.xx5 by its decimals (0.025 to 0.03), Python by the number itself (0.03 or
0.02, whichever the float is closer to); formats are exact in both. Floats beyond 1e16 have no decimals."""
_START = "import math\n" + PRELUDE + _ROUND
_LEAST_S = 0.001
_MAX_PRINTED = 4096
"""Bytes that a program may print in a batch; they go nowhere."""
_INTERPRETER_MB = 192
"""Address space of the interpreter itself."""
_INPUTS_MB = 32
"""Memory for what the loop holds beside the program's own values."""
_ERRORS: Mapping[str, type[EngineError]] = {"TimeoutError": ProgramTimeoutError, "MemoryError": ProgramMemoryError}
_NO_START = (OSError, IsolationError, RuntimeError, pydantic_monty.MontyError)
"""What comes where a process does not start: no room on the disk, nothing may be executed, it ends at once."""
_POLICY: pydantic_monty.OSPolicy = {
    "datetime": datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC),
    "sleep": "zero",
    "random_start": {"seed": 0},
}


def monty_target(limits: Limits) -> Target:
    """The interpreter's executable file, to be locked in.

    Raises:
        IsolationError: there is none.
    """
    beside = shutil.which("monty", path=str(Path(sys.executable).parent))
    path = os.environ.get("MONTY_BIN") or beside or shutil.which("monty")
    if path is None:
        raise IsolationError("the executable 'monty' is missing: install pydantic-monty")
    memory = (_INTERPRETER_MB + 2 * (_INPUTS_MB + limits.memory_mb)) << 20
    return Target(path=str(Path(path).resolve()), probe=("--version",), memory=memory)


@dataclass
class _Worker:
    """The process, and the pool of one that holds it."""

    pool: pydantic_monty.Monty
    process: int | None


class MontyEngine:
    """Programs in Monty; see ``rewards.auto.sandbox.engine.Engine``.

    Args:
        limits: of a batch.
        jail: for the interpreter; None = the strongest there is.
    """

    def __init__(self, limits: Limits, jail: Jail | None = None) -> None:
        self.name = f"monty {version('pydantic-monty')}"
        self._limits = limits
        self._jail = find_jail(monty_target(limits)) if jail is None else jail
        self._plan: Plan | None = None
        self._worker: _Worker | None = None

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
        self._feed(_START + plan.source, {}, self._limits.batch_s)
        self._plan = plan

    def evaluate(self, columns: Mapping[str, np.ndarray], num: int) -> Answer:
        """Run the loaded program on transitions.

        Raises:
            EngineError: no answer for the batch, or nothing is loaded.
        """
        if self._plan is None:
            raise EngineError("no program is loaded")
        plan, deadline = self._plan, time.monotonic() + self._limits.batch_s

        def ask(loop: Loop) -> Any:
            source = f"{_START}{plan.source}\n{loop.source}\n{CALL}"
            return self._feed(source, loop.inputs, deadline - time.monotonic())

        return answered(plan, columns, num, ask)

    def close(self) -> None:
        """End the process; harmless when done twice."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.pool.__exit__(None, None, None)

    @property
    def process(self) -> int | None:
        """Number of the process, once it has run something."""
        return None if self._worker is None else self._worker.process

    def _feed(self, source: str, inputs: Mapping[str, Any], seconds: float) -> Any:
        """What source code gives, run in a session of its own.

        Raises:
            EngineError: it gives nothing.
        """
        if seconds <= _LEAST_S:
            raise ProgramTimeoutError(f"the program took longer than {self._limits.batch_s:g} s for a batch")
        try:
            return self._run(source, inputs, seconds)
        except pydantic_monty.MontyCrashedError as error:
            self.close()
            if error.timed_out:
                raise ProgramTimeoutError(f"the program took longer than {seconds:g} s and was killed") from error
            raise WorkerDiedError(f"the process that ran the program ended: {error}") from error
        except pydantic_monty.MontyError as error:
            raise self._problem(error) from error
        except (OSError, RuntimeError) as error:  # it ended unnoticed, and the pool could not start another
            self.close()
            raise WorkerDiedError(f"the process that ran the program ended: {error}") from error
        except (ValueError, TypeError, OverflowError) as error:
            self.close()
            raise MalformedAnswerError(f"what came back cannot be read: {error}") from error

    def _problem(self, error: pydantic_monty.MontyError) -> EngineError:
        """What it means that source code ended in an exception."""
        inner = type(error.exception()).__name__
        kind = _ERRORS.get(inner, EngineError)
        if kind is not EngineError:
            self.close()  # nothing is certain of a process in which a limit was hit
        return kind(f"the program failed: {str(error)[:300]}")

    def _run(self, source: str, inputs: Mapping[str, Any], seconds: float) -> Any:
        worker = self._started()
        limits: pydantic_monty.ResourceLimits = {
            "max_feed_duration_secs": seconds,
            "max_memory": (_INPUTS_MB + self._limits.memory_mb) << 20,
            "max_recursion_depth": self._limits.recursion,
            "max_suspensions": 1,
            "max_total_sleep_secs": 0.0,
        }
        with worker.pool.checkout(limits=limits, os_policy=_POLICY) as session:
            worker.process = session.worker_pid
            printed = pydantic_monty.CollectString(max_bytes=_MAX_PRINTED)
            return session.feed_run(source, inputs=dict(inputs), print_callback=printed)

    def _started(self) -> _Worker:
        """The process; a new one where there is none, or where it has ended since."""
        if self._worker is not None and not _is_alive(self._worker.process):
            self.close()
        if self._worker is None:
            self._worker = self._start()
        return self._worker

    def _start(self) -> _Worker:
        """A process.

        Raises:
            WorkerDiedError: it does not start.
        """
        try:
            return self._opened()
        except _NO_START as error:
            raise WorkerDiedError(f"the process for programs does not start: {error}") from error

    def _opened(self) -> _Worker:
        with tempfile.TemporaryDirectory(prefix="yendor-", dir=_folder_for_executables()) as folder:
            launcher = Path(folder, "monty")
            command = " ".join(map(shlex.quote, self._jail.command()))
            launcher.write_text(f'#!/bin/sh\nexec env -i {command} "$@"\n')
            launcher.chmod(0o700)
            pool = pydantic_monty.Monty(
                binary_path=launcher,
                min_processes=1,
                max_processes=1,
                request_timeout=self._limits.batch_s + GRACE_S,
                feed_duration_limit_grace=GRACE_S,
            )
            pool.__enter__()
            try:
                with pool.checkout() as session:
                    session.feed_run("0")
                    return _Worker(pool, session.worker_pid)
            except (pydantic_monty.MontyError, RuntimeError):
                pool.__exit__(None, None, None)
                raise


def _is_alive(process: int | None) -> bool:
    """Whether a process is there and is no corpse."""
    if process is None:
        return False
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return not Path("/proc/self").exists()  # where there is no /proc, the next call finds out


def _folder_for_executables() -> str:
    """A folder in which files can be executed: many machines forbid it for temporary ones.

    Raises:
        IsolationError: there is none.
    """
    for folder in (Path(tempfile.gettempdir()), Path.home() / ".cache"):
        if folder.is_dir() and os.access(folder, os.W_OK) and _can_execute(folder):
            return str(folder)
    raise IsolationError("neither the folder for temporary files nor ~/.cache allows files to be executed")


def _can_execute(folder: Path) -> bool:
    with tempfile.NamedTemporaryFile(dir=folder, prefix="yendor-") as file:
        Path(file.name).chmod(0o700)
        return os.access(file.name, os.X_OK)


def build_engine(config: ContainmentConfig) -> MontyEngine:
    """The engine that a configuration asks for; its process starts when it is first needed.

    Raises:
        IsolationError: there would be less isolation than ``config.min_isolation``, or the engine cannot be started.
    """
    engine = MontyEngine(Limits(batch_s=config.batch_s, memory_mb=config.memory_mb))
    check_level(engine.isolation, config.min_isolation)
    return engine


def isolation_line(config: ContainmentConfig) -> str:
    """``reward programs: monty 1.4.0, isolation full (user 65534, seccomp on, ...)``, to be shown at a start.

    Raises:
        IsolationError: as ``build_engine``.
    """
    engine = build_engine(config)
    engine.close()
    return f"reward programs: {engine.name}, {describe(engine.isolation)}"
