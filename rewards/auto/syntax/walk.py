"""Goes through a syntax tree and holds every node against the checks of its kind."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from .refusal import Refusal, located
from .tree import bound_names, docstrings, may_format

NODE_NAMES = {
    "ClassDef": "a class",
    "AsyncFunctionDef": "async",
    "AsyncFor": "async",
    "AsyncWith": "async",
    "Await": "await",
    "Yield": "yield",
    "YieldFrom": "yield",
    "Global": "global",
    "Nonlocal": "nonlocal",
    "With": "with",
    "TryStar": "except*",
    "MatMult": "the operator @",
    "TypeAlias": "a type alias",
}


class Walk:
    """Looks at every node of a module; each kind's check looks at its parts by the same walk.

    Args:
        tree: the module.
        checks: kind of node to what refuses it, or goes on to its parts; other kinds are refused.
    """

    def __init__(self, tree: ast.Module, checks: Checks) -> None:
        self.docstrings = docstrings(tree)
        self.bound = set(bound_names(tree))
        self.formats = any(map(may_format, ast.walk(tree)))
        """Whether ``%`` may be applied to a text."""
        self._checks = checks
        self._place: ast.AST | None = None

    def check(self, node: ast.AST) -> None:
        """Refuse a node, or go on to its parts."""
        self._place = located(node) or self._place
        handler = self._checks.get(type(node))
        if handler is None:
            name = NODE_NAMES.get(type(node).__name__, type(node).__name__)
            raise Refusal("E20", f"{name} is not available", self._place)
        handler(self, node)

    def children(self, node: ast.AST) -> None:
        """Look at all parts."""
        for child in ast.iter_child_nodes(node):
            self.check(child)

    def all(self, nodes: list[Any]) -> None:
        """Look at these."""
        for node in nodes:
            self.check(node)


Checks = Mapping[type[ast.AST], Callable[[Walk, Any], None]]
