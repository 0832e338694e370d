"""Errors that are the user's to mend: one clear sentence, exit code 2, no traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input. Its text is one sentence that names the thing and says what is allowed.

    ``main()`` prints it as ``yendor: ...`` on standard error and exits with code 2.
    """


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """The known names most like ``name``, best first; case is ignored; may be empty."""
    by_lower = {k.lower(): k for k in known}
    return [by_lower[k] for k in get_close_matches(name.lower(), by_lower, n=limit, cutoff=0.5)]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error of a failed look-up: the nearest known names, or all of them where there are few."""
    names = sorted(known)
    near = nearest(name, names)
    if near:
        return UserError(f"unknown {kind} '{name}'; did you mean {' or '.join(near)}?")
    if len(names) <= 12:
        return UserError(f"unknown {kind} '{name}'; known are: {', '.join(names) or 'none'}")
    return UserError(f"unknown {kind} '{name}'; it is like none of the {len(names)} known ones")


class RunError(RuntimeError):
    """A run cannot go on; its text says why. Exit code 1, the traceback in the log."""
