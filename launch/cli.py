"""``yendor COMMAND ...``: finds the command, imports it, and turns the user's mistakes into one sentence.

Only the standard library is imported before the command is known, so that help answers at once.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pydantic import BaseModel


class Command(NamedTuple):
    """A command, or one action of it."""

    module: str
    """Within ``launch.commands``."""
    flags: str
    """Its class of flags and positionals: a ``Config``, or a ``Selection`` where these decide which others follow."""
    function: str
    """Takes an instance of the class, and for a ``Selection`` what the other flags made; answers with the exit code."""
    text: str
    """For help."""


GROUPS = {
    "labels": "gather, label, list, compare or export captions and their labels",
    "rewards": "look at rewards: factors, preference trees, reward programs and what they pay",
    "offline": "logged play: record it, add to it, look at it, and learn to plan from it",
}
"""Commands with several actions."""

COMMANDS = {
    "train": Command("train", "TrainFlags", "run", "train an agent from a preset or on a task, or resume a run"),
    "eval": Command("evaluate", "EvaluateFlags", "run", "play listed episodes with a run's policy, and summarise them"),
    "compare": Command("compare", "CompareFlags", "run", "put the evaluations of several runs side by side"),
    "labels gather": Command("captions", "GatherFlags", "gather", "play, and write down every distinct caption"),
    "labels run": Command("captions", "LabelFlags", "label", "label the captions of a file, without a run"),
    "labels list": Command("labels", "ListFlags", "show", "look at labels"),
    "labels audit": Command("agreement", "AuditFlags", "audit", "how far two annotators, or two prompts, agree"),
    "labels export": Command("labels", "ExportFlags", "export", "labels as Parquet, CSV or JSON lines"),
    "rewards factors": Command("factors", "CatalogueFlags", "catalogue", "what a ranking may be made of"),
    "rewards show": Command("programs", "ShowFlags", "show", "a run's preference tree, or a program and its history"),
    "rewards compare": Command(
        "factors", "CompareFlags", "compare", "which of two recorded episodes is better, and which factor decides"
    ),
    "rewards check": Command("verdicts", "CheckFlags", "check", "which files are programs to train with, and why not"),
    "rewards codes": Command(
        "verdicts", "CodesFlags", "codes", "why source code is refused, and what to write instead"
    ),
    "rewards score": Command("answers", "ScoreFlags", "score", "what a program pays for recorded episodes"),
    "rewards run": Command("answers", "RunFlags", "run", "what a program answers for transitions of one's own"),
    "rewards list": Command("programs", "ListFlags", "show_all", "the programs of an archive, and their descent"),
    "rewards diff": Command("programs", "DiffFlags", "diff", "what changed from one program to another"),
    "rewards audit": Command("programs", "AuditFlags", "audit", "what a run did with its reward programs"),
    "offline record": Command("offline", "RecordFlags", "record", "play, and write every step into a data set"),
    "offline relabel": Command("offline", "RelabelFlags", "relabel", "add what a run's rewards, or a program, pay"),
    "offline observe": Command("offline", "ObserveFlags", "observe", "add observations, by playing the log again"),
    "offline drop": Command("offline", "DropFlags", "drop", "remove columns that can be made again"),
    "offline verify": Command("offline", "VerifyFlags", "verify", "is every file as it was, and does the log replay?"),
    "offline import": Command("offline", "ImportFlags", "import_", "make a data set of records, or of Minari's"),
    "offline export": Command("offline", "ExportFlags", "export", "write a data set for Minari"),
    "offline show": Command("offline", "ShowFlags", "show", "what is in a data set"),
    "offline train": Command("planning", "LearnFlags", "train", "learn to plan from a data set, or resume such a run"),
    "offline plans": Command("planning", "PlansFlags", "plans", "the plans of a recorded episode over its screens"),
    "offline audit": Command("planning", "AuditFlags", "audit", "execute every candidate: was the critic right?"),
    "report": Command("report", "ReportFlags", "run", "write a run's report, one self-contained HTML file"),
    "bench": Command("bench", "BenchFlags", "run", "measure the speed of games, training, plans or labels here"),
    "design": Command(
        "design", "DesignFlags", "run", "search for a reward program: propose, criticise, train, analyse"
    ),
    "reference": Command(
        "reference",
        "ReferenceFlags",
        "run",
        "train Stable-Baselines3's PPO with a preset's network and hyper-parameters",
    ),
    "serve-llm": Command("serve_llm", "ServeFlags", "run", "serve a language model for labelling, with vLLM"),
    "tasks": Command("tasks", "TasksFlags", "run", "list the task ids that can be played here"),
}
"""``{command, or command and action: what it is}``."""


def _help(group: str = "") -> str:
    """Of all commands, or of the actions of one."""
    lines = {name.removeprefix(group).lstrip(): c.text for name, c in COMMANDS.items() if name.startswith(group)}
    lines = {name: text for name, text in lines.items() if " " not in name} | ({} if group else GROUPS)
    width = max(map(len, lines))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in lines.items())
    about = GROUPS.get(group, "Train, label and evaluate agents for NetHack and MiniHack.")
    what, more = ("ACTION", f"yendor {group} ACTION") if group else ("COMMAND", "yendor COMMAND")
    return (
        f"usage: yendor {group + ' ' if group else ''}{what} ...\n\n{about[:1].upper()}{about[1:].rstrip('.')}.\n\n"
        f"{listed}\n\n'{more} --help' says more; 'yendor --version' which version this is.\n"
    )


def _check_packages() -> None:
    """Other distributions have a top-level package called ``agents`` too (openai-agents has)."""
    from launch.errors import UserError

    found = importlib.util.find_spec("agents")
    origin = Path(found.origin) if found and found.origin else Path("nowhere")
    if not (origin.parent / "ppo.py").exists():
        raise UserError(
            f"the package 'agents' found at {origin.parent} is not Yendor's; uninstall the distribution that "
            "brought it (openai-agents does), or use an environment of its own"
        )


def _find(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command's name in ``COMMANDS``, and the arguments after it.

    Raises:
        UserError: there is no such command, or no such action of it.
    """
    from launch.errors import unknown_name

    name, *rest = arguments
    if name in COMMANDS:
        return name, rest
    if name not in GROUPS:
        raise unknown_name("command", name, {command.partition(" ")[0] for command in COMMANDS})
    actions = [command.partition(" ")[2] for command in COMMANDS if command.startswith(f"{name} ")]
    if rest[0] not in actions:
        raise unknown_name(f"{name} action", rest[0], actions)
    return f"{name} {rest[0]}", rest[1:]


