"""What a journal says of programs, in an order that no race decides: by round, and place in the round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.design.journal import Journal
from launch.design.trials import Outcome, outcome_of
from rewards.auto.program import sha_of
from rewards.auto.search.proposal import Proposal, Tried, verdict_of

BRIEFED_EPISODES = 60
"""Most recorded ones that a round is told of, the newest rounds' first; every trial has the same share."""


@dataclass(frozen=True)
class Proposed:
    """A proposal, and when it was made."""

    round: int
    proposal: Proposal

    @property
    def sha(self) -> str:
        """Empty where there is no program."""
        return sha_of(self.proposal.source) if self.proposal.source else ""


def proposed(journal: Journal) -> list[Proposed]:
    """Every proposal, by round and place."""
    return [
        Proposed(int(number), Proposal(**{**one, "parents": tuple(one["parents"])}))
        for number, proposals in journal.of_kind("proposed").items()
        for one in proposals
    ]


def programs(journal: Journal) -> Iterator[Proposed]:
    """Every program, where it was proposed first."""
    seen = {""}
    for one in proposed(journal):
        if one.sha not in seen:
            seen.add(one.sha)
            yield one


def outcome(journal: Journal, sha: str) -> Outcome | None:
    """What a program's trial came to; None where none is over."""
    stored = journal.get("tried", sha)
    return None if stored is None else outcome_of(stored)


def tried(journal: Journal) -> list[tuple[Proposed, Outcome]]:
    """Every program that was trained, by round and place."""
    pairs = ((one, outcome(journal, one.sha)) for one in programs(journal))
    return [(one, found) for one, found in pairs if found is not None]


def recordings(journal: Journal, folder: Path) -> list[Path]:
    """Files of all recorded play, the oldest first.

    Args:
        journal: the search's.
        folder: the search's.
    """
    files = [*journal["play", ""]["records"], *(file for _, found in tried(journal) for file in found.records)]
    return [folder / file for file in files]


def briefed(journal: Journal, folder: Path, candidates: int) -> list[Path]:
    """Those that a round is told of, the oldest first.

    Args:
        journal: the search's.
        folder: the search's.
        candidates: programs in a round.
    """
    share = max(1, BRIEFED_EPISODES // candidates)
    groups: list[tuple[int, Sequence[str]]] = [(0, journal["play", ""]["records"])]
    groups += [(one.round, found.records[:share]) for one, found in tried(journal)]
    kept: list[int] = []
    num = 0
    for at in sorted(range(len(groups)), key=lambda at: (-groups[at][0], at)):
        num += len(groups[at][1])
        if num > BRIEFED_EPISODES:
            break
        kept.append(at)
    return [folder / file for at in sorted(kept) for file in groups[at][1]]


def told(journal: Journal) -> list[Tried]:
    """What a designer is told of every program that was judged."""
    found = []
    for one in proposed(journal):
        if not one.sha or ("judged", one.sha) not in journal:
            continue
        trial, analysis = outcome(journal, one.sha), journal.get("analysed", one.sha) or {}
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
