"""``yendor study NAME``: run, or go on with, the runs behind the README's figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from envs.data import Config
from launch.arguments import parse
from launch.errors import UserError, unknown_name

_PAID_CAPTIONS = ("_oni", "_classification", "_ranking")
"""How the names of runs end that are paid for captions."""

_USAGE = """usage: yendor study NAME [--out DIR] [--runs DIR] [--parallel N] [--only TEXT]
       yendor study figures [--results DIR]      the tables and plots of everything that is done
"""


class StudyFlags(Config):
    """Where a study's results and run folders go."""

    out: Path = Path("tests/benchmarks/results")
    """Folder of the results: <out>/<study>/<job>.json."""
    runs: Path = Path("runs/studies")
    """Folder of the run folders."""
    parallel: Annotated[int, Field(gt=0)] = 2
    """Jobs side by side; one process with one thread each, except those of two peers, which need 1."""
    only: str = ""
    """Only jobs whose name contains this text."""


class FiguresFlags(Config):
    """Make the tables and plots of everything that is done."""

    results: Path = Path("tests/benchmarks/results")
    """Folder of the results."""


def run(argv: Sequence[str]) -> int:
    """Run the jobs that are not done yet; exit code 1 if some failed."""
    from launch.studies import STUDIES
    from launch.study import Study

    if argv and argv[0] == "figures":
        return _figures(parse(FiguresFlags(), argv[1:], "yendor study figures"))
    if not argv or argv[0] in ("-h", "--help"):
        names = "\n".join(f"  {name}: {len(jobs)} runs" for name, jobs in STUDIES.items())
        print(f"{_USAGE}\nstudies:\n{names}")
        return 0
    name, *flags = argv
    if name.startswith("-"):
        raise UserError(f"the study comes first: yendor study NAME {name} ...; studies: {', '.join(STUDIES)}")
    if name not in STUDIES:
        raise unknown_name("study", name, STUDIES)
    chosen = parse(StudyFlags(), flags, f"yendor study {name}")
    jobs = [job for job in STUDIES[name] if chosen.only in job.name]
    study = Study(jobs, chosen.out / name, chosen.runs, chosen.parallel)
    return 0 if study.run() else 1


def _figures(flags: FiguresFlags) -> int:
    from launch.control_figures import CONTROL_STUDIES, control_table
    from launch.study_figures import (
        FIGURES,
        captions_table,
        coverage_table,
        designs_table,
        differences,
        draw,
        load,
        table,
        trees_table,
    )

    runs = load(flags.results)
    for name in FIGURES:
        out = flags.results / "figures" / f"{name}.png"
        if draw(runs, name, out):
            print(f"drawn: {out}")
    print(f"\n{table(runs)}\n\n{differences(runs)}")
    print(f"\n{coverage_table(flags.results)}")
    print(f"\n{trees_table(runs)}")
    print(f"\n{designs_table(flags.results)}")
    for study in CONTROL_STUDIES:
        print(f"\n{control_table(flags.results / study)}")
    print(f"\n{captions_table(runs, [name for name in runs if name.endswith(_PAID_CAPTIONS)])}")
    return 0
