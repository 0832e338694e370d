"""``yendor rewards check FILE ...``: which files are programs to train with, and why others are not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.files import unreadable
from launch.arguments import parse
from launch.errors import UserError
from launch.rewards.containing import Containment, WarmWorkers
from launch.rewards.finding import ArchiveFlags, admitted, find, is_path, read_record
from launch.rewards.refusals import rejection_json, rejection_text
from launch.rewards.stored import take_switch
from launch.rewards.terminal import shown
from rewards.auto.config import CompositionConfig, ContainmentConfig
from rewards.auto.program import SHORT_SHA, Program, ProgramRejectedError, Rejection
from rewards.auto.search.proposal import Finding, Verdict

if TYPE_CHECKING:
    from rich.text import Text

    from envs.recording import EpisodeRecord

_AHEAD = 2
"""Files that are admitted while another is tried."""

_STYLES = {"pass": "green", "fail": "bold red", "undetermined": "yellow"}


class CheckFlags(ArchiveFlags, ContainmentConfig):
    """Check programs: whether they may be run, then executed tests on recorded play."""

    episodes: tuple[Path, ...] = ()
    """Records of the task's play (.npz): whether successes earn more than failures is judged by these alone. What they
    lack of transitions comes from shipped play of several tasks."""
    composition: CompositionConfig = CompositionConfig()


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What came of one file."""

    name: str
    rejection: Rejection | None = None
    """Why it is no program; then nothing of it was run."""
    program: Program | None = None
    verdict: Verdict | None = None
    """Of the executed tests."""

    @property
    def accepted(self) -> bool:
        """Neither refused nor failed."""
        return self.verdict is not None and self.verdict.accepted

    def as_json(self) -> dict[str, Any]:
        """For programs; the same keys whatever came of it."""
        if self.rejection is not None:
            return {**rejection_json(self.name, self.rejection), "sha": None, "findings": []}
        assert self.program is not None and self.verdict is not None
        failed = next((finding for finding in self.verdict.findings if finding.outcome == "fail"), None)
        return {
            "file": self.name,
            "verdict": "accepted" if self.accepted else "rejected",
            "code": (failed.code or failed.test) if failed else None,
            "line": failed.line if failed else None,
            "column": None,
            "reason": f"{failed.test}: {failed.reason}" if failed else "",
            "hint": "",
            "source_line": "",
            "sha": self.program.sha,
            "findings": [finding.as_json() for finding in self.verdict.findings],
        }


def run(argv: Sequence[str]) -> int:
    """Print a verdict on each file; exit code 0 where all are accepted, else 2. ``--json`` prints one object a line."""
    as_json, rest = take_switch(argv, "--json")
    names = list(takewhile(lambda word: not word.startswith("-"), rest))
    flags = parse(CheckFlags(), rest[len(names) :], "yendor rewards check FILE ...")
    _check_readable(names, flags.archive)
    played = [read_record(path) for path in flags.episodes]
    containment = Containment.of(flags)
    containment.tell()
    show = _show_json if as_json else _show
    all_accepted = True
    for checked in _checked(names, played, flags, containment):
        show(checked)
        all_accepted = all_accepted and checked.accepted
    return 0 if all_accepted else 2


def _check_readable(names: Sequence[str], folder: Path) -> None:
    for name in names:
        if not is_path(name):
            find(name, folder)
            continue
        try:
            Path(name).open("rb").close()
        except OSError as error:
            raise UserError(unreadable(name, error)) from None


def _checked(
    names: Sequence[str], played: Sequence[EpisodeRecord], flags: CheckFlags, containment: Containment
) -> Iterator[Checked]:
    """Each file in turn; what one is found to be is told before the next is looked at."""
    from rewards.auto.search.critic import Critic

    with WarmWorkers(containment) as workers, ThreadPoolExecutor(_AHEAD) as ahead:
        for checked in ahead.map(partial(_admitted, folder=flags.archive), names):
            if checked.program is None:
                yield checked
                continue
            program = checked.program
            critic = Critic(flags, flags.composition, make=workers.hired, check=lambda _, program=program: program)
            _, verdict = critic.critique(program.source, played)
            yield replace(checked, verdict=verdict if played else _on_foreign_play(verdict, program))


def _admitted(name: str, folder: Path) -> Checked:
    try:
        return Checked(name=name, program=admitted(name, folder))
    except ProgramRejectedError as error:
        return Checked(name=name, rejection=error.rejection)


def _on_foreign_play(verdict: Verdict, program: Program) -> Verdict:
    """Shipped play need not show what a program pays for: saying the same of all of it is then no failure.

    Nor is it for one that reads nothing: it may be run, and teaches nothing.
    """
    reason = "it says the same of all shipped play, which need not show what it pays for; --episodes gives other play"
    if not program.needed_columns:
        reason = "it reads nothing of play, so it says the same of all; a search for programs would drop it"
    return Verdict(
        findings=[
            replace(finding, outcome="undetermined", reason=reason)
            if (finding.test, finding.outcome) == ("constant", "fail")
            else finding
            for finding in verdict.findings
        ]
    )


def _show_json(checked: Checked) -> None:
    sys.stdout.write(json.dumps(checked.as_json()) + "\n")
    sys.stdout.flush()


def _show(checked: Checked) -> None:
    from rich.console import Console

    text = _judged(checked) if checked.rejection is None else rejection_text(checked.name, checked.rejection)
    Console(highlight=False).print(text, soft_wrap=True)


def _judged(checked: Checked) -> Text:
    from rich.text import Text

    assert checked.program is not None and checked.verdict is not None
    word, style = ("accepted", "bold green") if checked.accepted else ("rejected", "bold red")
    text = Text.assemble((f"{shown(checked.name)}: ", "bold"), (word, style))
    text.append(f"  {checked.program.sha[:SHORT_SHA]}, {_components(checked.program)}", "dim")
    for finding in checked.verdict.findings:
        text.append_text(_finding(finding, checked.program.source.split("\n")))
    return text.append("\n")


def _components(program: Program) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in program.components.items()) or "declares no components"


def _finding(finding: Finding, lines: Sequence[str]) -> Text:
    from rich.text import Text

    text = Text.assemble(("\n  "), (f"{finding.outcome:<12} ", _STYLES[finding.outcome]))
    text.append(shown(f"{finding.test}: {finding.reason}"))
    if finding.outcome == "fail" and finding.line is not None and finding.line <= len(lines):
        text.append(f"\n{finding.line:>6} | {shown(lines[finding.line - 1])}")
    return text
