"""What every check needs: how a program is refused, and how its syntax tree is read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypeGuard

from .names import GROUPS, HELP, MAX_DEPTH, MAX_FUNCTIONS_DEEP, MAX_NAME, MAX_PARTS


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


def check_size(tree: ast.AST) -> None:
    """Refuse what the recursive checks, or an engine's parser, could not walk."""
    pending: list[tuple[ast.AST, int, int, ast.AST | None]] = [(tree, 0, 0, None)]
    while pending:
        node, depth, functions, place = pending.pop()
        place = located(node) or place
        functions += isinstance(node, ast.FunctionDef)
        # Engines read a or b or c as (a or b) or c.
        inner = depth + (len(node.values) - 1 if isinstance(node, ast.BoolOp) else 1)
        if max(depth, inner - 1) > MAX_DEPTH:
            raise Refusal("E04", f"the code is nested more than {MAX_DEPTH} levels deep", place)
        if functions > MAX_FUNCTIONS_DEEP:
            raise Refusal("E04", f"more than {MAX_FUNCTIONS_DEEP} functions stand within one another", place)
        if _num_parts(node) > MAX_PARTS:
            raise Refusal("E04", f"more than {MAX_PARTS} arguments, parameters, names or loops in one place", place)
        pending += [(child, inner, functions, place) for child in ast.iter_child_nodes(node)]


def _num_parts(node: ast.AST) -> int:
    """How many things there are in one place, of kinds that engines count in a byte."""
    if isinstance(node, ast.Call):
        return max(len(node.args), len(node.keywords))
    if isinstance(node, ast.arguments):
        return len(parameters_of(node))
    if isinstance(node, ast.Tuple | ast.List) and isinstance(node.ctx, ast.Store):
        return len(node.elts)
    if isinstance(node, ast.MatchSequence | ast.MatchMapping):
        return len(node.patterns)
    return len(getattr(node, "generators", []))


def is_text(node: ast.AST | None) -> bool:
    """Whether it is a text in quotes."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def may_format(node: ast.AST) -> bool:
    """Whether it is ``%``, and what stands left of it may be a text that was not written there."""
    if isinstance(node, ast.AugAssign):
        return isinstance(node.op, ast.Mod)
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod)):
        return False
    left = node.left
    if isinstance(left, ast.Subscript):  # a field: obs['turn'] % 10
        return not (isinstance(left.value, ast.Name) and left.value.id in GROUPS)
    if isinstance(left, ast.BinOp):
        return isinstance(left.op, ast.Add | ast.Mult | ast.Mod)
    return not isinstance(left, ast.UnaryOp) and not (isinstance(left, ast.Constant) and not is_text(left))


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


def called_name(node: ast.AST) -> str:
    """The name of what is called, where it is called by name."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def is_math(node: ast.AST) -> TypeGuard[ast.Attribute]:
    """Whether it is something of math."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "math"
