"""Types beside names: they are looked at, and taken out before a program runs."""

from __future__ import annotations

import ast

from .names import TYPES, words
from .refusal import Refusal
from .tree import check_identifier, is_text, parameters_of

TYPING = words(
    "AbstractSet Annotated Any Callable ClassVar Collection Container DefaultDict Deque Dict Final FrozenSet Generator "
    "Generic Hashable Iterable Iterator KeysView List Literal Mapping MutableMapping MutableSequence MutableSet "
    "NamedTuple NoReturn Optional OrderedDict Protocol Reversible Sequence Set Sized SupportsFloat SupportsInt Text "
    "Tuple Type TypeAlias TypedDict TypeVar Union ItemsView ValuesView"
)
"""Names that ``typing`` or ``collections.abc`` has, for annotations."""


def check_annotations(tree: ast.Module, modules: frozenset[str]) -> None:
    """Refuse annotations that are more than types.

    Args:
        tree: as it was written.
        modules: names that stand for ``typing``.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            found = [node.returns, *(parameter.annotation for parameter in parameters_of(node.args))]
        else:
            found = [node.annotation] if isinstance(node, ast.AnnAssign) else []
        for annotation in found:
            if annotation is not None and not is_type(annotation, modules):
                raise Refusal("E26", "the annotation is no plain type", annotation)


def is_type(node: ast.expr, modules: frozenset[str]) -> bool:
    """Whether it is made of names, ``typing.X``, texts, brackets and ``|`` alone; texts are not looked into."""
    if isinstance(node, ast.Name):
        check_identifier(node.id, node)
        return True
    if isinstance(node, ast.Attribute):
        if not (isinstance(node.value, ast.Name) and node.value.id in modules):
            return False
        check_identifier(node.attr, node)
        return True
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.BitOr) and is_type(node.left, modules) and is_type(node.right, modules)
    if isinstance(node, ast.Subscript):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return is_type(node.value, modules) and all(_is_part(part, modules) for part in parts)
    return is_text(node) or (isinstance(node, ast.Constant) and node.value in (None, ...))


def _is_part(node: ast.expr, modules: frozenset[str]) -> bool:
    """What stands in brackets: types, lists of them, and the numbers of ``Literal``."""
    if isinstance(node, ast.Tuple | ast.List):
        return all(_is_part(part, modules) for part in node.elts)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant)
    return (isinstance(node, ast.Constant) and isinstance(node.value, int)) or is_type(node, modules)


def is_alias(node: ast.stmt, modules: frozenset[str]) -> bool:
    """Whether it gives a type a name: ``State = dict[str, Any]``, ``State: TypeAlias = ...``."""
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        told = getattr(node.annotation, "id", getattr(node.annotation, "attr", "")) == "TypeAlias"
        return told and isinstance(node.target, ast.Name) and is_type(node.value, modules)
    if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
        return False
    root: ast.expr = node.value
    while isinstance(root, ast.Subscript | ast.BinOp):
        root = root.value if isinstance(root, ast.Subscript) else root.left
    if isinstance(root, ast.Attribute):
        named = isinstance(root.value, ast.Name) and root.value.id in modules
    else:
        named = isinstance(root, ast.Name) and (root.id in TYPING or (root.id in TYPES and root is not node.value))
    return named and is_type(node.value, modules)
