"""``yendor rewards list, show, diff, audit``: reward programs, where they come from and what became of them."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic_settings import CliPositionalArg

from envs.data import Config
from envs.files import unreadable
from launch.config.flags import AsJson
from launch.errors import UserError
from launch.runs.folder import read_events
from launch.show import figure, print_section, share_of, visible
from rewards.auto.archive import Archive, ArchiveEntry, Branch, forest, is_file_name, source_of
from rewards.auto.audit import read
from rewards.auto.config import ProgramConfig
from rewards.auto.program import SHORT_SHA, Program, sha_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    from rich.tree import Tree

    from rewards.auto.search.proposal import Verdict

NOT_JUDGED = "not judged"
_SHA = re.compile(r"[0-9A-Fa-f]{4,64}")
_WHOLE_SHA = re.compile(r"[0-9a-f]{64}")
_BARS = "▁▂▃▄▅▆▇█"
_CHECKPOINTS = 10
_PROMPT_LINES = 12
_OUTCOMES = {"pass": "green", "fail": "red", "undetermined": "yellow"}
_DIFF_STYLES = {"---": "bold", "+++": "bold", "@@": "cyan", "-": "red", "+": "green"}
"""By how a line begins; the first that fits."""
_HEAD = frozenset({"time", "kind"})
"""What every line of an audit log has."""


class ArchiveFlags(Config):
    """Where programs are kept."""

    archive: Path = ProgramConfig.model_fields["archive"].default
    """Folder of the programs that a SHA is looked up in."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A program that was named by its SHA or by a file."""

    name: str
    """As it was typed."""
    source: str
    entry: ArchiveEntry | None
    """What the archive knows of it; None where it is not there."""

    @property
    def label(self) -> str:
        """The file, or the first digits of the SHA."""
        return self.name if is_file_name(self.name) else sha_of(self.source)[:SHORT_SHA]


def find(name: str, folder: Path) -> Named:
    """A program by its SHA, the first digits of it, or its file.

    Raises:
        UserError: there is none, or a file of it is damaged.
    """
    archive = Archive(folder)
    try:
        if not is_file_name(name):
            entry = archive.get(name)
            return Named(name=name, source=entry.source, entry=entry)
        source = source_of(Path(name))
        sha = sha_of(source)
        return Named(name=name, source=source, entry=archive.get(sha) if sha in archive.shas() else None)
    except ValueError as error:
        raise UserError(str(error)) from None


def is_path(name: str) -> bool:
    """Whether it names a file rather than a SHA, be the file there or not."""
    return "/" in name or is_file_name(name)


def admitted(name: str, folder: Path) -> Program:
    """A program that may be run.

    Raises:
        UserError: there is none of this name, or it cannot be read.
        ProgramRejectedError: it may not be run.
    """
    from rewards.auto.language.admission import admit, admit_file

    if not is_path(name):
        return admit(find(name, folder).source)
    try:
        return admit_file(Path(name))
    except OSError as error:
        raise UserError(unreadable(name, error)) from None


def judged(verdict: Verdict | None) -> str:
    """A verdict in one line, with the first reason."""
    if verdict is None:
        return NOT_JUDGED
    return "accepted" if verdict.accepted else f"rejected, {verdict.reasons[0]}"


def success(fitness: Mapping[str, Any], seeds: str = "selection") -> str:
    """'62.0 % (52.0 % to 71.0 %, n = 100)', or '-'."""
    found = fitness.get(seeds) or {}
    return share_of(found.get("success"), found.get("low"), found.get("high"), int(found.get("n") or 0))


# -- list -------------------------------------------------------------------------------------------


class ListFlags(ArchiveFlags):
    """List the programs of an archive, each under the one that it was made from."""

    as_json: AsJson = False
    """Print a list for programs."""


