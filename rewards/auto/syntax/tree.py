"""The syntax tree as such: its depth, its texts, the names in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .names import GROUPS, MAX_DEPTH, MAX_FUNCTIONS_DEEP, MAX_NAME, MAX_PARTS
from .refusal import Refusal, located, shown


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
