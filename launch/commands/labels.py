"""``yendor labels list STORE`` and ``yendor labels export STORE OUT``: look at labels, take them elsewhere."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from envs.data import Config
from launch.arguments import parse
from launch.errors import UserError, unknown_name

_USAGE = """usage: yendor labels list RUN|STORE [--match TEXT] [--value 0|1|none]
              [--sort time|text|value|count] [--limit N]
       yendor labels export RUN|STORE OUT.csv|OUT.jsonl

RUN is a run folder (its labels.sqlite, or the store that its configuration names); STORE is an SQLite file.
A store that a run is writing can be read meanwhile.
"""


class ListFlags(Config):
    """Which labels are shown, in which order."""

    match: str = ""
    """Only captions that contain this text, in any case."""
    value: Literal["any", "0", "1", "none"] = "any"
    """Only this value; none = abstained or failed."""
    sort: Literal["time", "text", "value", "count"] = "count"
    """Newest first, by text, by value, or most frequent in the run first."""
    limit: Annotated[int, Field(gt=0)] = 50
    """Rows."""


def run(argv: Sequence[str]) -> int:
    """Dispatch to ``list`` or ``export``."""
    if not argv or {"-h", "--help"} & set(argv):
        sys.stdout.write(_USAGE)
        return 0
    action, *rest = argv
    if action not in _ACTIONS:
        raise unknown_name("labels action", action, _ACTIONS)
    if not rest:
        raise UserError(f"labels {action} needs a run folder or a label store")
    return _ACTIONS[action](Path(rest[0]), rest[1:])


def _store_path(path: Path) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        from launch.run_folder import read_config

        named = read_config(path).get("labels", {}).get("path")
        store = Path(named) if named else path / "labels.sqlite"
        if store.exists():
            return store
        raise UserError(f"run {path} has no labels: {store} does not exist (does it use a reward that needs them?)")
    raise UserError(f"{path} is neither a run folder nor a label store")


def _labels(path: Path) -> list[Any]:
    from rewards.labels.store import LabelStore, LabelStoreError

    try:
        with LabelStore(_store_path(path), read_only=True) as store:
            found, cursor = [], 0
            while True:
                page, cursor = store.since(cursor)
                if not page:
                    return found
                found += page
    except LabelStoreError as error:
        raise UserError(str(error)) from None


def _counts(path: Path) -> Counter[str]:
    """How often each caption came in the run, as its last checkpoint tells."""
    captions = path / "captions.json"
    if not captions.exists():
        return Counter()
    return Counter({row["text"]: row["count"] for row in json.loads(captions.read_text())})


def _list(path: Path, argv: Sequence[str]) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    flags = parse(ListFlags(), argv, f"yendor labels list {path}")
    labels, counts = _labels(path), _counts(path)
    wanted = {
        "any": lambda v: True,
        "none": lambda v: v is None,
        "0": lambda v: v == 0,
        "1": lambda v: v == 1,
    }
    shown = [x for x in labels if flags.match.lower() in x.text.lower() and wanted[flags.value](x.value)]
    order = {
        "time": lambda x: -x.time_s,
        "text": lambda x: x.text,
        "value": lambda x: (-1.0 if x.value is None else x.value, x.text),
        "count": lambda x: (-counts[x.text], x.text),
    }
    shown.sort(key=order[flags.sort])
    table = Table("label", "count", "annotator", "reply", "caption")
    for label in shown[: flags.limit]:
        value = "-" if label.value is None else f"{label.value:g}"
        count = str(counts[label.text]) if label.text in counts else ""
        table.add_row(value, count, label.model, label.raw_reply, Text(label.text.replace("\n", " / ")))
    console = Console()
    console.print(table)
    console.print(f"{min(len(shown), flags.limit)} of {len(shown)} matching, {len(labels)} in all", highlight=False)
    return 0


def _export(path: Path, argv: Sequence[str]) -> int:
    if len(argv) != 1:
        raise UserError("labels export needs one output file, ending in .csv or .jsonl")
    out = Path(argv[0])
    if out.suffix not in _WRITERS:
        raise UserError(f"cannot export to '{out.name}'; allowed endings are {' and '.join(_WRITERS)}")
    labels = _labels(path)
    rows = [{f.name: getattr(label, f.name) for f in fields(label)} for label in labels]
    out.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[out.suffix](out, rows)
    print(f"{len(rows)} labels written to {out}")
    return 0


def _write_csv(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    from rewards.labels.store import Label

    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Label)])
        writer.writeheader()
        writer.writerows(rows)


def _write_jsonl(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))


_ACTIONS = {"list": _list, "export": _export}
_WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl}
