"""One contender of several processes that work at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from launch.bench.contender import Contender, Isolated, Maker, Round


@dataclass(frozen=True)
class CrewMaker:
    """The same contender in several processes, which are measured together."""

    name: str
    members: Sequence[Maker]
    """What each process runs."""
    is_reference: bool

    def build(self) -> Contender:
        """Starts the processes, from this one."""
        return Crew(self.members)


class Crew:
    """Contenders in a process each; a round begins in all of them at the same moment.

    Args:
        members: what each process runs.
    """

    def __init__(self, members: Sequence[Maker]) -> None:
        with ExitStack() as stack:
            self._members = [Isolated(member) for member in members]
            for member in self._members:
                stack.callback(member.close)
            self._stack = stack.pop_all()

    def warm_up(self) -> None:
        """Each warms up, all at once."""
        self._together("warm_up")

    def run_round(self, seconds: float) -> Round:
        """The steps of all, within the time of the slowest."""
        # The shortest of rounds, not counted: wakes everyone, so that the next begins at once in all.
        self._together("run_round", 0.0)
        rounds = self._together("run_round", seconds)
        return Round(steps=sum(r.steps for r in rounds), seconds=max(r.seconds for r in rounds))

    def _together(self, method: str, *arguments: float) -> list[Any]:
        for member in self._members:
            member.ask(method, *arguments)
        return [member.answer() for member in self._members]

    def close(self) -> None:
        """End the processes."""
        self._stack.close()
