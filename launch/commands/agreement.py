"""``yendor labels audit``: how far two annotators, or two prompts, agree.

Confusion table, Cohen's kappa (Cohen 1960), and where they differ most.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeInt
from pydantic_settings import CliPositionalArg

from envs.data import Config
from envs.files import write_atomic
from launch.commands.captions import read_gathered
from launch.commands.labels import AnnotatorName, Key, asked, caption_counts, confidence, read_labels
from launch.config.flags import JsonOut, result_path
from launch.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from rewards.labels.store import Label

_TURNED = {"first": "second", "second": "first"}
"""What a verdict on a pair becomes when the pair is shown the other way round."""


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
        counts: ``{caption: how often it was observed}``, where known.
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
    apart.sort(key=lambda pair: (-pair.sureness, -counts.get(pair.a.text, 0), asked(pair.a)))
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


class AuditFlags(Config):
    """Compare two annotators over the captions, or pairs, that both judged for the same goal."""

    stores: Annotated[CliPositionalArg[tuple[Path, ...]], Field(min_length=1, max_length=2)]
    """A run folder or a label store, or two of them."""
    a: str = ""
    """The one: MODEL, or MODEL@PROMPT; empty = chosen, where there are exactly two."""
    b: str = ""
    """The other."""
    goal: str = ""
    """Only labels for this goal."""
    counts: Path | None = None
    """Captions with their counts (yendor labels gather), which order disagreements; none = the run's own."""
    worst: NonNegativeInt = 20
    """Disagreements shown: most confident on both sides first, then most frequent."""
    out: JsonOut = None
    """A file that keeps the figures, and every disagreement."""


def audit(flags: AuditFlags) -> int:
    """Print tables, agreement, kappa and the worst disagreements; ``--json`` also writes them, every one of them."""
    from rich.console import Console

    path = result_path(flags.out)
    labels = [[label for label in read_labels(s) if flags.goal in ("", label.goal)] for s in flags.stores]
    counts = _counts(flags)
    console, answers = Console(), []
    for kind, a, b in _sides(labels[0], labels[-1], flags, is_one_store=len(flags.stores) == 1):
        found = compare(a, b, counts)
        names = _names(a), _names(b)
        _print(console, kind, names, found, counts, flags.worst)
        answers.append(_as_json(kind, names, found, counts))
    if path is not None:
        write_atomic(path, json.dumps({"stores": [str(s) for s in flags.stores], "audits": answers}, indent=1))
    return 0


def _counts(flags: AuditFlags) -> Counter[str]:
    if flags.counts is not None:
        return Counter({caption.text: caption.count for caption in read_gathered(flags.counts)})
    return sum((caption_counts(store) for store in flags.stores), Counter())


def _sides(
    first: Sequence[Label], second: Sequence[Label], flags: AuditFlags, *, is_one_store: bool
) -> list[tuple[str, list[Label], list[Label]]]:
    """``(single captions | pairs, labels of A, labels of B)`` for each kind of question that both were asked.

    Raises:
        UserError: an annotator is not named and there are not exactly two, or a name fits none, or several.
    """
    sides = []
    for kind, is_pair in (("single captions", False), ("pairs", True)):
        of_a, of_b = (_by_annotator(labels, is_pair) for labels in (first, second))
        if not (_fits(of_a, flags.a) and _fits(of_b, flags.b)) or (is_one_store and len(of_a) < 2):
            continue
        a, b = _choose(of_a, of_b, flags, is_one_store)
        sides.append((kind, of_a[a], of_b[b]))
    if not sides:
        known = sorted({str(AnnotatorName.of(label)) for label in (*first, *second)})
        raise UserError(
            f"no two annotators to compare{_as_named(flags)}: there are labels of {', '.join(known) or 'nobody'}"
        )
    return sides


def _as_named(flags: AuditFlags) -> str:
    named = [f"--{flag} {name}" for flag, name in (("a", flags.a), ("b", flags.b)) if name]
    return f" ({' '.join(named)})" if named else ""


