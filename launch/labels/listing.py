"""``yendor labels list STORE|RUN``: look at labels."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from envs.data import Config
from launch.arguments import parse
from launch.labels.stored import AnnotatorName, caption_counts, confidence, read_labels, shown, soft_value

if TYPE_CHECKING:
    from rewards.labels.store import Label

Key = tuple[int, int, str]
"""Caption ids and goal: labels with the same key answer the same question."""


class ListFlags(Config):
    """Which labels are shown, in which order."""

    match: str = ""
    """Only captions that contain this text, in any case."""
    value: str = "any"
    """Only this value (0, 0.5, 1); none = abstained or failed."""
    annotator: str = ""
    """Only labels of this annotator: lexicon, or a model's name."""
    goal: str = ""
    """Only labels for this goal."""
    prompt: str = ""
    """Only labels under this prompt version."""
    failed: bool = False
    """Only replies that could not be read."""
    sort: Literal["time", "text", "value", "count", "confidence", "disagreement"] = "count"
    """time: newest first; text; value; count: most frequent in the run first; confidence: least sure first;
    disagreement: only captions with several annotators or prompts, those first on which they differ most."""
    limit: Annotated[int, Field(gt=0)] = 50
    """Rows."""

    @field_validator("value")
    @classmethod
    def _any_none_or_number(cls, value: str) -> str:
        if value not in ("any", "none"):
            try:
                float(value)
            except ValueError:
                raise ValueError(f"'{value}' is no value: give any, none or a number such as 0, 0.5 or 1") from None
        return value


def run(argv: Sequence[str]) -> int:
    """Print the labels as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    path = Path(argv[0])
    flags = parse(ListFlags(), argv[1:], f"yendor labels list {path}")
    labels, counts = read_labels(path), caption_counts(path)
    found = ordered([label for label in labels if is_wanted(label, flags)], flags.sort, counts)
    rows = [_cells(label, counts) for label in found[: flags.limit]]
    names = [name for name in _CELLS if _is_worth_a_column([row[name] for row in rows], varies=name in _VARYING)]
    table = Table()
    for name in names:
        table.add_column(name, no_wrap=name != "caption", min_width=30 if name == "caption" else None)
    for row in rows:
        table.add_row(*(Text(row[name]) for name in names))
    console = Console()
    console.print(table)
    console.print(f"{min(len(found), flags.limit)} of {len(found)} matching, {len(labels)} in all", highlight=False)
    return 0


_CELLS = ("label", "sure", "count", "annotator", "prompt", "goal", "reply", "caption")
_VARYING = ("prompt", "goal")
"""Columns that say nothing where they hold the same in every row."""


def _is_worth_a_column(cells: Sequence[str], *, varies: bool) -> bool:
    """Columns without anything to say would only take the captions' place."""
    return len(set(cells)) > 1 if varies else any(cells) or not cells


def _cells(label: Label, counts: Counter[str]) -> dict[str, str]:
    sure = confidence(label)
    cells = (
        "-" if label.value is None else f"{label.value:g}",
        "" if sure is None else f"{sure:.2f}",
        str(counts[label.text]) if label.text in counts else "",
        label.model,
        label.prompt_version,
        label.goal,
        label.raw_reply,
        shown(label),
    )
    return dict(zip(_CELLS, cells, strict=True))


def is_wanted(label: Label, flags: ListFlags) -> bool:
    """Whether the filters let a label through."""
    asked = {"any": True, "none": label.value is None}
    return (
        flags.match.lower() in f"{label.text}\n{label.second_text}".lower()
        and (asked[flags.value] if flags.value in asked else label.value == float(flags.value))
        and flags.annotator in ("", label.model)
        and flags.goal in ("", label.goal)
        and flags.prompt in ("", label.prompt_version)
        and (label.failed or not flags.failed)
    )


def ordered(labels: Sequence[Label], by: str, counts: Counter[str]) -> list[Label]:
    """Labels in one of the orders of ``ListFlags.sort``."""
    differences = spreads(labels) if by == "disagreement" else {}
    orders: Mapping[str, Callable[[Label], Any]] = {
        "time": lambda x: -x.time_s,
        "text": lambda x: (x.text, x.second_text),
        "value": lambda x: (-1.0 if x.value is None else x.value, x.text, x.second_text),
        "count": lambda x: (-counts[x.text], x.text, x.second_text),
        "confidence": lambda x: (_or_inf(confidence(x)), x.text, x.second_text),
        "disagreement": lambda x: (-differences[_key(x)], x.text, x.second_text, str(AnnotatorName.of(x))),
    }
    chosen = [label for label in labels if _key(label) in differences] if by == "disagreement" else labels
    return sorted(chosen, key=orders[by])


def spreads(labels: Iterable[Label]) -> dict[Key, float]:
    """``{question: greatest difference between two annotators' (soft) values}``, where at least two gave one."""
    values: dict[Key, dict[AnnotatorName, float]] = defaultdict(dict)
    for label in labels:
        if (value := soft_value(label)) is not None:
            values[_key(label)][AnnotatorName.of(label)] = value
    return {key: max(of.values()) - min(of.values()) for key, of in values.items() if len(of) > 1}


def _key(label: Label) -> Key:
    return label.caption_id, label.second_id, label.goal


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value
