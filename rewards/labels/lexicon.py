"""Hand-written rules for NetHack messages: the annotator that needs neither a model nor a server.

The rules live in ``lexicon.toml``, written from knowledge of the game before any learning run, and
frozen: their hash is the annotator's revision, so a change means new labels. They were never tuned on
learning results.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from importlib import resources
from pathlib import Path
from typing import Any

from envs.caption_changes import without_changes
from envs.captions import canonical
from rewards.labels.questions import GOALS, VALUES

_SENTENCE_END = re.compile(r"""\n|(?<=[.!?"]) +(?=[A-Z"]|_ - )""")


class LexiconError(ValueError):
    """A lexicon file is malformed, or a goal is none of its columns; the message says which."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one kind of sentence means."""

    category: str
    pattern: re.Pattern[str]
    verdicts: dict[str, str]
    """``{goal: helpful | neutral | unhelpful}``."""
    veto: bool
    """Outweighs a helpful sentence beside it (killing the pet is still a kill)."""
    why: str


@dataclass(frozen=True)
class Lexicon:
    """Ordered rules; the first that matches a sentence decides it."""

    rules: tuple[Rule, ...]
    revision: str
    """Hash of the file."""

    @classmethod
    def packaged(cls) -> Lexicon:
        """The rules that come with Yendor."""
        file = resources.files("rewards.labels") / "lexicon.toml"
        return cls.parse(file.read_bytes(), file.name)

    @classmethod
    def read(cls, path: Path) -> Lexicon:
        """The rules of a file.

        Raises:
            LexiconError: there is no such file, or it is malformed.
        """
        if not path.is_file():
            raise LexiconError(f"there is no lexicon file at {path}")
        return cls.parse(path.read_bytes(), str(path))

    @classmethod
    def parse(cls, data: bytes, name: str) -> Lexicon:
        """The rules in the bytes of a TOML file called ``name``.

        Raises:
            LexiconError: the file is malformed; names the file and the rule.
        """
        try:
            content = tomllib.loads(data.decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise LexiconError(f"lexicon {name} is not valid TOML: {error}") from error
        rules = tuple(
            _rule(entry, category, name)
            for category in content.get("category", [])
            for entry in category.get("rules", [])
        )
        if not rules:
            raise LexiconError(f"lexicon {name} has no rules: expected [[category]] tables with 'rules'")
        return cls(rules, blake2b(data, digest_size=8).hexdigest())

    @cached_property
    def _goals(self) -> frozenset[str]:
        return frozenset(GOALS)

    def match(self, sentence: str) -> Rule | None:
        """The first rule that matches one sentence of a canonical text."""
        return next((rule for rule in self.rules if rule.pattern.search(sentence)), None)

    def judge(self, caption: str, goal: str = "score") -> str | None:
        """The verdict on a caption: ``helpful``, ``neutral``, ``unhelpful``, or None = not covered.

        Every sentence is judged by itself. A veto decides alone; else one helpful sentence makes the
        caption helpful; else a sentence without a rule leaves it uncovered; else one unhelpful sentence
        makes it unhelpful. Lines that tell what changed (``env.captions=changes``) are left out: the rules are
        about what the game says.

        Args:
            caption: a canonical text.
            goal: one of the named goals.

        Raises:
            LexiconError: the goal has no column.
        """
        if goal not in self._goals:
            raise LexiconError(
                f"the lexicon has rules for the goals {', '.join(GOALS)}; '{goal}' needs a language model"
            )
        rules = [self.match(sentence) for sentence in sentences(without_changes(caption))]
        found = {None if rule is None else rule.verdicts[goal] for rule in rules}
        if any(rule is not None and rule.veto for rule in rules):
            return "unhelpful"
        return next((v for v in ("helpful", None, "unhelpful", "neutral") if v in found), None)


def sentences(caption: str) -> list[str]:
    """The sentences of a canonical text."""
    return [part for part in _SENTENCE_END.split(caption) if part]


def _rule(entry: dict[str, Any], category: dict[str, Any], name: str) -> Rule:
    where = f"lexicon {name}, rule {entry.get('match', '?')!r}"
    unknown = set(entry) - {"match", "verdict", "why", "veto", "serves", *GOALS}
    if unknown:
        raise LexiconError(f"{where} has an unknown key '{min(unknown)}'")
    missing = {"match", "verdict", "why"} - set(entry)
    if missing:
        raise LexiconError(f"{where} lacks '{min(missing)}'")
    serves = entry.get("serves", category.get("serves", []))
    verdict = entry["verdict"]
    verdicts = {"score": verdict}
    for goal in GOALS:
        # Progress towards another goal is neutral for this one; harm is harm whatever the goal.
        default = verdict if goal in ("score", *serves) or verdict != "helpful" else "neutral"
        verdicts[goal] = entry.get(goal, default)
    wrong = ({*verdicts.values()} - {*VALUES}) or ({*serves} - {*GOALS})
    if wrong:
        raise LexiconError(f"{where} says '{min(wrong)}': verdicts are {', '.join(VALUES)}; goals {', '.join(GOALS)}")
    try:
        pattern = re.compile(entry["match"])
    except re.error as error:
        raise LexiconError(f"{where} is not a regular expression: {error}") from error
    return Rule(category.get("name", ""), pattern, verdicts, bool(entry.get("veto", False)), entry["why"])


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of some play the rules cover."""

    occurrences: int
    """Messages that were not empty."""
    covered: int
    """Those of them with a verdict."""
    verdicts: Counter[str]
    """Occurrences of each verdict."""
    uncovered: Counter[str]
    """Occurrences of each sentence without a rule."""

    @property
    def share(self) -> float:
        """Covered occurrences in [0, 1]; 1 where there was no message."""
        return self.covered / self.occurrences if self.occurrences else 1.0


def coverage(messages: Iterable[bytes], lexicon: Lexicon | None = None, goal: str = "score") -> Coverage:
    """Measure the rules on the raw messages of some play, each occurrence counted."""
    lexicon = lexicon or Lexicon.packaged()
    counts: Counter[str] = Counter()
    for message, count in Counter(messages).items():
        counts[canonical(message.decode("latin-1"))] += count
    del counts[""]
    verdicts: Counter[str] = Counter()
    uncovered: Counter[str] = Counter()
    for text, count in counts.items():
        verdict = lexicon.judge(text, goal)
        if verdict is not None:
            verdicts[verdict] += count
            continue
        for sentence in sentences(text):
            if lexicon.match(sentence) is None:
                uncovered[sentence] += count
    return Coverage(counts.total(), verdicts.total(), verdicts, uncovered)