def show_all(flags: ListFlags) -> int:
    """Print the tree of descent. What is damaged is named and left out."""
    if not flags.archive.is_dir():
        raise UserError(f"there is no archive of programs at {flags.archive}; --archive names another folder")
    entries, complaints = Archive(flags.archive).read_all()
    for complaint in complaints:
        sys.stderr.write(f"yendor: {complaint}\n")
    if flags.as_json:
        sys.stdout.write(json.dumps([_entry_json(entry) for entry in entries], indent=1) + "\n")
        return 0
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    root = Tree(Text(f"{len(entries):,} program{'s' * (len(entries) != 1)} in {flags.archive}", style="dim"))
    for branch in forest(entries):
        _hang(root, branch)
    Console().print(root)
    return 0


def _hang(tree: Tree, branch: Branch) -> None:
    below = tree.add(_line(branch.entry))
    for child in branch.children:
        _hang(below, child)


def _line(entry: ArchiveEntry) -> Text:
    from rich.text import Text

    is_accepted = entry.verdict is not None and entry.verdict.accepted
    style = "green" if is_accepted else "dim" if entry.verdict is None else "red"
    where = ", ".join(word for word in (f"round {entry.round}", entry.task, entry.search) if word)
    line = Text.assemble((entry.sha[:SHORT_SHA], "bold"), f"  {visible(entry.by)}, {visible(where)}")
    line.append(f"\n{visible(judged(entry.verdict))}", style)
    if entry.fitness:
        line.append(f"\nsuccess {success(entry.fitness)}; on other seeds {success(entry.fitness, 'report')}")
    return line


def _entry_json(entry: ArchiveEntry) -> dict[str, Any]:
    verdict = entry.verdict
    return {
        "sha": entry.sha,
        "parents": entry.parents,
        "by": entry.by,
        "task": entry.task,
        "round": entry.round,
        "search": entry.search,
        "created_at": entry.created_at,
        "accepted": None if verdict is None else verdict.accepted,
        "reasons": [] if verdict is None else verdict.reasons,
        "fitness": entry.as_json()["fitness"],
    }


# -- show -------------------------------------------------------------------------------------------


class ShowFlags(ArchiveFlags):
    """Show a run's preference tree, or a program.

    Of a tree: what each level decides, and how well the reward model has learned it. Of a program: its source, who
    wrote it and from what, the verdict on it, and how training with it went.
    """

    name: CliPositionalArg[str]
    """A run folder, or the SHA or the file of a program."""
    prompt: bool = False
    """The whole of what a program's author was asked."""
    as_json: AsJson = False
    """Print it for programs."""


def show(flags: ShowFlags) -> int:
    """Show a program, or what a run's reward over factors prefers."""
    name = flags.name
    if Path(name).is_dir() or not (is_file_name(name) or _SHA.fullmatch(name)):
        return _show_run(Path(name), as_json=flags.as_json)
    named = find(name, flags.archive)
    if flags.as_json:
        facts = {"sha": sha_of(named.source)} if named.entry is None else named.entry.as_json()
        sys.stdout.write(json.dumps({**facts, "source": named.source}, indent=1) + "\n")
        return 0
    from rich.console import Console

    _print_program(Console(highlight=False), named, whole_prompt=flags.prompt)
    return 0


def _show_run(run: Path, *, as_json: bool) -> int:
    """Print what each reward of a run shows of itself; for programs, and where nothing else is paid, preferences."""
    from launch.commands import factors  # with all that runs are configured by

    reward = factors.rewards_of(run)
    others = [] if as_json else [own for name, own in reward.paid.items() if name != "heron"]
    sections = [kind.report(run, part, read_events(run)) for kind, part in others]
    shown = [section for section in sections if section is not None]
    if reward.heron.pays or not shown:
        factors.show_run(run, as_json=as_json)
    for section in shown:
        print_section(section)
    return 0


def _print_program(console: Console, named: Named, *, whole_prompt: bool) -> None:
    from rich.syntax import Syntax
    from rich.text import Text

    console.print(Text(sha_of(named.source), "bold"))
    if named.entry is None:
        console.print("not in the archive: nothing is known of it but its source", style="dim")
    else:
        console.print(_origin(named.entry))
    console.print(
        Syntax(visible(named.source), "python", line_numbers=True, word_wrap=True, background_color="default")
    )
    if named.entry is not None:
        _print_facts(console, named.entry, whole_prompt=whole_prompt)


