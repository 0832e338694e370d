"""``yendor tasks [TEXT]``: the task ids that can be played here."""

from __future__ import annotations

from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Print one id a line, those that contain the text."""
    if argv and argv[0] in ("-h", "--help"):
        print("usage: yendor tasks [TEXT]")
        return 0
    from envs.tasks import task_ids

    wanted = argv[0].lower() if argv else ""
    print("\n".join(task for task in task_ids() if wanted in task.lower()))
    return 0
