"""``study NAME``: run, or go on with, the runs behind the README's figures; ``study figures`` makes those."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import PositiveInt

from envs.data import Config
from launch.config.flags import parse
from launch.errors import UserError, unknown_name
from tests.benchmarks.store import RESULTS, Results
from tests.benchmarks.studies.curves import CONTROL_STUDIES, load
from tests.benchmarks.studies.figures import FIGURES, draw
from tests.benchmarks.studies.jobs import STUDIES
from tests.benchmarks.studies.runner import Study
from tests.benchmarks.studies.tables import (
    captions_table,
    control_table,
    coverage_table,
    designs_table,
    differences,
    forks_table,
    mazes_table,
    table,
    trees_table,
)

PROG = "python -m tests.benchmarks study"
_PAID_CAPTIONS = ("_oni", "_classification", "_ranking")
"""How the names of runs end that are paid for captions."""

_USAGE = f"""usage: {PROG} NAME [--out DIR] [--runs DIR] [--parallel N] [--only TEXT]
       {PROG} figures [--results DIR]      the tables and plots of everything that is done
"""


class StudyFlags(Config):
    """Where a study's results and run folders go."""

    out: Path = RESULTS
    """Folder of the results: <out>/<study>.parquet."""
    runs: Path = Path("runs/studies")
    """Folder of the run folders."""
    parallel: PositiveInt = 2
    """Jobs side by side; one process with one thread each, except those of two peers, which need 1."""
    only: str = ""
    """Only jobs whose name contains this text."""


class FiguresFlags(Config):
    """Make the tables and plots of everything that is done."""

    results: Path = RESULTS
    """Folder of the results."""


def run(argv: Sequence[str]) -> int:
    """Run the jobs that are not done yet; exit code 1 if some failed.

    Raises:
        UserError: there is no such study, or a flag is wrong.
    """
    if argv and argv[0] == "figures":
        return _figures(parse(FiguresFlags(), argv[1:], f"{PROG} figures"))
    if not argv or argv[0] in ("-h", "--help"):
        names = "\n".join(f"  {name}: {len(jobs)} runs" for name, jobs in STUDIES.items())
        print(f"{_USAGE}\nstudies:\n{names}")
        return 0
    name, *flags = argv
    if name.startswith("-"):
        raise UserError(f"the study comes first: {PROG} NAME {name} ...; studies: {', '.join(STUDIES)}")
    if name not in STUDIES:
        raise unknown_name("study", name, STUDIES)
    chosen = parse(StudyFlags(), flags, f"{PROG} {name}")
    jobs = [job for job in STUDIES[name] if chosen.only in job.name]
    study = Study(jobs, Results(chosen.out / f"{name}.parquet"), chosen.runs, chosen.parallel)
    return 0 if study.run() else 1


def _figures(flags: FiguresFlags) -> int:
    runs = load(flags.results)
    for name in FIGURES:
        out = flags.results / "figures" / f"{name}.png"
        if draw(runs, name, out):
            print(f"drawn: {out}")
    print(f"\n{table(runs)}\n\n{differences(runs)}")
    print(f"\n{coverage_table(Results(flags.results / 'coverage.parquet'))}")
    print(f"\n{trees_table(runs)}")
    print(f"\n{designs_table(Results(flags.results / 'design.parquet'))}")
    print(f"\n{mazes_table(Results(flags.results / 'offline_maze.parquet'))}")
    print(f"\n{forks_table(Results(flags.results / 'offline_fork.parquet'))}")
    for study in CONTROL_STUDIES:
        print(f"\n{control_table(Results(flags.results / f'{study}.parquet'))}")
    print(f"\n{captions_table(runs, [name for name in runs if name.endswith(_PAID_CAPTIONS)])}")
    return 0
