"""``yendor labels export STORE|RUN OUT``: labels as Parquet, CSV or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from envs.files import replacing
from launch.errors import UserError
from launch.labels.stored import read_labels

Rows = Sequence[Mapping[str, Any]]


def run(argv: Sequence[str]) -> int:
    """Write every label; the columns are those of ``rewards.labels.store.Label``."""
    from rewards.labels.store import Label

    if len(argv) != 2:
        raise UserError(f"labels export needs one output file, ending in {_ENDINGS}")
    path, out = map(Path, argv)
    if out.suffix not in WRITERS:
        raise UserError(f"cannot export to '{out.name}'; allowed endings are {_ENDINGS}")
    names = [field.name for field in fields(Label)]
    rows = [{name: getattr(label, name) for name in names} for label in read_labels(path)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        WRITERS[out.suffix](temporary, names, rows)
    print(f"{len(rows)} labels written to {out}")
    return 0


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
_ENDINGS = ", ".join(WRITERS)
