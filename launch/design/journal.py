"""What a search has done so far: one line a step, appended when the step is over; a resumed search repeats none.

Kinds of lines: ``play`` (recorded random play), ``proposed`` (a round's proposals), ``judged`` (one verdict),
``screened`` (the program that one pays the same as), ``tried`` (one trial's outcome), ``failed`` (a run that broke),
``analysed`` (what the analyzer says), ``chosen``, ``reported`` (one run of the report), ``sitting`` (the end of one).
A line also tells what was spent since the one before, so that a search that is killed loses no costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from envs.files import JsonLines, read_lines

JOURNAL_FILE = "design.jsonl"


class Journal:
    """The steps of a search, by kind and key.

    Args:
        folder: the search's.
        spent: what the whole search, all sittings, has spent by now, beside time.

    Attributes:
        costs: sums of ``spent``, and ``seconds``, as the lines tell them.
    """

    def __init__(self, folder: Path, spent: Callable[[], Mapping[str, float]] = dict) -> None:
        path = folder / JOURNAL_FILE
        self._done: dict[tuple[str, str], Any] = {}
        self.costs: dict[str, float] = {}
        for line in read_lines(path):
            self._done[line["kind"], line["key"]] = line["what"]
            self._count(line["costs"])
        self._file = JsonLines(path)
        self._spent = spent
        self._line_s = time.monotonic()

    def __contains__(self, step: tuple[str, str]) -> bool:
        return step in self._done

    def __getitem__(self, step: tuple[str, str]) -> Any:
        return self._done[step]

    def get(self, kind: str, key: str = "") -> Any:
        """What a step came to; None where it has not been done."""
        return self._done.get((kind, key))

    def of_kind(self, kind: str) -> Mapping[str, Any]:
        """``{key: what}`` of one kind, in the order in which they were done."""
        return {key: what for (other, key), what in self._done.items() if other == kind}

    def add(self, kind: str, key: str, what: Any) -> Any:
        """Write down a step; returns ``what``."""
        now_s = time.monotonic()
        costs = {name: total - self.costs.get(name, 0) for name, total in self._spent().items()}
        costs["seconds"] = round(now_s - self._line_s, 3)
        self._file.append({"kind": kind, "key": key, "what": what, "costs": costs})
        self._done[kind, key], self._line_s = what, now_s
        self._count(costs)
        return what

    def _count(self, costs: Mapping[str, float]) -> None:
        for name, cost in costs.items():
            self.costs[name] = self.costs.get(name, 0) + cost

    def once(self, kind: str, key: str, work: Callable[[], Any]) -> Any:
        """What a step came to, from the journal or by doing it now."""
        if (kind, key) in self._done:
            return self._done[kind, key]
        return self.add(kind, key, work())

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        self._file.close()