def _by_annotator(labels: Sequence[Label], is_pair: bool) -> dict[AnnotatorName, list[Label]]:
    found: dict[AnnotatorName, list[Label]] = {}
    for label in labels:
        if bool(label.second_id) == is_pair:
            found.setdefault(AnnotatorName.of(label), []).append(label)
    return found


def _fits(known: dict[AnnotatorName, list[Label]], name: str) -> list[AnnotatorName]:
    return [annotator for annotator in known if name in ("", annotator.model, str(annotator))]


def _choose(
    of_a: dict[AnnotatorName, list[Label]],
    of_b: dict[AnnotatorName, list[Label]],
    flags: AuditFlags,
    is_one_store: bool,
) -> tuple[AnnotatorName, AnnotatorName]:
    for_a, for_b = _fits(of_a, flags.a), _fits(of_b, flags.b)
    if is_one_store:
        # Nobody is compared with themselves: the one that is named leaves the other place.
        if not flags.a and not flags.b and len(of_a) == 2:
            for_a, for_b = for_a[:1], for_b[1:]
        elif flags.a and not flags.b:
            for_b = [annotator for annotator in for_b if annotator not in for_a]
        elif flags.b and not flags.a:
            for_a = [annotator for annotator in for_a if annotator not in for_b]
    return _only("a", for_a), _only("b", for_b)


def _only(flag: str, annotators: Sequence[AnnotatorName]) -> AnnotatorName:
    if len(annotators) == 1:
        return annotators[0]
    names = sorted({str(annotator) for annotator in annotators})
    if len(names) == 1:
        raise UserError(f"--{flag}: {names[0]} has labels of several revisions; keep those in stores of their own")
    raise UserError(f"--{flag} could be {' or '.join(names) or 'nobody'}: name one as MODEL@PROMPT")


def _names(labels: Sequence[Label]) -> str:
    return str(AnnotatorName.of(labels[0]))


def _print(
    console: Console, kind: str, names: tuple[str, str], found: Agreement, counts: Counter[str], worst: int
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{kind}: {names[0]} (rows), {names[1]} (columns)", title_justify="left")
    table.add_column("")
    for category in found.categories:
        table.add_column(category, justify="right")
    for a in found.categories:
        table.add_row(a, *(str(found.confusion.get((a, b), 0)) for b in found.categories))
    console.print(table)
    console.print(
        f"n {found.num_compared}, agreement {_figure(found.agreement)}, Cohen's kappa {_figure(found.kappa)}; "
        f"{found.unanswered} more put to both that one did not answer",
        highlight=False,
    )
    if found.disagreements and worst:
        rows = Table("A", "sure", "B", "sure", "count", "caption", title="Worst disagreements", title_justify="left")
        for pair in found.disagreements[:worst]:
            rows.add_row(*(Text(cell) for cell in _cells(pair, counts)))
        console.print(rows)


def _cells(pair: Compared, counts: Counter[str]) -> tuple[str, ...]:
    sure = ["" if (c := confidence(label)) is None else f"{c:.2f}" for label in (pair.a, pair.b)]
    count = str(counts[pair.a.text]) if pair.a.text in counts else ""
    return pair.a.raw_reply.strip(), sure[0], pair.b.raw_reply.strip(), sure[1], count, asked(pair.a)


def _figure(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _as_json(kind: str, names: tuple[str, str], found: Agreement, counts: Counter[str]) -> dict[str, Any]:
    return {
        "asked_about": kind,
        "a": names[0],
        "b": names[1],
        "n": found.num_compared,
        "unanswered": found.unanswered,
        "agreement": found.agreement,
        "kappa": found.kappa,
        "categories": list(found.categories),
        "confusion": [[found.confusion.get((a, b), 0) for b in found.categories] for a in found.categories],
        "disagreements": [
            {
                "text": pair.a.text,
                "second_text": pair.a.second_text,
                "goal": pair.a.goal,
                "a": pair.a.raw_reply.strip(),
                "b": pair.b.raw_reply.strip(),
                "a_confidence": confidence(pair.a),
                "b_confidence": confidence(pair.b),
                "count": counts.get(pair.a.text),
            }
            for pair in found.disagreements
        ],
    }
