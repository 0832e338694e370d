"""Which nodes of a syntax tree are allowed, and what must hold of each: an allow-list, one table a kind of node."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .names import (
    EXCEPTIONS,
    FUNCTIONS,
    GROUPS,
    KEYWORDS,
    MATH,
    MAX_INTEGER,
    MAX_TEXT,
    MAX_WIDTH,
    METHOD_HELP,
    METHODS,
    SORTING,
    TYPES,
)
from .tree import (
    Refusal,
    bound_names,
    check_identifier,
    docstrings,
    is_text,
    located,
    may_format,
    parameters_of,
    shown,
    unavailable,
)

NODE_NAMES = {
    "ClassDef": "a class",
    "AsyncFunctionDef": "async",
    "AsyncFor": "async",
    "AsyncWith": "async",
    "Await": "await",
    "Yield": "yield",
    "YieldFrom": "yield",
    "Global": "global",
    "Nonlocal": "nonlocal",
    "With": "with",
    "TryStar": "except*",
    "MatMult": "the operator @",
    "TypeAlias": "a type alias",
}


class Walk:
    """Looks at every node of a module; each kind's check looks at its parts by the same walk.

    Args:
        tree: the module.
        checks: kind of node to what refuses it, or goes on to its parts; other kinds are refused.
    """

    def __init__(self, tree: ast.Module, checks: Checks) -> None:
        self.docstrings = docstrings(tree)
        self.bound = set(bound_names(tree))
        self.formats = any(map(may_format, ast.walk(tree)))
        """Whether ``%`` may be applied to a text."""
        self._checks = checks
        self._place: ast.AST | None = None

    def check(self, node: ast.AST) -> None:
        """Refuse a node, or go on to its parts."""
        self._place = located(node) or self._place
        handler = self._checks.get(type(node))
        if handler is None:
            name = NODE_NAMES.get(type(node).__name__, type(node).__name__)
            raise Refusal("E20", f"{name} is not available", self._place)
        handler(self, node)

    def children(self, node: ast.AST) -> None:
        """Look at all parts."""
        for child in ast.iter_child_nodes(node):
            self.check(child)

    def all(self, nodes: list[Any]) -> None:
        """Look at these."""
        for node in nodes:
            self.check(node)


Checks = Mapping[type[ast.AST], Callable[[Walk, Any], None]]


# ---- names, numbers, attributes, calls and arithmetic


def check_name(walk: Walk, node: ast.Name) -> None:
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


def check_constant(walk: Walk, node: ast.Constant) -> None:
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


def check_attribute(walk: Walk, node: ast.Attribute) -> None:
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


def check_call(walk: Walk, node: ast.Call) -> None:
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


def check_operation(walk: Walk, node: ast.BinOp) -> None:
    """Arithmetic; formats by ``%`` are small."""
    if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
        check_percent(node.left.value, node)
    if isinstance(node.op, ast.MatMult):
        raise Refusal("E20", "the operator @ is not available", node)
    if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.JoinedStr):
        raise Refusal("E30", "a format by % is a plain text in quotes", node)
    walk.children(node)


EXPRESSIONS: Checks = {
    ast.Name: check_name,
    ast.Constant: check_constant,
    ast.Attribute: check_attribute,
    ast.Call: check_call,
    ast.BinOp: check_operation,
}


# ---- texts, and numbers put into them: widths are small

SPEC = re.compile(r"(?:[ -~]?[<>=^])?[-+ ]?#?0?(\d{0,4})[,_]?(?:\.(\d{1,4}))?[bcdeEfFgGnosxX%]?", re.ASCII)
PERCENT = re.compile(r"%(?:%|[-+ #0]*(\d{0,4})(?:\.(\d{1,4}))?[sdifgGeExXr])", re.ASCII)
WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(?:\*|\d{3}|\d*\.\*|\d*\.\d{3})", re.ASCII)


def check_text(value: str, node: ast.AST, may_be_format: bool) -> None:
    """Refuse texts that are too long, no text at all, or wide formats where something may use them."""
    if len(value) > MAX_TEXT:
        raise Refusal("E31", f"the text is longer than {MAX_TEXT} characters", node)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise Refusal("E31", "the text holds half a character", node)
    if may_be_format and WIDE_PERCENT.search(value):
        raise Refusal("E30", "the text is a format with a large or changing width", node)


def check_percent(text: str, node: ast.AST) -> None:
    """Refuse what stands left of ``%`` unless it is plain."""
    numbers = [int(number) for found in PERCENT.finditer(text) for number in found.groups() if number]
    if "%" in PERCENT.sub("", text) or any(number > MAX_WIDTH for number in numbers):
        raise Refusal("E30", f"the format {shown(text)} is not plain", node)


def check_formatted(walk: Walk, node: ast.FormattedValue) -> None:
    """``{x:.2f}``; the format is constant."""
    spec = node.format_spec
    parts = spec.values if isinstance(spec, ast.JoinedStr) else []
    if not all(is_text(part) for part in parts):
        raise Refusal("E30", "the format of an f-string is constant", node.value)
    found = SPEC.fullmatch("".join(str(getattr(part, "value", "")) for part in parts))
    if not found or any(int(number) > MAX_WIDTH for number in found.groups() if number):
        raise Refusal("E30", f"the format of an f-string is plain, and at most {MAX_WIDTH} wide", node.value)
    walk.check(node.value)


FORMATS: Checks = {ast.FormattedValue: check_formatted}


# ---- patterns of match


def check_match_class(walk: Walk, node: ast.MatchClass) -> None:
    """``case int():`` and ``case int(x):``."""
    plain = isinstance(node.cls, ast.Name) and node.cls.id in TYPES
    if not plain or node.kwd_patterns or node.kwd_attrs or len(node.patterns) > 1:
        raise Refusal("E29", "a class pattern is a plain type, as in 'case int():'", node)
    walk.all(node.patterns)


def check_match_mapping(walk: Walk, node: ast.MatchMapping) -> None:
    """``case {"a": x, **rest}:``."""
    if node.rest is not None:
        check_identifier(node.rest, node)
    walk.children(node)


def check_match_name(walk: Walk, node: ast.MatchAs | ast.MatchStar) -> None:
    """``case x:``, ``case [a, *b]:``."""
    if node.name is not None:
        check_identifier(node.name, node)
    walk.children(node)


PATTERNS: Checks = {
    ast.MatchClass: check_match_class,
    ast.MatchMapping: check_match_mapping,
    ast.MatchAs: check_match_name,
    ast.MatchStar: check_match_name,
}


# ---- definitions, loops, exceptions and imports


def check_function(walk: Walk, node: ast.FunctionDef) -> None:
    """Definitions: what runs when they are made must be plain."""
    check_identifier(node.name, node)
    if node.decorator_list or getattr(node, "type_params", []):
        raise Refusal("E26", "decorators and type parameters are not available", node)
    check_arguments(walk, node.args)
    walk.all(node.body)


def check_lambda(walk: Walk, node: ast.Lambda) -> None:
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


def check_annotated(_: Walk, node: ast.AnnAssign) -> None:
    """Others have lost their annotation before."""
    raise Refusal("E26", "an attribute is annotated", node)


def check_for(walk: Walk, node: ast.For | ast.comprehension) -> None:
    """Loops bind plain names; ``async for`` in comprehensions is refused here."""
    if getattr(node, "is_async", 0):
        raise Refusal("E20", "async is not available", node.target)
    for part in ast.walk(node.target):
        if not isinstance(part, ast.Name | ast.Tuple | ast.List | ast.Starred | ast.Store):
            raise Refusal("E20", "loops bind plain names only", node.target)
    walk.children(node)


def check_try(walk: Walk, node: ast.Try) -> None:
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


def check_raise(walk: Walk, node: ast.Raise) -> None:
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


def check_import(_: Walk, node: ast.Import | ast.ImportFrom) -> None:
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


def check_delete(_: Walk, node: ast.Delete) -> None:
    """``del x`` that nothing needs was taken out before."""
    hint = "write d.pop(key)" if any(isinstance(t, ast.Subscript) for t in node.targets) else "leave it out"
    raise Refusal("E20", "del is available for a function's own names, where they are not read afterwards", node, hint)


STATEMENTS: Checks = {
    ast.FunctionDef: check_function,
    ast.Lambda: check_lambda,
    ast.AnnAssign: check_annotated,
    ast.For: check_for,
    ast.comprehension: check_for,
    ast.Try: check_try,
    ast.Raise: check_raise,
    ast.Import: check_import,
    ast.ImportFrom: check_import,
    ast.Delete: check_delete,
}


# ---- the whole list

ALLOWED_PLAIN = (
    ast.Return, ast.Assign, ast.AugAssign, ast.While, ast.If, ast.Match, ast.Assert, ast.Expr, ast.Pass,
    ast.Break, ast.Continue, ast.BoolOp, ast.NamedExpr, ast.UnaryOp, ast.IfExp, ast.Dict, ast.Set,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Compare, ast.JoinedStr, ast.Subscript, ast.Starred,
    ast.List, ast.Tuple, ast.Slice, ast.Load, ast.Store,
    ast.And, ast.Or, ast.Not, ast.Invert, ast.UAdd, ast.USub,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow,
    ast.LShift, ast.RShift, ast.BitOr, ast.BitAnd, ast.BitXor,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot, ast.In, ast.NotIn,
    ast.match_case, ast.MatchValue, ast.MatchSingleton, ast.MatchSequence, ast.MatchOr,
)  # fmt: skip
"""Nodes that are allowed wherever Python has them, and whose parts are looked at in turn."""

CHECKS: Checks = {
    **dict.fromkeys(ALLOWED_PLAIN, Walk.children),
    **EXPRESSIONS,
    **FORMATS,
    **STATEMENTS,
    **PATTERNS,
}
"""Every kind of node that is allowed."""
