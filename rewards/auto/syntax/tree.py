"""The syntax tree as such: its depth, its texts, the names in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .names import MAX_DEPTH, MAX_NAME
from .refusal import Refusal, located, shown


def check_depth(tree: ast.AST) -> None:
    """Refuse what the recursive checks below could not walk."""
    pending: list[tuple[ast.AST, int]] = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise Refusal("E04", f"the code is nested more than {MAX_DEPTH} levels deep", located(node))
        pending += [(child, depth + 1) for child in ast.iter_child_nodes(node)]


def is_text(node: ast.AST | None) -> bool:
    """Whether it is a text in quotes."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def docstrings(tree: ast.AST) -> set[int]:
    """Ids of the constants that are statements: nothing uses their values."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and is_text(node.value)}


def check_identifier(name: str, node: ast.AST) -> None:
    """Refuse names that are no plain names."""
    if not name.isascii():
        raise Refusal("E24", f"the name {shown(name)} is not ASCII", node)
    if "__" in name:
        raise Refusal("E23", f"the name {shown(name)} holds two underscores", node)
    if len(name) > MAX_NAME:
        raise Refusal("E31", f"the name {shown(name)} is longer than {MAX_NAME} letters", node)


def bound_names(tree: ast.AST) -> Iterator[str]:
    """Every name that is bound somewhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        names = [getattr(node, part, None) for part in ("name", "rest", "arg")]
        yield from (name for name in names if isinstance(name, str))


def parameters_of(node: ast.arguments) -> list[ast.arg]:
    """Every parameter, of whatever kind."""
    stars = [star for star in (node.vararg, node.kwarg) if star is not None]
    return [*node.posonlyargs, *node.args, *node.kwonlyargs, *stars]
