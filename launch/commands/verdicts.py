"""``yendor rewards check`` and ``rewards codes``: which files are programs to train with, and why others are not."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from pydantic_settings import CliPositionalArg

from envs.data import Config
from envs.files import unreadable
from launch.commands.programs import ArchiveFlags, admitted, find, is_path
from launch.config.flags import AsJson
from launch.errors import UserError, unknown_name
from launch.runs.folder import read_record
from launch.show import visible
from rewards.auto.config import CompositionConfig, ContainmentConfig
from rewards.auto.program import SHORT_SHA, Program, ProgramRejectedError, Rejection
from rewards.auto.sandbox.contained import ContainedProgram, Values
from rewards.auto.sandbox.engine import Engine
from rewards.auto.search.proposal import Finding, Verdict

if TYPE_CHECKING:
    from rich.text import Text

    from envs.recording import EpisodeRecord

_NUM_WARM = 2
_AHEAD = 2
"""Files that are admitted while another is tried."""

_STYLES = {"pass": "green", "fail": "bold red", "undetermined": "yellow"}


class CheckFlags(ArchiveFlags, ContainmentConfig):
    """Check programs: whether they may be run, then executed tests on recorded play."""

    files: Annotated[CliPositionalArg[tuple[str, ...]], Field(min_length=1)]
    """The file of a program, or several, or their SHAs."""
    episodes: tuple[Path, ...] = ()
    """Records of the task's play (.npz): whether successes earn more than failures is judged by these alone. What they
    lack of transitions comes from shipped play of several tasks."""
    composition: CompositionConfig = CompositionConfig()
    as_json: AsJson = False
    """Print one object a line for programs."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The result of checking one file."""

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
        """For programs; the same keys whatever the result."""
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


def check(flags: CheckFlags) -> int:
    """Print a verdict on each file; exit code 0 where all are accepted, else 2."""
    _check_readable(flags.files, flags.archive)
    played = [read_record(path) for path in flags.episodes]
    containment = Containment.of(flags)
    containment.say()
    show = _show_json if flags.as_json else _show
    all_accepted = True
    for checked in _checked(played, flags, containment):
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


def _checked(played: Sequence[EpisodeRecord], flags: CheckFlags, containment: Containment) -> Iterator[Checked]:
    """Each file in turn; its result is printed before the next is read."""
    from rewards.auto.search.critic import Critic

    with WarmWorkers(containment) as workers, ThreadPoolExecutor(_AHEAD) as ahead:
        for checked in ahead.map(partial(_admitted, folder=flags.archive), flags.files):
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
    text = Text.assemble((f"{visible(checked.name)}: ", "bold"), (word, style))
    text.append(f"  {checked.program.sha[:SHORT_SHA]}, {_components(checked.program)}", "dim")
    for finding in checked.verdict.findings:
        text.append_text(_finding(finding, checked.program.source.split("\n")))
    return text.append("\n")


def _components(program: Program) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in program.components.items()) or "declares no components"


def _finding(finding: Finding, lines: Sequence[str]) -> Text:
    from rich.text import Text

    text = Text.assemble(("\n  "), (f"{finding.outcome:<12} ", _STYLES[finding.outcome]))
    text.append(visible(f"{finding.test}: {finding.reason}"))
    if finding.outcome == "fail" and finding.line is not None and finding.line <= len(lines):
        text.append(f"\n{finding.line:>6} | {visible(lines[finding.line - 1])}")
    return text


# -- refusals ---------------------------------------------------------------------------------------


def rejection_json(name: str, rejection: Rejection) -> dict[str, Any]:
    """A file that was refused before any of it ran, for programs."""
    return {
        "file": name,
        "verdict": "rejected",
        "code": rejection.code,
        "line": rejection.line,
        "column": rejection.column,
        "reason": rejection.reason,
        "hint": rejection.hint,
        "source_line": rejection.source_line,
    }


