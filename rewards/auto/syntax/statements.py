"""Definitions, loops, exceptions and imports."""

from __future__ import annotations

import ast

from .names import EXCEPTIONS
from .refusal import Refusal, shown
from .tree import check_identifier, parameters_of
from .walk import Checks, Walk


def function(walk: Walk, node: ast.FunctionDef) -> None:
    """Definitions: what runs when they are made must be plain."""
    check_identifier(node.name, node)
    if node.decorator_list or getattr(node, "type_params", []):
        raise Refusal("E26", "decorators and type parameters are not available", node)
    check_arguments(walk, node.args)
    walk.all(node.body)


def lambda_(walk: Walk, node: ast.Lambda) -> None:
    """As functions."""
    check_arguments(walk, node.args)
    walk.check(node.body)


def check_arguments(walk: Walk, node: ast.arguments) -> None:
    """Plain parameters; which defaults are constant, ``ModuleLevel`` says."""
    for parameter in parameters_of(node):
        check_identifier(parameter.arg, parameter)
    for default in [*node.defaults, *node.kw_defaults]:
        if default is not None:
            walk.check(default)


def annotated(_: Walk, node: ast.AnnAssign) -> None:
    """Others have lost their annotation before."""
    raise Refusal("E26", "an attribute is annotated", node)


def for_(walk: Walk, node: ast.For | ast.comprehension) -> None:
    """Loops bind plain names; ``async for`` in comprehensions is refused here."""
    if getattr(node, "is_async", 0):
        raise Refusal("E20", "async is not available", node.target)
    for part in ast.walk(node.target):
        if not isinstance(part, ast.Name | ast.Tuple | ast.List | ast.Starred | ast.Store):
            raise Refusal("E20", "loops bind plain names only", node.target)
    walk.children(node)


def try_(walk: Walk, node: ast.Try) -> None:
    """Handlers name exceptions of the list."""
    walk.all(node.body)
    for handler in node.handlers:
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        for kind in kinds:
            if not (isinstance(kind, ast.Name) and kind.id in EXCEPTIONS):
                raise Refusal("E28", "except names exceptions such as ZeroDivisionError or KeyError", handler)
        if handler.name is not None:
            hint = f"leave out 'as {handler.name}': the exception cannot be looked at"
            raise Refusal("E28", f"what 'except ... as {handler.name}' binds is read", handler, hint)
        walk.all(handler.body)
    # The compiler writes a finally twice: within one another they grow as powers of two.
    for part in node.finalbody:
        for inner in ast.walk(part):
            if isinstance(inner, ast.Try):
                raise Refusal("E20", "try within finally is not available", inner)
    walk.all([*node.orelse, *node.finalbody])


def raise_(walk: Walk, node: ast.Raise) -> None:
    """``raise``, ``raise ValueError`` and ``raise ValueError("why")``, perhaps ``from None``."""
    kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    if kind is not None and not (isinstance(kind, ast.Name) and kind.id in EXCEPTIONS):
        raise Refusal("E28", "raise names an exception such as ValueError", node)
    if node.cause is not None and not (isinstance(node.cause, ast.Constant) and node.cause.value is None):
        raise Refusal("E28", "'raise ... from' takes None only", node)
    if isinstance(node.exc, ast.Call):
        if node.exc.keywords:
            raise Refusal("E27", "exceptions take no keyword arguments", node)
        walk.all(node.exc.args)


def import_(_: Walk, node: ast.Import | ast.ImportFrom) -> None:
    """Only what ``needless`` takes out."""
    names = ", ".join(alias.name for alias in node.names)
    hint = "take it out: programs use nothing but the language and math"
    if getattr(node, "module", "") == "math":
        hint = "write math.sqrt(x): math is there without an import"
    elif getattr(node, "module", "") in ("typing", "collections.abc", "__future__"):
        hint = "leave it out, or import names for annotations in the first lines"
    elif all(alias.name == "math" for alias in node.names):
        hint = "write math.sqrt(x): math is there without an import"
    raise Refusal("E15", f"the import of {shown(names)} is not available", node, hint)


def delete(_: Walk, node: ast.Delete) -> None:
    """``del x`` that nothing needs was taken out before."""
    hint = "write d.pop(key)" if any(isinstance(t, ast.Subscript) for t in node.targets) else "leave it out"
    raise Refusal("E20", "del is available for a function's own names, where they are not read afterwards", node, hint)


STATEMENTS: Checks = {
    ast.FunctionDef: function,
    ast.Lambda: lambda_,
    ast.AnnAssign: annotated,
    ast.For: for_,
    ast.comprehension: for_,
    ast.Try: try_,
    ast.Raise: raise_,
    ast.Import: import_,
    ast.ImportFrom: import_,
    ast.Delete: delete,
}
