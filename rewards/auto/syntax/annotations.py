"""Types beside names."""

from __future__ import annotations

import ast

from .names import HELP, TYPES
from .refusal import Refusal
from .tree import is_text


def check_annotation(node: ast.expr | None) -> None:
    """Types by name; texts are not looked into, for nothing reads them."""
    if node is None or (isinstance(node, ast.Constant) and (node.value is None or is_text(node))):
        return
    if isinstance(node, ast.Name) and node.id in TYPES:
        return
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        check_annotation(node.left)
        check_annotation(node.right)
        return
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in TYPES:
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for part in parts:
            if not (isinstance(part, ast.Constant) and part.value is Ellipsis):
                check_annotation(part)
        return
    name = node.id if isinstance(node, ast.Name) else ""
    raise Refusal("E26", "the annotation is no plain type", node, HELP.get(name, ""))
