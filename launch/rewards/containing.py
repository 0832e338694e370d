"""Containment for commands: what is wrong with it is the user's to mend, and what was reached is said."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from launch.errors import UserError
from rewards.auto.config import ContainmentConfig
from rewards.auto.contained import ContainedProgram, Values
from rewards.auto.engine import Engine
from rewards.auto.program import Program


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
        from rewards.auto.engines import IsolationError, isolation_line

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
        from rewards.auto.engines import build_engine

        engine = build_engine(self.config)
        try:
            yield engine
        finally:
            engine.close()

    def tell(self) -> None:
        """Say on standard error what programs run in."""
        sys.stderr.write(f"{self.reached}\n")


class WarmWorkers:
    """Two processes that take programs in turn, for starting one takes longer than trying a program.

    A process forgets a program when it loads the next (``Engine.load``). Of a program that is tried several times each
    trial is in the other process, so that what depends on the process shows.
    """

    def __init__(self, containment: Containment) -> None:
        from rewards.auto.engines import build_engine

        self._config = containment.config
        self._idle = deque(build_engine(self._config) for _ in range(2))

    def hired(self, program: Program) -> _Hired:
        """The program in the process that has been idle for longest; to be closed."""
        engine = self._idle.popleft()
        return _Hired(
            ContainedProgram(program, self._config, engine, distinct=False), partial(self._idle.append, engine)
        )

    def __enter__(self) -> WarmWorkers:
        return self

    def __exit__(self, *error: object) -> None:
        for engine in self._idle:
            engine.close()


@dataclass(frozen=True)
class _Hired:
    """A contained program that gives its process back."""

    program: ContainedProgram
    give_back: Callable[[], None]

    def evaluate(self, columns: Mapping[str, np.ndarray], num: int) -> Values:
        return self.program.evaluate(columns, num)

    def close(self) -> None:
        self.give_back()