def _run(name: str, argv: Sequence[str]) -> int:
    """Import a command, read its flags, and call it."""
    from launch.config.flags import Selection, has_required, parse, select

    module = importlib.import_module(f"launch.commands.{COMMANDS[name].module}")
    flags: type[BaseModel] = getattr(module, COMMANDS[name].flags)
    function: Callable[..., int] = getattr(module, COMMANDS[name].function)
    typed = list(argv) or ["--help"] * (" " not in name and has_required(flags))
    if not issubclass(flags, Selection):
        return function(parse(flags, typed, f"yendor {name}"))
    selection, rest = select(flags, typed, f"yendor {name}")
    config: Any = parse(selection.defaults(), rest, f"yendor {name}", selection=selection)
    return function(selection, config)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code.

    0 = done, 1 = the run failed, 2 = bad input (one sentence on standard error), 128 + n = stopped by
    signal n after saving.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    group = arguments[0] if arguments and arguments[0] in GROUPS else ""
    if not arguments[bool(group) :] or arguments[bool(group)] in ("-h", "--help"):
        sys.stdout.write(_help(group))
        return 0
    if arguments == ["--version"]:
        sys.stdout.write(f"yendor {importlib.metadata.version('yendor')}\n")
        return 0
    from launch.errors import RunError, UserError

    name = arguments[0]
    try:
        name, rest = _find(arguments)
        _check_packages()
        return _run(name, rest)
    except UserError as error:
        sys.stderr.write(f"yendor: {error}\n")
        return 2
    except SystemExit as stop:
        if stop.code:
            raise
        return 0  # help was printed
    except BrokenPipeError:
        # Nobody reads the output any more (``| head``); Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        sys.stderr.write(f"yendor: {name} was interrupted\n")
        return 130
    except RunError as error:
        sys.stderr.write(f"yendor: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
