"""Which expressions a name may get its value from."""

from __future__ import annotations

import ast
from collections.abc import Mapping


def sources(node: ast.expr) -> list[ast.expr]:
    """The expressions whose value it may have; a group of fields is never empty, so never what ``and`` stops at."""
    if isinstance(node, ast.BoolOp):
        values = node.values if isinstance(node.op, ast.Or) else node.values[-1:]
        return [source for value in values for source in sources(value)]
    if isinstance(node, ast.IfExp):
        return [*sources(node.body), *sources(node.orelse)]
    return sources(node.value) if isinstance(node, ast.NamedExpr) else [node]


def bound_values(node: ast.AST, parents: Mapping[int, ast.AST]) -> list[ast.expr] | None:
    """What is bound to a name that stands left of ``=`` or ``:=``, or in a loop over a tuple; None = not certain.

    Args:
        node: the name.
        parents: id of a node to what it is part of.
    """
    if not isinstance(node, ast.Name):
        return None
    parent = parents.get(id(node))
    if isinstance(parent, ast.NamedExpr):
        return [parent.value]
    if isinstance(parent, ast.AugAssign):
        return []
    if not isinstance(parent, ast.Tuple | ast.List):
        return _values(parent, node)
    whole = _values(parents.get(id(parent)), parent)
    rows = [_row(value, len(parent.elts)) for value in whole or []]
    if whole is None or _row(parent, len(parent.elts)) is None:
        return None
    index = next(at for at, part in enumerate(parent.elts) if part is node)
    return None if None in rows else [row[index] for row in rows if row is not None]


def _values(statement: ast.AST | None, target: ast.expr) -> list[ast.expr] | None:
    """What a target gets, one after the other."""
    if isinstance(statement, ast.Assign) and target in statement.targets:
        return [statement.value]
    if isinstance(statement, ast.For | ast.comprehension) and statement.target is target:
        rows = statement.iter
        if isinstance(rows, ast.Tuple | ast.List) and not any(isinstance(part, ast.Starred) for part in rows.elts):
            return rows.elts
    return None


def _row(node: ast.expr, num: int) -> list[ast.expr] | None:
    """The elements of a tuple or list of so many plain ones."""
    if not isinstance(node, ast.Tuple | ast.List) or len(node.elts) != num:
        return None
    return None if any(isinstance(part, ast.Starred) for part in node.elts) else node.elts


def is_followed(value: ast.expr, parents: Mapping[int, ast.AST]) -> bool:
    """Whether a value goes into names and nowhere else: ``o = obs``, ``for o in (obs, prev_obs)``."""
    node: ast.AST = value
    parent = parents[id(node)]
    while isinstance(parent, ast.Tuple | ast.List):
        node, parent = parent, parents[id(parent)]
    if isinstance(parent, ast.Assign) and parent.value is node:
        targets = parent.targets
    elif isinstance(parent, ast.For | ast.comprehension) and parent.iter is node:
        targets = [parent.target]
    else:
        return False
    return all(any(given is value for given in _given(target, parents)) for target in targets)


def _given(target: ast.expr, parents: Mapping[int, ast.AST]) -> list[ast.expr]:
    """What the names in a target get."""
    return [value for name in ast.walk(target) for value in bound_values(name, parents) or []]
