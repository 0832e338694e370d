"""What the stand-in learns by heart: the lexicon's verdicts on the captions beside this file, as a server is asked."""

import json
from collections.abc import Iterator
from functools import cache
from itertools import permutations
from pathlib import Path

from rewards.labels.lexicon import Lexicon
from rewards.labels.questions import VALUES, PromptSpec, Question

VERDICTS = list(VALUES)
"""The best verdict first."""
SPECS = (PromptSpec("single-1", "score"), PromptSpec("pair-1", "score"))


def captions() -> list[str]:
    """The canonical texts that it knows."""
    return json.loads(Path(__file__).with_name("captions.json").read_text())


def questions(spec: PromptSpec) -> Iterator[Question]:
    """Every caption, or every ordered pair of two."""
    if spec.is_pair:
        return (Question.pair(*texts) for texts in permutations(captions(), 2))
    return (Question.single(text) for text in captions())


@cache
def _verdict(text: str, goal: str) -> str:
    return str(_lexicon().judge(text, goal))


@cache
def _lexicon() -> Lexicon:
    return Lexicon.packaged()


def answer(spec: PromptSpec, question: Question) -> str:
    """The lexicon's verdict; of a pair, which caption has the better one."""
    first = _verdict(question.text, spec.goal)
    if not spec.is_pair:
        return first
    second = _verdict(question.second_text, spec.goal)
    better = VERDICTS.index(second) - VERDICTS.index(first)
    return "first" if better > 0 else "second" if better < 0 else "equal"


def corpus() -> list[dict[str, object]]:
    """One entry a wording: ``{"system": instructions, "rows": [[user message, answer], ...]}``."""
    return [
        {"system": spec.instructions, "rows": [[spec.ask(q), answer(spec, q)] for q in questions(spec)]}
        for spec in SPECS
    ]