def _origin(entry: ArchiveEntry) -> Text:
    from rich.text import Text

    parents = ", ".join(parent[:SHORT_SHA] for parent in entry.parents) or "nothing earlier"
    facts = [
        f"by {entry.by}, from {parents}",
        f"for {entry.task or 'no task'}, round {entry.round}" + (f" of {entry.search}" if entry.search else ""),
        *([f"made {entry.created_at}"] if entry.created_at else []),
    ]
    return Text(visible("\n".join(facts)))


def _print_facts(console: Console, entry: ArchiveEntry, *, whole_prompt: bool) -> None:
    from rich.text import Text

    console.print(_verdict(entry))
    console.print(_fitness(entry))
    if curves := curves_of(entry):
        console.print(_curves(curves))
    for title, text in (("analysis", str(entry.analysis.get("text", ""))), ("thoughts", entry.thoughts)):
        if text:
            console.print(Text.assemble((f"{title}\n", "bold"), visible(text.strip())))
    if entry.prompt:
        lines = visible(entry.prompt.strip()).splitlines()
        kept = lines if whole_prompt else lines[:_PROMPT_LINES]
        left = f"\n... {len(lines) - len(kept):,} lines more: --prompt" if len(kept) < len(lines) else ""
        console.print(Text.assemble(("prompt\n", "bold"), "\n".join(kept), (left, "dim")))


def _verdict(entry: ArchiveEntry) -> Text:
    from rich.text import Text

    text = Text.assemble(("verdict  ", "bold"), visible(judged(entry.verdict)))
    for finding in entry.verdict.findings if entry.verdict else ():
        place = "" if finding.line is None else f" line {finding.line}"
        code = f"{finding.code}{place}: " if finding.code else ""
        text.append(f"\n  {finding.outcome:<12}", _OUTCOMES.get(finding.outcome, "")).append(
            visible(f" {finding.test}: {code}{finding.reason}")
        )
    return text


def _fitness(entry: ArchiveEntry) -> Text:
    from rich.text import Text

    text = Text.assemble(("fitness  ", "bold"))
    if not entry.fitness:
        return text.append("it was not trained with")
    text.append(f"success {success(entry.fitness)} on the seeds that selection looks at")
    text.append(f"\n         success {success(entry.fitness, 'report')} on seeds that nothing was chosen on")
    if steps := entry.fitness.get("steps"):
        text.append(f"\n         {int(steps):,} steps of training")
    if seeds := entry.fitness.get("seeds"):
        text.append(f", seeds {', '.join(map(str, seeds))}" if isinstance(seeds, (list, tuple)) else f", seeds {seeds}")
    return text


def curves_of(entry: ArchiveEntry) -> dict[str, Sequence[float | None]]:
    """Of each component its curve over training: the analyzer's sums over an episode, or means."""
    components = entry.analysis.get("components", {})
    analysed = {name: report.get("curves", {}) for name, report in components.items()}
    found = {name: curves.get("episode_sum") or curves.get("mean") for name, curves in analysed.items()}
    return {name: curve for name, curve in found.items() if curve}


