"""``yendor tasks [TEXT]``: the task ids that can be played here."""

from __future__ import annotations

from pydantic_settings import CliPositionalArg

from envs.data import Config
from launch.errors import UserError


class TasksFlags(Config):
    """List the task ids that can be played here, one a line."""

    text: CliPositionalArg[str] = ""
    """Only ids that contain this text, in any case."""


def run(flags: TasksFlags) -> int:
    """Print the ids."""
    from envs.tasks import task_ids

    found = [task for task in task_ids() if flags.text.lower() in task.lower()]
    if not found:
        raise UserError(f"no task id contains '{flags.text}'; 'yendor tasks' lists all")
    print("\n".join(found))
    return 0
