"""``yendor COMMAND ...``: finds the command, imports it, and turns the user's mistakes into one sentence.

Only the standard library is imported before the command is known, so that help answers at once.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

COMMANDS = {
    "train": "train an agent from a preset, or resume a run",
    "eval": "play listed episodes with a run's policy, and summarise them",
    "compare": "put the evaluations of several runs side by side",
    "labels": "gather, label, list, compare or export captions and their labels",
    "rewards": "look at rewards: factors, preference trees, reward programs and what they pay",
    "report": "write a run's report, one self-contained HTML file",
    "bench": "measure the speed of games, training or labels on this machine",
    "design": "search for a reward program: propose, criticise, train, analyse",
    "reference": "train Stable-Baselines3's PPO with a preset's network and hyper-parameters",
    "serve-llm": "serve a language model for labelling, with vLLM",
    "tasks": "list the task ids that can be played here",
}
_MODULES = {"eval": "evaluate", "serve-llm": "serve_llm"}


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: yendor COMMAND ...\n\n"
        "Train, label and evaluate agents for NetHack and MiniHack.\n\n"
        f"{lines}\n\n'yendor COMMAND --help' says more about a command.\n"
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code.

    0 = done, 1 = the run failed, 2 = bad input (one sentence on standard error), 128 + n = stopped by
    signal n after saving.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    name, *rest = arguments
    from launch.errors import RunError, UserError, unknown_name

    try:
        if name not in COMMANDS:
            raise unknown_name("command", name, COMMANDS)
        _check_packages()
        command = importlib.import_module(f"launch.commands.{_MODULES.get(name, name)}")
        return command.run(rest)
    except UserError as error:
        sys.stderr.write(f"yendor: {error}\n")
        return 2
    except BrokenPipeError:
        # Whoever read the output has left (``| head``); Python would complain again when it flushes at exit.
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
