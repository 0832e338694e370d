"""How far two annotators agree: confusion table, Cohen's kappa (Cohen 1960), and where they differ most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from launch.labels.stored import confidence, shown

if TYPE_CHECKING:
    from rewards.labels.store import Label

_TURNED = {"first": "second", "second": "first"}
"""What a verdict on a pair becomes when the pair is shown the other way round."""

Key = tuple[int, int, str]
"""Caption ids, the smaller first, and goal."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One question that both answered; the second answer is turned to the first one's order of the pair."""

    a: Label
    b: Label

    @property
    def sureness(self) -> float:
        """Product of both confidences; who gives none counts as sure."""
        sure = (confidence(self.a), confidence(self.b))
        return (1.0 if sure[0] is None else sure[0]) * (1.0 if sure[1] is None else sure[1])


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two annotators over the questions that both judged."""

    categories: tuple[str, ...]
    """Choices, where both chose among the same; else values."""
    confusion: Mapping[tuple[str, str], int]
    """``{(what A said, what B said): how often}``, without zeros."""
    unanswered: int
    """Questions put to both that one of them did not answer (it abstained, or its reply could not be read)."""
    disagreements: Sequence[Compared]
    """Most confident on both sides first, then most frequent."""

    @property
    def num_compared(self) -> int:
        """Questions that both answered."""
        return sum(self.confusion.values())

    @property
    def agreement(self) -> float | None:
        """Share of the same answers; None where nothing is compared."""
        n = self.num_compared
        return sum(self.confusion.get((c, c), 0) for c in self.categories) / n if n else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: agreement beyond chance, (p_o - p_e) / (1 - p_e).

        None where it is not defined: nothing is compared, or both always gave one and the same answer.
        """
        observed, n = self.agreement, self.num_compared
        if observed is None:
            return None
        of_a, of_b = Counter[str](), Counter[str]()
        for (a, b), count in self.confusion.items():
            of_a[a] += count
            of_b[b] += count
        by_chance = sum(of_a[c] * of_b[c] for c in self.categories) / n**2
        return None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)


def compare(a: Iterable[Label], b: Iterable[Label], counts: Mapping[str, int]) -> Agreement:
    """How far two annotators agree; of several answers of one to the same question, the last counts.

    Args:
        a: labels of the one, all about single captions or all about pairs.
        b: labels of the other, of the same kind.
        counts: ``{caption: how often it came}``, where known.
    """
    of_a, of_b = _by_key(a), _by_key(b)
    both = [Compared(label, _turned_to(label, of_b[key])) for key, label in of_a.items() if key in of_b]
    answered = [pair for pair in both if pair.a.value is not None and pair.b.value is not None]
    choices = [_choices(label.prompt_version for label in labels) for labels in (of_a.values(), of_b.values())]
    use_choices = len(choices[0]) > 0 and choices[0] == choices[1]
    name = _choice if use_choices else _value
    confusion = Counter((name(pair.a), name(pair.b)) for pair in answered)
    found = {category for cell in confusion for category in cell}
    categories = choices[0] if use_choices else tuple(sorted(found, key=float, reverse=True))
    apart = [pair for pair in answered if name(pair.a) != name(pair.b)]
    apart.sort(key=lambda pair: (-pair.sureness, -counts.get(pair.a.text, 0), shown(pair.a)))
    return Agreement(categories, confusion, len(both) - len(answered), apart)


def _by_key(labels: Iterable[Label]) -> dict[Key, Label]:
    return {_key(label): label for label in labels}


def _key(label: Label) -> Key:
    low, high = sorted((label.caption_id, label.second_id)) if label.second_id else (label.caption_id, 0)
    return low, high, label.goal


def _turned_to(first: Label, label: Label) -> Label:
    """The label as if it had been asked in the other's order."""
    if label.caption_id == first.caption_id:
        return label
    reply = label.raw_reply.strip()
    return replace(
        label,
        caption_id=label.second_id,
        text=label.second_text,
        second_id=label.caption_id,
        second_text=label.text,
        value=None if label.value is None else 1.0 - label.value,
        probability=None if label.probability is None else 1.0 - label.probability,
        raw_reply=_TURNED.get(reply, reply),
    )


def _choices(prompt_versions: Iterable[str]) -> tuple[str, ...]:
    """The choices of these prompts; () where they differ, or a prompt is not known here any more."""
    from rewards.labels.questions import PromptSpec

    found = set()
    for version in set(prompt_versions):
        try:
            found.add(PromptSpec(version).choices)
        except ValueError:
            return ()
    return found.pop() if len(found) == 1 else ()


def _choice(label: Label) -> str:
    return label.raw_reply.strip()


def _value(label: Label) -> str:
    return f"{label.value:g}"
