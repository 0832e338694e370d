"""How a reward program is refused."""

from __future__ import annotations

import ast

from .names import HELP, MAX_NAME


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """The program is refused."""

    def __init__(
        self, code: str, reason: str, node: ast.AST | None = None, hint: str = "", unknown: list[str] | None = None
    ) -> None:
        super().__init__(reason)
        self.code, self.reason, self.node, self.hint, self.unknown = code, reason, node, hint, unknown


def shown(name: object) -> str:
    """A name or value for a message: short and without control characters."""
    text = ascii(name)
    return text if len(text) <= MAX_NAME else text[:MAX_NAME] + "..."


def unavailable(node: ast.Name) -> Refusal:
    """The refusal of a name."""
    return Refusal("E21", f"the name {shown(node.id)} is not available", node, HELP.get(node.id, ""))


def located(node: ast.AST) -> ast.AST | None:
    """The node where it has a place."""
    return node if hasattr(node, "lineno") else None
