"""An engine that runs programs in this process, and misbehaves as told: for tests only."""

import math
from dataclasses import replace
from itertools import count

from envs.schema import COLUMNS
from rewards.auto.program import NUMBER_COMPONENT, Program, sha_of
from rewards.auto.sandbox.engine import Answer


def program(source, *columns, **components):
    """A program as admission would make it."""
    return Program(source=source, columns=tuple(n for n in COLUMNS if n in columns), components=components)


class FakeEngine:
    """Execs the source; ``tick()`` is there for programs that are not pure.

    Args:
        script: ``{number of the call of evaluate, from 0: what happens then}``; an exception is raised, anything else
            is called with the answer and gives the answer. The key ``"load"`` is for every call of ``load``, ``"all"``
            for every other call.
    """

    name = "fake 1"
    isolation = {"process": "off"}  # noqa: RUF012

    def __init__(self, script=None):
        self.script = script or {}
        self.loads, self.calls, self.rows, self.closed = 0, 0, [], 0
        self._ticks = count()

    def load(self, program):
        self.loads += 1
        if "load" in self.script:
            raise self.script["load"]
        self._program = {"math": math, "tick": lambda: next(self._ticks)}
        exec(program.source, self._program)
        self.sha = sha_of(program.source)

    def evaluate(self, columns, num):
        self.columns = columns
        behaviour = self.script.get(self.calls, self.script.get("all", lambda answer: answer))
        self.calls += 1
        self.rows.append(num)
        if isinstance(behaviour, Exception):
            raise behaviour
        return behaviour(self._answer(columns, num))

    def _answer(self, columns, num):
        cells, failures = {}, {}
        lists = {name: column.tolist() for name, column in columns.items()}
        for row in range(num):
            given = {"obs": {}, "prev_obs": {}, "info": {}, "action": None}
            for name, values in lists.items():
                group, _, field = name.rpartition(".")
                (given[group] if group else given)[field or "action"] = values[row]
            try:
                found = self._program["reward"](given["obs"], given["prev_obs"], given["action"], given["info"])
            except ArithmeticError as error:
                failures[row] = f"{type(error).__name__}: {error}"
                continue
            found = found if isinstance(found, dict) else {NUMBER_COMPONENT: found}
            for name, value in found.items():
                cells.setdefault(name, [None] * num)[row] = value
        return Answer(components=cells, failures=failures)

    def close(self):
        self.closed += 1


def answering(component, rows, value):
    """A behaviour: some values are another."""

    def change(answer):
        cells = list(answer.components[component])
        for row in rows:
            cells[row] = value
        return replace(answer, components={**answer.components, component: cells})

    return change
