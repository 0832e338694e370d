"""What is kept in ``tests/benchmarks/results``: a parquet file for each study, with a row for each run.

    run        its name
    record     everything that is no curve, as JSON: job, commands, versions, evaluations, ...
    curve.X    the values of a curve's column X, a list with one entry a logged line; null where the run has none

``python -m tests.benchmarks results list|show|add`` reads and writes them; ``pandas.read_parquet`` reads them too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from envs.files import fsync_folder
from launch.errors import UserError, unknown_name

RESULTS = Path("tests/benchmarks/results")
Record = Mapping[str, Any]
"""One run's result; its ``curve``, if it has one, is ``{column: list}``."""
_CURVE = "curve."


class Results:
    """The runs of one study.

    Args:
        path: of the parquet file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """The runs that are there, in the order in which they came."""
        return pq.read_table(self.path, columns=["run"])["run"].to_pylist() if self.path.exists() else []

    def read(self) -> dict[str, dict[str, Any]]:
        """``{run: its record}``; empty if nothing was written yet."""
        if not self.path.exists():
            return {}
        found = {}
        for row in pq.read_table(self.path).to_pylist():
            curve = {name[len(_CURVE) :]: x for name, x in row.items() if name.startswith(_CURVE) and x is not None}
            found[row["run"]] = json.loads(row["record"]) | ({"curve": curve} if curve else {})
        return found

    def add(self, records: Mapping[str, Record]) -> None:
        """Add runs, or replace those of the same name; a reader sees the file before or after, never a part."""
        records = self.read() | dict(records)
        curves = [record.get("curve", {}) for record in records.values()]
        columns: dict[str, Any] = {
            "run": list(records),
            "record": [json.dumps({k: v for k, v in r.items() if k != "curve"}) for r in records.values()],
        }
        columns |= {f"{_CURVE}{name}": [curve.get(name) for curve in curves] for name in _union(curves)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            pq.write_table(pa.table(columns), temporary, compression="zstd")
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(self.path.parent)


def _union(names: Iterable[Iterable[str]]) -> list[str]:
    """All names, in the order in which they first come."""
    return list(dict.fromkeys(name for some in names for name in some))


def studies(folder: Path) -> dict[str, Results]:
    """The studies with results in a folder, by name."""
    return {path.stem: Results(path) for path in sorted(folder.glob("*.parquet"), key=lambda path: path.stem)}


_USAGE = """usage: python -m tests.benchmarks results list
       python -m tests.benchmarks results show STUDY RUN      one run as JSON
       python -m tests.benchmarks results add STUDY FILE ...  JSON files, under their names without .json
"""


def run(argv: Sequence[str], folder: Path = RESULTS) -> int:
    """``results list|show|add``.

    Raises:
        UserError: there is no such action, study or run, or a file cannot be read.
    """
    match list(argv):
        case ["list"]:
            for name, results in studies(folder).items():
                print(f"{name}: {', '.join(results.names())}")
        case ["show", study, name]:
            known = studies(folder)
            if study not in known:
                raise unknown_name("study", study, known)
            records = known[study].read()
            if name not in records:
                raise unknown_name("run", name, records)
            print(json.dumps(records[name], indent=1))
        case ["add", study, *files] if files:
            Results(folder / f"{study}.parquet").add({Path(file).stem: _read_json(Path(file)) for file in files})
        case [] | ["-h" | "--help"]:
            sys.stdout.write(_USAGE)
        case _:
            raise UserError(f"results {' '.join(argv)} is none of: list; show STUDY RUN; add STUDY FILE ...")
    return 0


def _read_json(path: Path) -> Record:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object")
    return found
