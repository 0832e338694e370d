"""A reward program: source code that says, transition by transition, what play is worth.

A program is a module with a function ``reward(obs, prev_obs, action, info)``, helper functions and constants::

    COMPONENTS = {"goal": "sparse", "explore": "dense"}

    def reward(obs, prev_obs, action, info):
        return {
            "goal": 1.0 if info["succeeded"] else -1.0 if info["died"] else 0.0,
            "explore": info["new_tiles_seen"],
        }

It reads fields of the published schema (``envs.schema``), and ``math``, which is there without an import. It returns
a number, which is one dense component called ``reward``, or a dictionary of named components. ``COMPONENTS`` says of
each whether it is sparse (goals and failures) or dense (progress towards them); one that it does not name is dense. A
component that is missing from the dictionary pays nothing in that step. See Auto MC-Reward (Li et al. 2023, arXiv
2312.09238), whose programs have an inner ``sparse()`` and ``dense()``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from envs.schema import COLUMNS
from rewards.auto.language.names import MAX_COMPONENT_NAME

ComponentKind = Literal["sparse", "dense"]

NUMBER_COMPONENT = "reward"
"""The component of a program that returns a plain number."""

DECLARATION = "COMPONENTS"
"""The constant in which a program declares its components."""

MAX_COMPONENTS = 16


def is_component_name(name: str) -> bool:
    """Whether components may be called so: letters, digits and _ of ASCII, no digit first, no two _ side by side."""
    return len(name) <= MAX_COMPONENT_NAME and name.isascii() and name.isidentifier() and "__" not in name


@dataclass(frozen=True, kw_only=True)
class Program:
    """Source code that has been admitted (``rewards.auto.language.admission``): it may be run, in containment.

    Nothing here has been run: all of it was read off the syntax tree.
    """

    source: str
    columns: tuple[str, ...]
    """Qualified columns of the schema that it reads by constant keys, in the order of the schema."""
    open_groups: frozenset[str] = frozenset()
    """Of ``obs``, ``prev_obs`` and ``info`` those that it reads by keys built at run time, or hands on whole: it gets
    every field of them."""
    components: Mapping[str, ComponentKind] = field(default_factory=dict)
    """What it declares; see ``DECLARATION``."""

    @property
    def sha(self) -> str:
        """SHA-256 of the source in hexadecimal: the program's name."""
        return sha_of(self.source)

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """All qualified columns that it must be given, those of ``open_groups`` too, in the order of the schema."""
        return tuple(name for name in COLUMNS if name in self.columns or name.rpartition(".")[0] in self.open_groups)

    def kind_of(self, component: str) -> ComponentKind:
        """Whether a component is sparse or dense."""
        return self.components.get(component, "dense")


def read_as(column: str) -> str:
    """A qualified column as programs write it: ``obs['hp']``, ``action``."""
    group, _, name = column.rpartition(".")
    return f"{group}['{name}']" if group else name


def sha_of(source: str) -> str:
    """SHA-256 of source code, in hexadecimal."""
    return hashlib.sha256(source.encode()).hexdigest()


SHORT_SHA = 12
"""Digits of a SHA that are shown to people."""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why source code is no reward program: for people, and for the model that wrote it."""

    code: str
    """``E01`` to ``E99``; ``rewards.auto.program`` says what each stands for."""
    reason: str
    """One clause: what is not allowed."""
    line: int | None = None
    """From 1 on; None where it is about the whole."""
    column: int | None = None
    """From 1 on."""
    source_line: str = ""
    hint: str = ""
    """What to write instead."""

    def __str__(self) -> str:
        """``E22 line 6 col 12: attribute 'format' is not allowed (use f-strings)``."""
        place = "" if self.line is None else f" line {self.line}"
        place += "" if self.column is None else f" col {self.column}"
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.code}{place}: {self.reason}{hint}"


class ProgramRejectedError(ValueError):
    """Source code was refused before any of it ran."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(str(rejection))
        self.rejection = rejection
