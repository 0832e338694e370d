"""Who writes reward programs, what they are told, and what they hand in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from envs.recording import EpisodeRecord
from rewards.auto.search.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Source code that somebody wrote; nothing about it has been checked."""

    source: str
    """Empty where no usable code came; ``problem`` then says why."""
    by: str
    """``grammar``, ``random grammar``, or ``llm NAME``."""
    parents: tuple[str, ...] = ()
    """SHAs of the programs that it was made from."""
    thoughts: str = ""
    """What the author wrote about it."""
    prompt: str = ""
    """What the author was told; empty for a grammar."""
    attempts: int = 1
    """Replies that it took."""
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A program of an earlier round, and what became of it."""

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
    """The same as numbers (``Analysis.figures``): progress of its play, and what became of each component."""


@dataclass(frozen=True, kw_only=True)
class Brief:
    """What a designer is told before a round."""

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
