"""``yendor report RUN [--out FILE]``."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from envs.data import Config
from launch.errors import UserError


class ReportFlags(Config):
    """Write a run's report: one self-contained HTML file."""

    run: CliPositionalArg[Path]
    """A run folder."""
    out: Path | None = None
    """Where; none = report.html in the run's folder."""


def run(flags: ReportFlags) -> int:
    """Build the report and say where it is."""
    from launch.report.build import build_report

    out = flags.out or flags.run / "report.html"
    try:
        build_report(flags.run, out)
    except ValueError as error:  # one of the run's files is damaged, or was edited
        raise UserError(str(error)) from None
    print(f"report written to {out}")
    return 0
