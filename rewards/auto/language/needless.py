"""Takes out of a program what nothing needs, before it is judged and before it runs.

Imports of ``math`` (it is there) and of names for annotations, annotations, names of exceptions that nobody reads,
``...`` and ``del``; and ``except:`` becomes ``except Exception:``, ``sqrt`` after ``from math import sqrt``
``math.sqrt``. What is left gives the same values. It is used by both sides: the one that judges, and the one that runs.
"""

from __future__ import annotations

import ast

from .names import MATH, PARAMETERS, RESERVED, TYPES, words
from .tree import Refusal, bound_names, check_identifier, is_text, parameters_of

TYPING = words(
    "AbstractSet Annotated Any Callable ClassVar Collection Container DefaultDict Deque Dict Final FrozenSet Generator "
    "Generic Hashable Iterable Iterator KeysView List Literal Mapping MutableMapping MutableSequence MutableSet "
    "NamedTuple NoReturn Optional OrderedDict Protocol Reversible Sequence Set Sized SupportsFloat SupportsInt Text "
    "Tuple Type TypeAlias TypedDict TypeVar Union ItemsView ValuesView"
)
"""Names that ``typing`` or ``collections.abc`` has, for annotations."""


def typing_modules(tree: ast.Module) -> frozenset[str]:
    """Names under which ``typing`` and ``collections.abc`` are imported; ``typing`` where they are not."""
    found = {"typing"}
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name for alias in node.names if alias.name == "typing"}
    return frozenset(found)


class Needless(ast.NodeTransformer):
    """Changes the tree in place; a ``pass`` stands where a statement was, so that none has an empty body.

    Args:
        tree: the module.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.changed = False
        self._tree = tree
        self._modules = typing_modules(tree)
        self._top = {id(node) for node in tree.body}
        self._math: dict[str, str] = {}
        """Name to what of math it stands for; the module itself is an empty text."""
        self._read: set[str] = set()
        self._deleted: set[int] = set()
        self._function: ast.FunctionDef | None = None
        self._take_math()

    def taken_out(self) -> ast.Module:
        """The module without it."""
        self.visit(self._tree)
        return self._tree

    def _take_math(self) -> None:
        imports = [node for node in self._tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        rest = [node for node in self._tree.body if node not in imports]
        taken = set(bound_names(ast.Module(rest, []))) | RESERVED | set(PARAMETERS) | {"reward"}
        for node in imports:
            for alias in node.names:
                name = alias.asname or alias.name
                if "__" in name or name in taken:
                    continue
                if isinstance(node, ast.ImportFrom) and node.module == "math" and alias.name in MATH:
                    self._math[name] = alias.name
                elif isinstance(node, ast.Import) and alias.name == "math":
                    self._math[name] = ""

    def _dropped(self, node: ast.stmt) -> ast.stmt:
        self.changed = True
        return ast.copy_location(ast.Pass(), node)

    def visit_Import(self, node: ast.Import) -> ast.stmt:
        """``import math``, ``import typing``."""
        for alias in node.names:
            plain = alias.name in ("math", "typing") and alias.asname in (None, alias.name)
            renamed = id(node) in self._top and alias.name in ("math", "typing")
            renamed = renamed and (alias.name == "typing" or alias.asname in self._math)
            if not (plain or (renamed and _is_free(alias.asname))):
                return node
        return self._dropped(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        """``from typing import Any``, ``from math import sqrt``, at the top of the module."""
        if node.level or id(node) not in self._top:
            return node
        names = [(alias.name, alias.asname) for alias in node.names]
        if node.module == "__future__":
            return self._dropped(node) if names == [("annotations", None)] else node
        if node.module in ("typing", "collections.abc"):
            known = all(name in TYPING and _is_free(alias) for name, alias in names)
        else:
            known = node.module == "math" and all(self._math.get(alias or name) == name for name, alias in names)
        return self._dropped(node) if known else node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """What was imported from math."""
        if not isinstance(node.ctx, ast.Load) or node.id not in self._math:
            return node
        self.changed = True
        module = ast.copy_location(ast.Name("math", ast.Load()), node)
        name = self._math[node.id]
        return ast.copy_location(ast.Attribute(module, name, ast.Load()), node) if name else module

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Without annotations."""
        outer = self._function
        if outer is None:
            self._read = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Store)}
        self._function = node
        self._deleted |= _needless_deletions(node)
        annotated = [parameter for parameter in parameters_of(node.args) if parameter.annotation is not None]
        if annotated or node.returns is not None:
            self.changed = True
        for parameter in annotated:
            parameter.annotation = None
        node.returns = None
        self.generic_visit(node)
        self._function = outer
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """Without names of types."""
        if id(node) in self._top and is_alias(node, self._modules):
            return self._dropped(node)
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """``x: float = 0.0`` becomes ``x = 0.0``."""
        if id(node) in self._top and is_alias(node, self._modules):
            return self._dropped(node)
        if isinstance(node.target, ast.Attribute):
            return node
        if node.value is None:
            return self._dropped(node)
        self.changed = True
        return self.generic_visit(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        """``except Exception as error:`` where nobody reads it; what ``except:`` catches besides never comes."""
        if node.name is not None and node.name not in self._read:
            node.name = None
            self.changed = True
        if node.type is None:
            node.type = ast.copy_location(ast.Name("Exception", ast.Load()), node)
            self.changed = True
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """``...`` alone."""
        if isinstance(node.value, ast.Constant) and node.value.value is ...:
            return self._dropped(node)
        return self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> ast.AST:
        """``del x`` where nothing reads ``x`` afterwards."""
        return self._dropped(node) if id(node) in self._deleted else node


def _is_free(name: str | None) -> bool:
    """Whether an import may give a thing this name."""
    return name is None or not ("__" in name or name == "reward" or name in RESERVED or name in PARAMETERS)


def _needless_deletions(function: ast.FunctionDef) -> set[int]:
    """Ids of ``del x, y`` in a function's own lines: names that it surely has, and does not read afterwards."""
    bound = {parameter.arg for parameter in parameters_of(function.args)}
    found = set()
    for at, statement in enumerate(function.body):
        if isinstance(statement, ast.Assign):
            bound |= {name for target in statement.targets for name in bound_names(target)}
        if not isinstance(statement, ast.Delete):
            continue
        names = [target.id if isinstance(target, ast.Name) else "" for target in statement.targets]
        later = [node for after in function.body[at + 1 :] for node in ast.walk(after)]
        used = {node.id for node in later if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store)}
        if bound.issuperset(names) and len(set(names)) == len(names) and not used.intersection(names):
            found.add(id(statement))
            bound.difference_update(names)
    return found


# ---- annotations


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
        is_declared = getattr(node.annotation, "id", getattr(node.annotation, "attr", "")) == "TypeAlias"
        return is_declared and isinstance(node.target, ast.Name) and is_type(node.value, modules)
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
