"""Commands with several actions: ``yendor labels list ...``, ``yendor rewards show ...``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launch.errors import UserError, unknown_name


@dataclass(frozen=True, kw_only=True)
class Actions:
    """The actions of one command; each is a module whose ``run`` takes the arguments after the action."""

    command: str
    usage: str
    package: str
    """Where the modules are."""
    modules: Mapping[str, tuple[str, str]]
    """``{action: (its module, what must come first; empty = nothing)}``."""
    switches: tuple[str, ...] = ()
    """Flags without a value of all actions: they may stand before what must come first."""

    def run(self, argv: Sequence[str]) -> int:
        """Dispatch to an action; the exit code is its.

        Raises:
            UserError: there is no such action, or what must come first is missing.
        """
        if not argv or argv[0] in ("-h", "--help"):
            sys.stdout.write(self.usage)
            return 0
        action, *rest = argv
        if action not in self.modules:
            raise unknown_name(f"{self.command} action", action, self.modules)
        module, needed = self.modules[action]
        rest.sort(key=lambda word: word in self.switches)  # the others stay in their order
        if rest and rest[0] in ("-h", "--help"):
            sys.stdout.write(self.usage)
            return 0
        if needed and (not rest or rest[0].startswith("-")):
            raise UserError(f"{self.command} {action} needs {needed}")
        return importlib.import_module(f"{self.package}.{module}").run(rest)
