"""What an annotator is asked about one caption, and how its answer is read.

A prompt's version names its wording and its reading rule: a change of either is a new version, since
labels are stored under it. Everything fixed comes first and the caption last, so that a server with
prefix caching computes the instructions once.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

VALUES: Mapping[str, float] = MappingProxyType({"helpful": 1.0, "neutral": 0.0, "unhelpful": 0.0})
"""What each verdict pays: ONI's binary reward (arXiv 2410.23022)."""

ABSTENTION = "unknown"
"""The annotator does not know: no value, and no failure either. Not offered as a choice to models."""

GOALS: Mapping[str, str] = MappingProxyType(
    {
        "score": (
            "make as much progress as possible: kill monsters, gain experience, collect gold and useful "
            "items, open the way, go deeper into the dungeon and stay alive"
        ),
        "stairs": "find the stairs that lead down and go as deep as possible, alive",
        "gold": "collect as much gold as possible",
        "combat": "fight monsters and win",
    }
)
"""Goals with a name; a goal may also be a sentence of the user's own."""

_WORDINGS: Mapping[str, str] = MappingProxyType(
    {
        "single-1": (
            "You judge the play of the computer game NetHack (or of one of its small training levels) by "
            "the messages that it prints. The player wants to {goal}.\n\n"
            "You are shown the message that followed one action. N stands for any number, _ for a name, a "
            "letter or a text that does not matter, and each line is one page. Ask yourself what just "
            "happened in the game, and whether it brought the player closer to that goal.\n\n"
            "Verdicts:\n"
            "helpful: what happened is clear progress towards the goal.\n"
            "neutral: it neither helps nor harms, or it only informs.\n"
            "unhelpful: it harms the player, wastes the turn, or is a mistake or a refusal.\n\n"
            "Answer with exactly one word: helpful, neutral or unhelpful."
        )
    }
)


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """A reply that is none of the choices."""

    reason: str


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """One question: a versioned wording and a goal.

    Raises:
        ValueError: there is no such version, or the goal is neither a known name nor a sentence.
    """

    version: str = "single-1"
    goal: str = "score"

    def __post_init__(self) -> None:
        if self.version not in _WORDINGS:
            raise ValueError(f"unknown prompt version '{self.version}': choose from {', '.join(_WORDINGS)}")
        check_goal(self.goal)

    @property
    def choices(self) -> tuple[str, ...]:
        """The answers that are allowed, for structured output."""
        return tuple(VALUES)

    @property
    def instructions(self) -> str:
        """The fixed part: the same for every caption (a chat's system message)."""
        return _WORDINGS[self.version].format(goal=GOALS.get(self.goal, self.goal.rstrip(".")))

    def question(self, caption: str) -> str:
        """The part that names the caption (a chat's user message)."""
        return f"Message:\n{caption}"

    def render(self, caption: str) -> str:
        """The whole prompt as one text."""
        return f"{self.instructions}\n\n{self.question(caption)}\n\nVerdict:"

    def parse(self, reply: str) -> float | ParseFailure | None:
        """The value that a reply stands for.

        Strict: the reply, stripped of blanks, must be one of the choices, letter for letter.

        Returns:
            A value in [0, 1]; None for an abstention; a :class:`ParseFailure` for anything else.
        """
        word = reply.strip()
        if word == ABSTENTION:
            return None
        if word in VALUES:
            return VALUES[word]
        return ParseFailure(f"expected one of {', '.join(VALUES)}, found {word[:80]!r}")


def check_goal(goal: str) -> str:
    """The goal itself, where it is a known name or a sentence.

    Raises:
        ValueError: it is one word and not a known name (most likely a misspelt one), or not one line.
    """
    if goal in GOALS:
        return goal
    if not goal.isprintable():
        raise ValueError("a labelling goal must be a single line of printable text")
    if " " not in goal.strip():
        near = difflib.get_close_matches(goal, GOALS, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ValueError(
            f"unknown labelling goal '{goal}'{hint}: choose from {', '.join(GOALS)}, or write a sentence "
            "such as 'collect as many potions as possible'"
        )
    return goal
