"""``yendor report RUN [--out FILE]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envs.data import Config
from launch.arguments import parse
from launch.errors import UserError


class ReportFlags(Config):
    """Write a run's report: one self-contained HTML file."""

    out: Path | None = None
    """Where; none = report.html in the run's folder."""


def run(argv: Sequence[str]) -> int:
    """Build the report and say where it is."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: yendor report RUN [--out FILE]")
        return 0
    if argv[0].startswith("-"):
        raise UserError(f"the run comes first: yendor report RUN {argv[0]} ...")
    from launch.report.build import build_report

    path = Path(argv[0])
    flags = parse(ReportFlags(), argv[1:], f"yendor report {path}")
    out = flags.out or path / "report.html"
    try:
        build_report(path, out)
    except ValueError as error:  # one of the run's files is damaged, or was edited
        raise UserError(str(error)) from None
    print(f"report written to {out}")
    return 0
