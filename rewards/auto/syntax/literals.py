"""What constants may be: literals that cannot change, and arithmetic of them."""

from __future__ import annotations

import ast

from .tree import is_text


def is_frozen(node: ast.expr, constants: frozenset[str] | set[str] = frozenset()) -> bool:
    """Whether it is a literal that cannot change: numbers, texts, and tuples and frozensets of them."""
    if isinstance(node, ast.Tuple):
        return all(is_frozen(part, constants) for part in node.elts)
    if isinstance(node, ast.Call):
        plain = isinstance(node.func, ast.Name) and node.func.id == "frozenset" and not node.keywords
        return plain and len(node.args) <= 1 and all(is_collection(part, constants) for part in node.args)
    if is_text(node) or (isinstance(node, ast.Constant) and node.value is None):
        return True
    return is_number(node, constants) or (isinstance(node, ast.Name) and node.id in constants)


def is_collection(node: ast.expr, constants: frozenset[str] | set[str]) -> bool:
    """Whether it is a literal of unchanging elements."""
    if isinstance(node, ast.Dict):
        parts = [*node.keys, *node.values]
        return all(part is not None and is_frozen(part, constants) for part in parts)
    return isinstance(node, ast.Tuple | ast.List | ast.Set) and all(is_frozen(part, constants) for part in node.elts)


def is_number(node: ast.expr, constants: frozenset[str] | set[str]) -> bool:
    """Whether it is arithmetic of literals; constants that are texts fail where they are added up."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float)
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand, constants)
    if isinstance(node, ast.BinOp):
        plain = isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div | ast.FloorDiv)
        sides = (node.left, node.right)
        return plain and all(is_number(side, constants) or is_name(side, constants) for side in sides)
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "math"


def is_name(node: ast.expr, names: frozenset[str] | set[str]) -> bool:
    """Whether it is one of these names."""
    return isinstance(node, ast.Name) and node.id in names
