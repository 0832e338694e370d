"""Names, numbers, attributes, calls and arithmetic."""

from __future__ import annotations

import ast
import sys

from .formats import check_percent, check_text
from .names import EXCEPTIONS, FUNCTIONS, GROUPS, KEYWORDS, MATH, MAX_INTEGER, METHOD_HELP, METHODS, TYPES, words
from .refusal import Refusal, shown, unavailable
from .tree import check_identifier
from .walk import Checks, Walk

SORTING = words("max min sorted")


def name(walk: Walk, node: ast.Name) -> None:
    """A name, read or bound; which of those bound it is, ``Scopes`` says."""
    check_identifier(node.id, node)
    if node.id == "math":
        if isinstance(node.ctx, ast.Load):
            raise Refusal("E21", "math stands for itself only as in math.sqrt(x)", node)
        raise Refusal("E25", "math is bound anew", node)
    if isinstance(node.ctx, ast.Load):
        if node.id in EXCEPTIONS:
            raise Refusal("E28", f"{node.id} stands after raise and except only", node)
        if node.id not in walk.bound | FUNCTIONS:
            raise unavailable(node)


def constant(walk: Walk, node: ast.Constant) -> None:
    """Numbers and texts within bounds."""
    value = node.value
    if type(value) not in (int, float, str, bool, type(None)):
        raise Refusal("E31", f"a constant of type {type(value).__name__} is not allowed", node)
    if type(value) is int and abs(value) > MAX_INTEGER:
        raise Refusal("E31", "the number is beyond 10**18", node)
    if type(value) is float and abs(value) > sys.float_info.max:
        raise Refusal("E31", "the number is too large for a float", node, "write math.inf")
    if type(value) is str and id(node) not in walk.docstrings:
        check_text(value, node, walk.formats)


def attribute(walk: Walk, node: ast.Attribute) -> None:
    """``math.pi``; methods are looked at where they are called."""
    if isinstance(node.value, ast.Name) and node.value.id == "math":
        check_identifier(node.attr, node)
        if isinstance(node.ctx, ast.Load) and node.attr in MATH:
            return
        raise Refusal("E22", f"math.{node.attr} is not available", node, "math's usual functions are")
    walk.check(node.value)
    check_identifier(node.attr, node)
    if isinstance(node.value, ast.Name) and node.value.id in GROUPS:
        hint = f"write {node.value.id}['{node.attr}']"
        raise Refusal("E22", f"fields are not attributes: {node.value.id}.{node.attr}", node, hint)
    hint = "methods are called, as in x.get(key); in a function's place write a lambda" if node.attr in METHODS else ""
    if isinstance(node.value, ast.Name) and node.value.id in TYPES and node.attr in METHODS:
        hint = f"write a comprehension, [x.{node.attr}() for x in xs], or lambda x: x.{node.attr}()"
    raise Refusal("E22", f"the attribute {shown(node.attr)} is not available", node, hint)


def call(walk: Walk, node: ast.Call) -> None:
    """Functions and the listed methods."""
    func = node.func
    is_math = isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and func.value.id == "math"
    if isinstance(func, ast.Attribute) and not is_math:
        _check_method(walk, func)
    else:
        walk.check(func)
    for keyword in node.keywords:
        _check_keyword(walk, keyword, func)
    walk.all(node.args)
    if isinstance(func, ast.Name) and func.id == "isinstance":
        _check_isinstance(node)
    if isinstance(func, ast.Name) and func.id == "next" and not is_next(node):
        raise Refusal("E27", "next takes a generator expression and what to give if there is none", node,
                      "next((x for x in values if x > 3), None)")  # fmt: skip


def _check_method(walk: Walk, func: ast.Attribute) -> None:
    walk.check(func.value)
    check_identifier(func.attr, func)
    if func.attr not in METHODS:
        raise Refusal("E22", f"the method {shown(func.attr)} is not available", func, METHOD_HELP.get(func.attr, ""))
    of_type = isinstance(func.value, ast.Name) and func.value.id in FUNCTIONS
    if of_type and ast.unparse(func) != "dict.fromkeys":
        raise Refusal("E22", "methods are called on values, not on types and functions", func)


def is_next(node: ast.Call) -> bool:
    """``next((x for x in xs), None)``."""
    return len(node.args) == 2 and isinstance(node.args[0], ast.GeneratorExp) and not node.keywords


def is_lookup(keyword: ast.keyword) -> bool:
    """``key=counts.get``, as ``max`` and ``sorted`` take it."""
    value = keyword.value
    plain = isinstance(value, ast.Attribute) and value.attr == "get" and isinstance(value.value, ast.Name)
    return plain and keyword.arg == "key"


def _check_keyword(walk: Walk, keyword: ast.keyword, func: ast.expr) -> None:
    if keyword.arg is None:
        raise Refusal("E27", "** in a call is not available", keyword.value)
    check_identifier(keyword.arg, keyword)
    strict = isinstance(func, ast.Attribute) and func.attr != "update"
    strict = strict or (isinstance(func, ast.Name) and func.id in FUNCTIONS and func.id != "dict")
    if strict and keyword.arg not in KEYWORDS:
        raise Refusal("E27", f"the keyword argument {shown(keyword.arg)} is not available", keyword)
    if (
        is_lookup(keyword)
        and isinstance(func, ast.Name)
        and func.id in SORTING
        and isinstance(keyword.value, ast.Attribute)
    ):
        walk.check(keyword.value.value)
    else:
        walk.check(keyword.value)


def _check_isinstance(node: ast.Call) -> None:
    kinds = node.args[1] if len(node.args) == 2 else None
    names = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
    while isinstance(names[0], ast.BinOp) and isinstance(names[0].op, ast.BitOr):
        names[:1] = [names[0].left, names[0].right]
    if not all(isinstance(name, ast.Name) and name.id in TYPES for name in names):
        raise Refusal("E27", "isinstance takes a value and plain types", node)


def operation(walk: Walk, node: ast.BinOp) -> None:
    """Arithmetic; formats by ``%`` are small."""
    if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
        check_percent(node.left.value, node)
    if isinstance(node.op, ast.MatMult):
        raise Refusal("E20", "the operator @ is not available", node)
    if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.JoinedStr):
        raise Refusal("E30", "a format by % is a plain text in quotes", node)
    walk.children(node)


EXPRESSIONS: Checks = {
    ast.Name: name,
    ast.Constant: constant,
    ast.Attribute: attribute,
    ast.Call: call,
    ast.BinOp: operation,
}
