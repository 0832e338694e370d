"""The journal of a search: one line a step, appended when the step is over; a resumed search repeats none.

Kinds of lines: ``play`` (recorded random play), ``proposed`` (a round's proposals), ``judged`` (one verdict),
``screened`` (the program that one pays the same as), ``tried`` (one trial's outcome), ``failed`` (a run that broke),
``analysed`` (what the analyzer says), ``chosen``, ``reported`` (one run of the report), ``session`` (the end of one).
A line also says what was spent since the one before, so that a search that is killed loses no costs.

What the journal says of programs is read in an order that no race decides: by round, and place in the round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.files import JsonLines, read_lines
from launch.design.trials import Outcome, outcome_of
from rewards.auto.program import sha_of
from rewards.auto.search.proposal import Proposal, Tried, verdict_of

JOURNAL_FILE = "design.jsonl"


class Journal:
    """The steps of a search, by kind and key.

    Args:
        folder: the search's.
        spent: what the whole search, in all sessions, has spent by now, besides time.

    Attributes:
        costs: sums of ``spent``, and ``seconds``, over the lines.
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
        """The result of a step; None where it has not been done."""
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
        """The result of a step, from the journal or by doing it now."""
        if (kind, key) in self._done:
            return self._done[kind, key]
        return self.add(kind, key, work())

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        self._file.close()


# ---- programs

BRIEFED_EPISODES = 60
"""Most recorded episodes in a round's brief, the newest rounds' first; every trial has the same share."""


@dataclass(frozen=True)
class Proposed:
    """A proposal, and when it was made."""

    round: int
    proposal: Proposal

    @property
    def sha(self) -> str:
        """Empty where there is no program."""
        return sha_of(self.proposal.source) if self.proposal.source else ""


def proposals(journal: Journal) -> list[Proposed]:
    """Every proposal, by round and place."""
    return [
        Proposed(int(number), Proposal(**{**one, "parents": tuple(one["parents"])}))
        for number, made in journal.of_kind("proposed").items()
        for one in made
    ]


def _programs(journal: Journal) -> Iterator[Proposed]:
    """Every program, where it was proposed first."""
    seen = {""}
    for one in proposals(journal):
        if one.sha not in seen:
            seen.add(one.sha)
            yield one


def trial_outcome(journal: Journal, sha: str) -> Outcome | None:
    """The outcome of a program's trial; None where none is over."""
    stored = journal.get("tried", sha)
    return None if stored is None else outcome_of(stored)


def trained(journal: Journal) -> list[tuple[Proposed, Outcome]]:
    """Every program that was trained, by round and place."""
    pairs = ((one, trial_outcome(journal, one.sha)) for one in _programs(journal))
    return [(one, found) for one, found in pairs if found is not None]


def recordings(journal: Journal, folder: Path) -> list[Path]:
    """Files of all recorded play, the oldest first.

    Args:
        journal: the search's.
        folder: the search's.
    """
    files = [*journal["play", ""]["records"], *(file for _, found in trained(journal) for file in found.records)]
    return [folder / file for file in files]


def briefed_recordings(journal: Journal, folder: Path, candidates: int) -> list[Path]:
    """Those that are in a round's brief, the oldest first.

    Args:
        journal: the search's.
        folder: the search's.
        candidates: programs in a round.
    """
    share = max(1, BRIEFED_EPISODES // candidates)
    groups: list[tuple[int, Sequence[str]]] = [(0, journal["play", ""]["records"])]
    groups += [(one.round, found.records[:share]) for one, found in trained(journal)]
    kept: list[int] = []
    num = 0
    for at in sorted(range(len(groups)), key=lambda at: (-groups[at][0], at)):
        num += len(groups[at][1])
        if num > BRIEFED_EPISODES:
            break
        kept.append(at)
    return [folder / file for at in sorted(kept) for file in groups[at][1]]


def tried_programs(journal: Journal) -> list[Tried]:
    """What a brief says of every program that was judged."""
    found = []
    for one in proposals(journal):
        if not one.sha or ("judged", one.sha) not in journal:
            continue
        trial, analysis = trial_outcome(journal, one.sha), journal.get("analysed", one.sha) or {}
        found.append(
            Tried(
                sha=one.sha,
                source=one.proposal.source,
                round=one.round,
                by=one.proposal.by,
                verdict=verdict_of(journal["judged", one.sha]),
                fitness=None if trial is None or trial.quarantined else trial.figures["success"],
                analysis=analysis.get("text", "") or _screened(journal.get("screened", one.sha)),
                figures=analysis.get("figures", {}),
            )
        )
    return found


def _screened(same_as: str | None) -> str:
    return f"not trained: on all recorded play it pays what {same_as} pays, step by step" if same_as else ""
