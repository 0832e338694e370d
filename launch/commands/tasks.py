"""``yendor tasks [TEXT]``: the task ids that can be played here."""

from __future__ import annotations

from collections.abc import Sequence

from launch.errors import UserError


def run(argv: Sequence[str]) -> int:
    """Print one id a line, those that contain the text."""
    if argv and argv[0] in ("-h", "--help"):
        print("usage: yendor tasks [TEXT]")
        return 0
    from envs.tasks import task_ids

    wanted = argv[0].lower() if argv else ""
    found = [task for task in task_ids() if wanted in task.lower()]
    if not found:
        raise UserError(f"no task id contains '{argv[0]}'; 'yendor tasks' lists all")
    print("\n".join(found))
    return 0
