"""``yendor labels list`` and ``yendor labels export``: labels of a run or a store, to look at or to take elsewhere."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import CliPositionalArg

from envs.data import Config
from envs.files import replacing
from launch.errors import UserError
from launch.show import one_line

if TYPE_CHECKING:
    from rewards.labels.store import Label

_COMPARED = {1.0: ">", 0.0: "<", 0.5: "="}

Key = tuple[int, int, str]
"""Caption ids and goal: labels with the same key answer the same question."""
Rows = Sequence[Mapping[str, Any]]


# -- labels of a run or a store ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnnotatorName:
    """Who labelled, with which question: labels of one annotator are comparable among themselves."""

    model: str
    revision: str
    prompt_version: str

    @classmethod
    def of(cls, label: Label) -> AnnotatorName:
        """Whose label it is."""
        return cls(label.model, label.model_revision, label.prompt_version)

    def __str__(self) -> str:
        return f"{self.model}@{self.prompt_version}"


def store_path(path: Path) -> Path:
    """The label store of a run folder (its own, or the one that its configuration names), or the file itself.

    Raises:
        UserError: there is no store.
    """
    if path.is_file():
        return path
    if path.is_dir():
        from launch.runs.folder import read_config

        named = read_config(path).get("labels", {}).get("path")
        store = Path(named) if named else path / "labels.sqlite"
        if store.exists():
            return store
        raise UserError(f"run {path} has no labels: {store} does not exist (does it use a reward that needs them?)")
    raise UserError(f"{path} is neither a run folder nor a label store")


def read_labels(path: Path) -> list[Label]:
    """Every label of a store or a run, in the order in which they were added.

    Raises:
        UserError: there is no store, or it cannot be read.
    """
    from rewards.labels.store import LabelStore, LabelStoreError

    try:
        with LabelStore(store_path(path), read_only=True) as store:
            found, cursor = [], 0
            while True:
                page, cursor = store.since(cursor)
                if not page:
                    return found
                found += page
    except LabelStoreError as error:
        raise UserError(str(error)) from None


def caption_counts(path: Path) -> Counter[str]:
    """How often each caption was observed in a run, by its last checkpoint; of a store alone, nothing is known."""
    captions = path / "captions.json"
    if captions.is_file():
        return Counter({row["text"]: row["count"] for row in json.loads(captions.read_text())})
    return Counter()


def asked(label: Label) -> str:
    """The caption on one line; of a pair both, and which is the better: ``A  >  B``."""
    if not label.second_id:
        return one_line(label.text)
    sign = "?" if label.value is None else _COMPARED.get(label.value, f"{label.value:g}")
    return f"{one_line(label.text)}  {sign}  {one_line(label.second_text)}"


def soft_value(label: Label) -> float | None:
    """The expected value where the annotator gave one, else the value; None where it gave no answer."""
    return label.value if label.value is None or label.probability is None else label.probability


def confidence(label: Label) -> float | None:
    """How sure the annotator was of its answer, in [0, 1]: 1 less the distance of the expected value to it.

    None where the annotator gave no probabilities, or no answer.
    """
    if label.value is None or label.probability is None:
        return None
    return 1.0 - abs(label.value - label.probability)


# -- list --------------------------------------------------------------------------------------------


class ListFlags(Config):
    """Look at labels."""

    labels: CliPositionalArg[Path]
    """A run folder or a label store."""
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


def show(flags: ListFlags) -> int:
    """Print the labels as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    labels, counts = read_labels(flags.labels), caption_counts(flags.labels)
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
        asked(label),
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


# -- export ------------------------------------------------------------------------------------------


def _write_csv(out: Path, names: Sequence[str], rows: Rows) -> None:
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _write_jsonl(out: Path, names: Sequence[str], rows: Rows) -> None:
    with out.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(out: Path, names: Sequence[str], rows: Rows) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {
        "caption_id": pa.int64(),
        "second_id": pa.int64(),
        "value": pa.float64(),
        "probability": pa.float64(),
        "failed": pa.bool_(),
        "time_s": pa.float64(),
    }
    # Types by name, not by what the rows happen to hold: a store without values has the same columns.
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema), out)


WRITERS: Mapping[str, Callable[[Path, Sequence[str], Rows], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
}
"""``{ending: writer}``."""


class ExportFlags(Config):
    """Write every label of a run or a store; the columns are those of rewards.labels.store.Label."""

    labels: CliPositionalArg[Path]
    """A run folder or a label store."""
    out: CliPositionalArg[Path]
    """One output file, ending in .parquet, .csv or .jsonl."""


def export(flags: ExportFlags) -> int:
    """Write every label; what goes wrong leaves the file as it was."""
    from rewards.labels.store import Label

    out = flags.out
    if out.suffix not in WRITERS:
        raise UserError(f"cannot export to '{out.name}'; allowed endings are {', '.join(WRITERS)}")
    names = [field.name for field in fields(Label)]
    rows = [{name: getattr(label, name) for name in names} for label in read_labels(flags.labels)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        WRITERS[out.suffix](temporary, names, rows)
    print(f"{len(rows)} labels written to {out}")
    return 0