def _curves(curves: Mapping[str, Sequence[float | None]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("component", "over training", title="components at checkpoints", title_justify="left")
    for name in ("first", "lowest", "highest", "last"):
        table.add_column(name, justify="right")
    for name, values in curves.items():
        known = [value for value in values if value is not None]
        figures = (known[0], min(known), max(known), known[-1]) if known else (None,) * 4
        table.add_row(Text(visible(name)), sparkline(values), *map(figure, figures))
    return table


def sparkline(values: Sequence[float | None]) -> str:
    """A curve as at most ten bars, from its lowest value to its highest; a space where there is none."""
    if not values:
        return ""
    at = np.unique(np.linspace(0, len(values) - 1, _CHECKPOINTS).round().astype(int))
    chosen = [values[i] for i in at]
    known = [value for value in chosen if value is not None]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)
    return "".join(
        " " if value is None else _BARS[round((value - low) / span * (len(_BARS) - 1)) if span else 0]
        for value in chosen
    )


# -- diff -------------------------------------------------------------------------------------------


class DiffFlags(ArchiveFlags):
    """Show what changed from one program to another, and how their verdicts and fitness differ."""

    old: CliPositionalArg[str]
    """Two programs, each a SHA or a file: yendor rewards diff OLD NEW"""
    new: CliPositionalArg[str]
    """Two programs, each a SHA or a file: yendor rewards diff OLD NEW"""


def diff(flags: DiffFlags) -> int:
    """Print a unified diff of two programs, and their outcomes."""
    old, new = (find(name, flags.archive) for name in (flags.old, flags.new))
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line in unified(old, new) or ["the sources are the same"]:
        style = next((style for start, style in _DIFF_STYLES.items() if line.startswith(start)), "")
        console.print(Text(visible(line), style), soft_wrap=True)
    for what, before, after in _outcomes(old, new):
        changed = f"{before} -> {after}" if before != after else f"{before}, both"
        console.print(Text.assemble((f"{what}  ", "bold"), visible(changed)), soft_wrap=True)
    return 0


def unified(old: Named, new: Named) -> list[str]:
    """The lines of a unified diff of two programs' sources; none where they are equal."""
    lines = [one.source.split("\n") for one in (old, new)]
    return list(difflib.unified_diff(*lines, fromfile=old.label, tofile=new.label, lineterm=""))


def _outcomes(old: Named, new: Named) -> list[tuple[str, str, str]]:
    """``(what, of the old, of the new)`` where the archive knows either."""
    if old.entry is None and new.entry is None:
        return []
    verdicts = [judged(one.entry.verdict) if one.entry else "not in the archive" for one in (old, new)]
    found = [("verdict", *verdicts)]
    for what, seeds in (("success", "selection"), ("success on other seeds", "report")):
        values = [success(one.entry.fitness, seeds) if one.entry else "-" for one in (old, new)]
        if values != ["-", "-"]:
            found.append((what, *values))
    return found  # pyright: ignore[reportReturnType]  # both are pairs


# -- audit ------------------------------------------------------------------------------------------


class AuditFlags(Config):
    """Print the audit log of a run's reward programs."""

    run: CliPositionalArg[Path]
    """A run folder."""
    as_json: AsJson = False
    """Print one object for programs."""


def audit(flags: AuditFlags) -> int:
    """Print what a run did with its programs."""
    path = _log_of(flags.run)
    try:
        lines = read(path)
    except OSError as error:
        raise UserError(unreadable(path, error)) from None
    except ValueError as error:
        raise UserError(str(error)) from None
    if flags.as_json:
        sys.stdout.write(json.dumps({"file": str(path), "lines": lines}, indent=1) + "\n")
    else:
        _print_log(lines)
    return 0


def _log_of(folder: Path) -> Path:
    from rewards.auto.program_kind import PROGRAMS_FOLDER
    from rewards.auto.program_teacher import AUDIT_FILE

    path = folder / PROGRAMS_FOLDER / AUDIT_FILE
    if not path.is_file():
        raise UserError(f"there is no audit log of reward programs at {path}: a run with a reward program writes one")
    return path


def _print_log(lines: Sequence[Mapping[str, Any]]) -> None:
    for line in lines:
        facts = ", ".join(f"{name} {_fact(value)}" for name, value in line.items() if name not in _HEAD)
        sys.stdout.write(visible(f"{str(line['time'])[:19]}  {line['kind']}: {facts}") + "\n")


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_fact, value)) or "-"
    return "-" if value is None else str(value)[:SHORT_SHA] if _WHOLE_SHA.fullmatch(str(value)) else str(value)