def rejection_text(name: str, rejection: Rejection) -> Text:
    """The same for people: the line, a caret under the place, the reason, what to write instead."""
    from rich.text import Text

    from rewards.auto.program import REJECTIONS

    place = "" if rejection.line is None else f", line {rejection.line}"
    text = Text.assemble((f"{visible(name)}{place}: ", "bold"), ("rejected before any of it ran", "bold red"))
    text.append(f"\n  {rejection.code}: {visible(rejection.reason)}")
    if rejection.line is not None and rejection.source_line:
        text.append(f"\n{rejection.line:>6} | {visible(rejection.source_line)}")
        if rejection.column is not None:
            before = visible(rejection.source_line[: rejection.column - 1])
            indent = "".join("\t" if character == "\t" else " " for character in before)
            text.append("\n       | " + indent).append("^", "bold red")
    if rejection.code in REJECTIONS:
        text.append(f"\n  why: {REJECTIONS[rejection.code].why}", "dim")
    if rejection.hint:
        text.append(f"\n  instead: {visible(rejection.hint)}")
    return text.append(f"\n  more: yendor rewards codes {rejection.code}\n", "dim")


class CodesFlags(Config):
    """Print why source code is refused as a reward program, and what to write instead."""

    code: CliPositionalArg[str] = ""
    """Only this one: E15."""


def codes(flags: CodesFlags) -> int:
    """Print what a code stands for, or the table of all."""
    from rewards.auto.program import REJECTIONS

    if flags.code and flags.code not in REJECTIONS:
        raise unknown_name("code", flags.code, REJECTIONS)
    for code, kind in REJECTIONS.items():
        if flags.code in ("", code):
            sys.stdout.write(f"{code}  {kind.title}\n     why: {kind.why}\n     instead: {kind.instead}\n")
    return 0


# -- where programs run -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Containment:
    """Where programs run.

    Use ``of`` to make it.
    """

    config: ContainmentConfig
    reached: str
    """``reward programs: monty 1.4.0, isolation full (user 65534, seccomp on, ...)``."""

    @classmethod
    def of(cls, config: ContainmentConfig) -> Containment:
        """Find out what this machine offers.

        Raises:
            UserError: the engine is not there, or is cut off from the machine less than is asked for.
        """
        from rewards.auto.sandbox.jail import IsolationError
        from rewards.auto.sandbox.monty import isolation_line

        try:
            return cls(config=config, reached=isolation_line(config))
        except (IsolationError, ImportError) as error:
            raise UserError(f"programs cannot be run: {error}") from None

    def contained(self, program: Program) -> ContainedProgram:
        """A program in a process of its own, which starts when it is needed; to be closed."""
        return ContainedProgram(program, self.config)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """A process that takes one program after the other, and ends with the block."""
        from rewards.auto.sandbox.monty import build_engine

        engine = build_engine(self.config)
        try:
            yield engine
        finally:
            engine.close()

    def say(self) -> None:
        """Say on standard error what programs run in."""
        sys.stderr.write(f"{self.reached}\n")


class WarmWorkers:
    """Two processes that are hired in turn, and kept: starting one takes longer than trying a program.

    A process forgets a program when it loads the next (``Engine.load``).
    """

    def __init__(self, containment: Containment) -> None:
        self._config = containment.config
        self._engines: deque[Engine] = deque()

    def hired(self, program: Program) -> _Hired:
        """The program in another process than the last one, for one at a time."""
        from rewards.auto.sandbox.monty import build_engine

        if len(self._engines) < _NUM_WARM:
            self._engines.append(build_engine(self._config))
        self._engines.rotate()
        return _Hired(ContainedProgram(program, self._config, self._engines[0], distinct=False))

    def __enter__(self) -> WarmWorkers:
        return self

    def __exit__(self, *error: object) -> None:
        for engine in self._engines:
            engine.close()


@dataclass(frozen=True)
class _Hired:
    """A contained program whose process goes on when it is closed."""

    program: ContainedProgram

    def evaluate(self, columns: Mapping[str, np.ndarray], num: int) -> Values:
        return self.program.evaluate(columns, num)

    def close(self) -> None:
        pass
