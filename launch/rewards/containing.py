"""Containment for commands: what is wrong with it is the user's to mend, and what was reached is said."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from launch.errors import UserError
from rewards.auto.config import ContainmentConfig
from rewards.auto.program import Program
from rewards.auto.sandbox.contained import ContainedProgram, Values
from rewards.auto.sandbox.engine import Engine

_NUM_WARM = 2


@dataclass(frozen=True, kw_only=True)
class Containment:
    """Where programs run.

    Use ``of`` to make it.
    """

    config: ContainmentConfig
    reached: str
    """``reward programs: monty 1.4.0, isolation full (user 65534, seccomp on, ...)``."""

    @classmethod
    def of(cls, config: ContainmentConfig) -> Containment:
        """Find out what this machine offers.

        Raises:
            UserError: the engine is not there, or is cut off from the machine less than is asked for.
        """
        from rewards.auto.sandbox.jail import IsolationError
        from rewards.auto.sandbox.monty import isolation_line

        try:
            return cls(config=config, reached=isolation_line(config))
        except (IsolationError, ImportError) as error:
            raise UserError(f"programs cannot be run: {error}") from None

    def contained(self, program: Program) -> ContainedProgram:
        """A program in a process of its own, which starts when it is needed; to be closed."""
        return ContainedProgram(program, self.config)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """A process that takes one program after the other, and ends with the block."""
        from rewards.auto.sandbox.monty import build_engine

        engine = build_engine(self.config)
        try:
            yield engine
        finally:
            engine.close()

    def tell(self) -> None:
        """Say on standard error what programs run in."""
        sys.stderr.write(f"{self.reached}\n")


class WarmWorkers:
    """Two processes that are hired in turn, and kept: starting one takes longer than trying a program.

    A process forgets a program when it loads the next (``Engine.load``).
    """

    def __init__(self, containment: Containment) -> None:
        self._config = containment.config
        self._engines: deque[Engine] = deque()

    def hired(self, program: Program) -> _Hired:
        """The program in another process than the last one, for one at a time."""
        from rewards.auto.sandbox.monty import build_engine

        if len(self._engines) < _NUM_WARM:
            self._engines.append(build_engine(self._config))
        self._engines.rotate()
        return _Hired(ContainedProgram(program, self._config, self._engines[0], distinct=False))

    def __enter__(self) -> WarmWorkers:
        return self

    def __exit__(self, *error: object) -> None:
        for engine in self._engines:
            engine.close()


@dataclass(frozen=True)
class _Hired:
    """A contained program whose process goes on when it is closed."""

    program: ContainedProgram

    def evaluate(self, columns: Mapping[str, np.ndarray], num: int) -> Values:
        return self.program.evaluate(columns, num)

    def close(self) -> None:
        pass
