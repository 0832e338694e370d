"""``yendor labels audit STORE [STORE2]``: how far two annotators, or two prompts, agree."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import NonNegativeInt

from envs.data import Config
from envs.files import write_atomic
from launch.arguments import parse, result_path, take_value
from launch.errors import UserError
from launch.labels.agreement import Agreement, Compared, compare
from launch.labels.caption_files import read_gathered
from launch.labels.stored import AnnotatorName, caption_counts, confidence, read_labels, shown

if TYPE_CHECKING:
    from rich.console import Console

    from rewards.labels.store import Label


class AuditFlags(Config):
    """Compare two annotators over the captions, or pairs, that both judged for the same goal."""

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


def run(argv: Sequence[str]) -> int:
    """Print tables, agreement, kappa and the worst disagreements; ``--json`` also writes them, every one of them."""
    from rich.console import Console

    stores = [Path(word) for word in argv[: next((i for i, w in enumerate(argv) if w.startswith("-")), len(argv))]]
    if len(stores) > 2:
        raise UserError(f"labels audit compares within one store or between two, not {len(stores)}")
    out, rest = take_value(argv[len(stores) :], "--json")
    path = result_path(out)
    flags = parse(AuditFlags(), rest, f"yendor labels audit {' '.join(map(str, stores))}")
    labels = [[label for label in read_labels(s) if flags.goal in ("", label.goal)] for s in stores]
    counts = _counts(stores, flags)
    console, answers = Console(), []
    for kind, a, b in _sides(labels[0], labels[-1], flags, is_one_store=len(stores) == 1):
        found = compare(a, b, counts)
        names = _names(a), _names(b)
        _print(console, kind, names, found, counts, flags.worst)
        answers.append(_as_json(kind, names, found, counts))
    if path is not None:
        write_atomic(path, json.dumps({"stores": [str(s) for s in stores], "audits": answers}, indent=1))
    return 0


def _counts(stores: Sequence[Path], flags: AuditFlags) -> Counter[str]:
    if flags.counts is not None:
        return Counter({caption.text: caption.count for caption in read_gathered(flags.counts)})
    return sum((caption_counts(store) for store in stores), Counter())


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
        # Nobody is compared with themselves: whoever is named leaves the other place to the others.
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
    return pair.a.raw_reply.strip(), sure[0], pair.b.raw_reply.strip(), sure[1], count, shown(pair.a)


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
