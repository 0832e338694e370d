"""Ends whole process groups; run as a script, it guards a command and its descendants.

    python -I launch/llm/process_group.py COMMAND ...

The guard starts the command in its own process group, and ends the whole group when the command ends, when its own
standard input is closed (the parent has ended, even by SIGKILL), or when the group receives SIGTERM. A server that is
killed can thus leave no engine behind, and a run that is killed no server.

Linux only (``/proc``); a file of its own with the standard library only, so that the guard is small and starts at once.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

GRACE_S = 15.0
"""Time between SIGTERM and SIGKILL."""
_POLL_S = 0.05
_SHARED_MEMORY = ("/dev/shm/psm_", "/dev/shm/sem.mp-")
"""What Python's ``multiprocessing`` calls its shared memory and semaphores; processes that are killed leave them."""


def members(group: int) -> list[int]:
    """Pids of a group's living processes, this one left out; zombies are not alive."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(its_group) == group and state not in "ZX":
                    found.append(int(entry.name))
    return found


def shared_memory(group: int) -> set[Path]:
    """Shared memory and semaphores that a group's processes have mapped."""
    found = set()
    for pid in members(group):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                path = line.split(maxsplit=5)[-1]
                if path.startswith(_SHARED_MEMORY):
                    found.add(Path(path.removesuffix(" (deleted)")))
    return found


def end(group: int, grace_s: float = GRACE_S) -> None:
    """SIGTERM to a process group, SIGKILL to what is left after a while; its shared memory is freed.

    Args:
        group: id of the group; where it is this process's own, this process alone stays.
        grace_s: time between the two.
    """
    segments = shared_memory(group)
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
    left = _wait(group, grace_s)
    while left:  # a process may start another one while it is being killed
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        left = _wait(group, grace_s)
    for segment in segments:
        segment.unlink(missing_ok=True)


def _wait(group: int, seconds: float) -> list[int]:
    """Pids that are left after so many seconds; returns at once when none is."""
    deadline_s = time.monotonic() + seconds
    while (left := members(group)) and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
    return left


def guard(command: Sequence[str]) -> int:
    """Run a command until it ends or standard input is closed; then end the group.

    This process must be the leader of a group of its own.

    Returns:
        The command's exit code; 128 + n where signal n ended it.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A handler that does nothing, not SIG_IGN, which the command would inherit.
        signal.signal(number, lambda *_: None)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    has_parent = True
    while has_parent and process.poll() is None:
        readable, _, _ = select.select([0], [], [], 4 * _POLL_S)
        has_parent = not readable or os.read(0, 1) != b""
    end(os.getpid())
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
