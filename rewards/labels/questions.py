"""What annotators are asked about captions or stretches of play, in which words, and how their answers are read.

A prompt's version names its wording and its reading rule: a change of either is a new version, since labels are stored
under it. Everything fixed comes first and what is judged last, so that a server with prefix caching computes the
instructions once.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from envs.captions import caption_id

Ids = tuple[int, int]
"""Caption ids of a question; the second is 0 where the question is about a single caption."""


@dataclass(frozen=True, slots=True)
class Question:
    """One caption, or two in the order in which they are shown.

    Made by :meth:`single` and :meth:`pair`, which take the ids from the texts.
    """

    caption_id: int
    text: str
    """Canonical text of the caption."""
    second_id: int = 0
    """Second caption of an ordered pair; 0 = the question is about one caption."""
    second_text: str = ""

    @classmethod
    def single(cls, text: str) -> Question:
        """The question about one canonical caption."""
        return cls(caption_id(text), text)

    @classmethod
    def pair(cls, first: str, second: str) -> Question:
        """The question which of two canonical captions is better.

        Raises:
            ValueError: they are the same caption, or one of them is empty.
        """
        if not first or not second or first == second:
            raise ValueError(f"a pair needs two different captions, got {first!r} and {second!r}")
        return cls(caption_id(first), first, caption_id(second), second)

    @property
    def ids(self) -> Ids:
        """Names the question within one labeller: what is asked is the same for all."""
        return self.caption_id, self.second_id

    @property
    def is_pair(self) -> bool:
        """Two captions are compared."""
        return self.second_id != 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the annotator said to one question."""

    question: Question
    value: float | None
    """In [0, 1]. Of one caption: what it is worth. Of a pair: 1 the first is better, 0 the second, 0.5 neither.
    None: the annotator abstained, or its reply could not be read."""
    probability: float | None = None
    """Soft value: the annotator's expectation of ``value``; None where it gives none, or ``value`` is None."""

    @property
    def soft_value(self) -> float | None:
        """The probability where there is one, else the value; None where the annotator gave no answer."""
        return self.value if self.value is None or self.probability is None else self.probability


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

PAIR_VALUES: Mapping[str, float] = MappingProxyType({"first": 1.0, "second": 0.0, "equal": 0.5})
"""What each verdict on a pair means for the first of the two."""

Subject = Literal["message", "stretch"]
"""What is judged: a caption, or a stretch of play in words."""


@dataclass(frozen=True, slots=True)
class _Wording:
    text: str
    """With ``{goal}`` where the goal goes."""
    values: Mapping[str, float]
    """The choices, and what each is worth."""
    is_pair: bool = False
    subject: Subject = "message"


_GAME = (
    "You judge the play of the computer game NetHack (or of one of its small training levels) by "
    "the messages that it prints. The player wants to {goal}.\n\n"
)

_WORDINGS: Mapping[str, _Wording] = MappingProxyType(
    {
        "single-1": _Wording(
            _GAME + "You are shown the message that followed one action. N stands for any number, _ for a name, a "
            "letter or a text that does not matter, and each line is one page. Ask yourself what just "
            "happened in the game, and whether it brought the player closer to that goal.\n\n"
            "Verdicts:\n"
            "helpful: what happened is clear progress towards the goal.\n"
            "neutral: it neither helps nor harms, or it only informs.\n"
            "unhelpful: it harms the player, wastes the turn, or is a mistake or a refusal.\n\n"
            "Answer with exactly one word: helpful, neutral or unhelpful.",
            VALUES,
        ),
        "pair-1": _Wording(
            _GAME + "You are shown two messages, each of which followed one action. N stands for any number, _ for a "
            "name, a letter or a text that does not matter, and each line is one page. Ask yourself what "
            "happened in the game in each case, and after which of the two the player is closer to that goal.\n\n"
            "Verdicts:\n"
            "first: what the first message tells is better for the player.\n"
            "second: what the second message tells is better for the player.\n"
            "equal: neither is better than the other.\n\n"
            "Answer with exactly one word: first, second or equal.",
            PAIR_VALUES,
            is_pair=True,
        ),
        "segments-1": _Wording(
            "You judge the play of the computer game NetHack (or of one of its small training levels). The player "
            "wants to {goal}.\n\n"
            "You are shown two stretches of play of the same task. Of each you are told how many actions it took, "
            "whether the episode ended with it, what was measured, and the different messages that the game printed, "
            "in the order in which they first came, with how often each came. In messages N stands for any number and "
            "_ for a name, a letter or a text that does not matter. Ask yourself what happened in the game in each "
            "case, and which of the two stretches brought the player closer to that goal.\n\n"
            "Verdicts:\n"
            "first: the first stretch is the better play.\n"
            "second: the second stretch is the better play.\n"
            "equal: neither is better than the other.\n\n"
            "Answer with exactly one word: first, second or equal.",
            PAIR_VALUES,
            is_pair=True,
            subject="stretch",
        ),
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
        check_version(self.version)
        check_goal(self.goal)

    @property
    def is_pair(self) -> bool:
        """The question is about two captions, or two stretches of play."""
        return self._wording.is_pair

    @property
    def subject(self) -> Subject:
        """What is judged."""
        return self._wording.subject

    @property
    def choices(self) -> tuple[str, ...]:
        """The answers that are allowed, for structured output."""
        return tuple(self._wording.values)

    @property
    def values(self) -> Mapping[str, float]:
        """What each choice is worth."""
        return self._wording.values

    @property
    def instructions(self) -> str:
        """The fixed part: the same for every question (a chat's system message)."""
        return self._wording.text.format(goal=GOALS.get(self.goal, self.goal.rstrip(".")))

    @property
    def _wording(self) -> _Wording:
        return _WORDINGS[self.version]

    def ask(self, question: Question) -> str:
        """The part that shows what is judged (a chat's user message)."""
        subject = self.subject
        if self.is_pair:
            return f"First {subject}:\n{question.text}\n\nSecond {subject}:\n{question.second_text}"
        return f"{subject.capitalize()}:\n{question.text}"

    def render(self, question: Question) -> str:
        """The whole prompt as one text."""
        return f"{self.instructions}\n\n{self.ask(question)}\n\nVerdict:"

    def parse(self, reply: str) -> float | ParseFailure | None:
        """The value that a reply stands for.

        Strict: the reply, stripped of blanks, must be one of the choices, letter for letter.

        Returns:
            A value in [0, 1]; None for an abstention; a :class:`ParseFailure` for anything else.
        """
        word = reply.strip()
        if word == ABSTENTION:
            return None
        if word in self.values:
            return self.values[word]
        return ParseFailure(f"expected one of {', '.join(self.values)}, found {word[:80]!r}")

    def expectation(self, probabilities: Mapping[str, float]) -> float:
        """The expected value under ``{choice: probability}``: the soft label."""
        return sum(self.values[choice] * p for choice, p in probabilities.items())


def check_version(version: str) -> str:
    """The version itself, where there is such a wording.

    Raises:
        ValueError: there is none; names those there are.
    """
    if version not in _WORDINGS:
        raise ValueError(f"unknown prompt version '{version}': choose from {', '.join(_WORDINGS)}")
    return version


def newest_version(*, is_pair: bool, subject: Subject = "message") -> str:
    """The newest wording about pairs, or about single ones, of captions or of stretches of play."""
    wanted = (is_pair, subject)
    return [version for version, wording in _WORDINGS.items() if (wording.is_pair, wording.subject) == wanted][-1]


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
