"""What passes between those who search for reward programs: briefs, proposals, the critic's verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from envs.recording import EpisodeRecord
from rewards.auto.program import Program

# ---- verdicts

Outcome = Literal["pass", "fail", "undetermined"]
"""Undetermined: there is not enough to judge by, which is neither a pass nor a failure."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One test, or one opinion, and how it came out."""

    test: str
    """``admission``, ``dry_run``, ``finite``, ``deterministic``, ``constant``, ``cycle``, ``auc``, ``opinion``, ..."""
    outcome: Outcome
    reason: str
    """One sentence: with the figures that it rests on."""
    figures: Mapping[str, float] = field(default_factory=dict)
    code: str = ""
    """``E22`` where a rejection stands behind it."""
    line: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For files; these are the fields again."""
        return {
            "test": self.test,
            "outcome": self.outcome,
            "reason": self.reason,
            "figures": dict(self.figures),
            "code": self.code,
            "line": self.line,
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Everything that was found about one program."""

    findings: Sequence[Finding]

    @property
    def accepted(self) -> bool:
        """Nothing failed; what is undetermined does not count against a program."""
        return all(finding.outcome != "fail" for finding in self.findings)

    @property
    def reasons(self) -> list[str]:
        """Why it was rejected; empty where it was not."""
        return [f"{f.test}: {f.reason}" for f in self.findings if f.outcome == "fail"]

    def as_json(self) -> dict[str, Any]:
        """For files; ``verdict_of`` reads it back."""
        return {"accepted": self.accepted, "findings": [finding.as_json() for finding in self.findings]}


def verdict_of(stored: Mapping[str, Any]) -> Verdict:
    """The verdict that ``Verdict.as_json`` wrote.

    Raises:
        KeyError, TypeError: it is something else.
    """
    return Verdict(findings=[Finding(**finding) for finding in stored["findings"]])


# ---- proposals


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Source code as its author wrote it; nothing about it has been checked."""

    source: str
    """Empty where no usable code came; ``problem`` then says why."""
    by: str
    """``grammar``, ``random grammar``, or ``llm NAME``."""
    parents: tuple[str, ...] = ()
    """SHAs of the programs that it was made from."""
    thoughts: str = ""
    """What the author wrote about it."""
    prompt: str = ""
    """The author's prompt; empty for a grammar."""
    attempts: int = 1
    """Replies that it took."""
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A program of an earlier round and its results."""

    sha: str
    source: str
    round: int
    by: str
    verdict: Verdict
    fitness: float | None
    """Share of episodes that ended in success, on the seeds that selection looks at; None where it was not trained."""
    analysis: str
    """The analyzer's text about its training; empty where it was not trained."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """The same as numbers (``Analysis.figures``): progress of its play, and which components were useless."""


@dataclass(frozen=True, kw_only=True)
class Brief:
    """What a designer knows before a round."""

    task: str
    """Task id."""
    goal: str
    """The task in words."""
    action_names: tuple[str, ...]
    round: int
    """From 1 on."""
    tried: Sequence[Tried]
    """Every program of earlier rounds, in the order in which they were proposed."""
    episodes: Sequence[EpisodeRecord]
    """Recorded play of the task so far, failed and successful, by whatever policies."""
    analysis: str
    """The analyzer's text about these episodes."""
    seed: int
    """Fixes all chance of this round."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What designing has used."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        """For files."""
        return dict(self.__dict__)


class Designer(Protocol):
    """Writes reward programs."""

    @property
    def name(self) -> str:
        """As in ``Proposal.by``."""
        ...

    @property
    def costs(self) -> Costs:
        """Since it was made."""
        ...

    def propose(self, brief: Brief, num: int) -> Sequence[Proposal]:
        """So many proposals for a round, no two with the same source."""
        ...


class Opinion(Protocol):
    """Judges a program by reading it."""

    @property
    def costs(self) -> Costs:
        """Since it was made."""
        ...

    def of(self, program: Program, findings: Sequence[Finding]) -> Finding:
        """What to think of a program, given what tests found; undetermined where there is no opinion."""
        ...
