"""Holds the syntax tree of a reward program against lists of what is allowed, and reads off which fields it uses.

A program of its own, for a process that is thrown away: ``python -I -S`` with ``main``. It takes JSON on standard
input, ``{"source": str, "fields": {"obs": [name, ...], "prev_obs": ..., "info": ...}, "max_components": int}``, and
writes JSON: ``{"columns": [...], "open_groups": [...], "components": {...}}``, or ``{"rejection": {"code": ...,
"reason": ..., "line": ..., "column": ..., "hint": ..., "unknown": [group, name] or null}}``. It knows nothing but the
standard library, and never runs or compiles more than the tree of what it is given.

Everything is an allow-list: what is not named here is refused.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MAX_DEPTH = 100
"""Levels of the syntax tree; an ``elif`` is one too."""
MAX_INTEGER = 10**18
MAX_TEXT = 2000
MAX_NAME = 60
MAX_WIDTH = 100
MAX_COMPONENT_NAME = 40
MEMORY_BYTES = 512 << 20
CPU_S = 5

PARAMETERS = ("obs", "prev_obs", "action", "info")
GROUPS = ("obs", "prev_obs", "info")
KINDS = ("sparse", "dense")


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


TYPES = words("bool dict float frozenset int list set str tuple")
FUNCTIONS = TYPES | words(
    "abs all any divmod enumerate filter isinstance len map max min pow range reversed round sorted sum zip"
)
EXCEPTIONS = words(
    "ArithmeticError AssertionError AttributeError Exception FloatingPointError IndexError KeyError LookupError "
    "NameError NotImplementedError OverflowError RecursionError RuntimeError TypeError ValueError "
    "ZeroDivisionError"
)
METHODS = words(
    "get items keys values pop popitem setdefault update copy clear fromkeys "
    "append extend insert remove reverse sort index count "
    "add discard union intersection difference symmetric_difference issubset issuperset isdisjoint "
    "lower upper title capitalize casefold swapcase strip lstrip rstrip removeprefix removesuffix startswith endswith "
    "split rsplit splitlines partition rpartition join replace find rfind rindex "
    "isdigit isdecimal isnumeric isalpha isalnum isspace islower isupper"
)
MATH = words(
    "acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2 expm1 "
    "fabs factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma log "
    "log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt tan tanh tau trunc ulp"
)
KEYWORDS = words("abs_tol base default key maxsplit ndigits number rel_tol reverse sep start steps strict")
READING = words("get items keys values copy index count union intersection difference issubset issuperset isdisjoint")
"""Methods that leave a constant as it is."""
VIEWS = words("keys values items copy")
"""Methods that hand on a whole group of fields."""
READERS = words("all any dict enumerate filter frozenset len list map max min reversed set sorted sum tuple zip")
"""Functions that, of one argument, take the elements and not the thing."""

# What nobody may bind anew: also what is not available, so that a name never means it by accident.
RESERVED = frozenset(dir(builtins)) | FUNCTIONS | EXCEPTIONS | {"math", "COMPONENTS"}

HELP = {
    "print": "programs write nothing; return components instead",
    "open": "programs read no files",
    "input": "programs read nothing but their arguments",
    "getattr": "read fields as obs['hp']",
    "hasattr": "write 'hp' in obs",
    "next": "use a for loop, or max(..., default=0)",
    "iter": "use a for loop",
    "format": "use an f-string",
    "type": "use isinstance",
    "random": "programs give equal values for equal inputs",
    "np": "use math, min, max, sum",
    "numpy": "use math, min, max, sum",
    "hash": "hashes differ between processes",
    "self": "programs are functions, not classes",
    "Dict": "write dict",
    "Any": "leave the annotation out",
    "Optional": "write float | None",
}

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
    "Delete": "del",
    "With": "with",
    "TryStar": "except*",
    "MatMult": "the operator @",
    "TypeAlias": "a type alias",
}

SPEC = re.compile(r"(?:[ -~]?[<>=^])?[-+ ]?#?0?(\d{0,4})[,_]?(?:\.(\d{1,4}))?[bcdeEfFgGnosxX%]?", re.ASCII)
PERCENT = re.compile(r"%(?:%|[-+ #0]*(\d{0,4})(?:\.(\d{1,4}))?[sdifgGeExXr])", re.ASCII)
WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(?:\*|\d{3}|\d*\.\*|\d*\.\d{3})", re.ASCII)
COMPONENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)


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


# --- the tree as such ------------------------------------------------------------------------------------------------


def check_depth(tree: ast.AST) -> None:
    """Refuse what the recursive checks below could not walk."""
    pending: list[tuple[ast.AST, int]] = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise Refusal("E04", f"the code is nested more than {MAX_DEPTH} levels deep", located(node))
        pending += [(child, depth + 1) for child in ast.iter_child_nodes(node)]


def located(node: ast.AST) -> ast.AST | None:
    """The node where it has a place."""
    return node if hasattr(node, "lineno") else None


def is_text(node: ast.AST | None) -> bool:
    """Whether it is a text in quotes."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


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


def unavailable(node: ast.Name) -> Refusal:
    """The refusal of a name."""
    return Refusal("E21", f"the name {shown(node.id)} is not available", node, HELP.get(node.id, ""))


class AllowList:
    """Looks at every node; what a node may be is in ``CHECKS``."""

    def __init__(self, tree: ast.Module) -> None:
        self._docstrings = docstrings(tree)
        self._bound = set(bound_names(tree))

    def check(self, node: ast.AST) -> None:
        """Refuse a node, or go on to its parts."""
        handler = CHECKS.get(type(node))
        if handler is None:
            name = NODE_NAMES.get(type(node).__name__, type(node).__name__)
            raise Refusal("E20", f"{name} is not available", located(node))
        handler(self, node)

    def children(self, node: ast.AST) -> None:
        """Look at all parts."""
        for child in ast.iter_child_nodes(node):
            self.check(child)

    def all(self, nodes: list[Any]) -> None:
        """Look at these."""
        for node in nodes:
            self.check(node)

    def name(self, node: ast.Name) -> None:
        """A name, read or bound; which of those bound it is, ``Scopes`` says."""
        check_identifier(node.id, node)
        if node.id == "math":
            code = "E21" if isinstance(node.ctx, ast.Load) else "E25"
            raise Refusal(code, "math stands for itself only as in math.sqrt(x)", node)
        if isinstance(node.ctx, ast.Load):
            if node.id in EXCEPTIONS:
                raise Refusal("E28", f"{node.id} stands after raise and except only", node)
            if node.id not in self._bound | FUNCTIONS:
                raise unavailable(node)

    def constant(self, node: ast.Constant) -> None:
        """Numbers and texts within bounds."""
        value = node.value
        if type(value) not in (int, float, str, bool, type(None)):
            raise Refusal("E31", f"a constant of type {type(value).__name__} is not allowed", node)
        if type(value) is int and abs(value) > MAX_INTEGER:
            raise Refusal("E31", "the number is beyond 10**18", node)
        if type(value) is float and abs(value) > sys.float_info.max:
            raise Refusal("E31", "the number is too large for a float", node, "write math.inf")
        if type(value) is str and id(node) not in self._docstrings:
            self._text(value, node)

    def _text(self, value: str, node: ast.AST) -> None:
        if len(value) > MAX_TEXT:
            raise Refusal("E31", f"the text is longer than {MAX_TEXT} characters", node)
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise Refusal("E31", "the text holds half a character", node)
        if WIDE_PERCENT.search(value):
            raise Refusal("E30", "the text is a format with a large or changing width", node)

    def attribute(self, node: ast.Attribute) -> None:
        """``math.pi``; methods are looked at where they are called."""
        if isinstance(node.value, ast.Name) and node.value.id == "math":
            check_identifier(node.attr, node)
            if isinstance(node.ctx, ast.Load) and node.attr in MATH:
                return
            raise Refusal("E22", f"math.{node.attr} is not available", node, "math's usual functions are")
        self.check(node.value)
        check_identifier(node.attr, node)
        if isinstance(node.value, ast.Name) and node.value.id in GROUPS:
            hint = f"write {node.value.id}['{node.attr}']"
            raise Refusal("E22", f"fields are not attributes: {node.value.id}.{node.attr}", node, hint)
        hint = "methods are called, as in x.get(key); in a function's place write a lambda"
        raise Refusal("E22", f"the attribute {shown(node.attr)} is not available", node,
                      hint if node.attr in METHODS else "")  # fmt: skip

    def call(self, node: ast.Call) -> None:
        """Functions and the listed methods."""
        func = node.func
        is_math = isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and func.value.id == "math"
        if isinstance(func, ast.Attribute) and not is_math:
            self._method(func)
        else:
            self.check(func)
        for keyword in node.keywords:
            self._keyword(keyword, func)
        self.all(node.args)
        if isinstance(func, ast.Name) and func.id == "isinstance":
            self._isinstance(node)

    def _method(self, func: ast.Attribute) -> None:
        self.check(func.value)
        check_identifier(func.attr, func)
        if func.attr not in METHODS:
            hint = "use an f-string such as f'{x:.2f}'" if func.attr in ("format", "format_map") else ""
            raise Refusal("E22", f"the method {shown(func.attr)} is not available", func, hint)
        of_type = isinstance(func.value, ast.Name) and func.value.id in FUNCTIONS
        if of_type and ast.unparse(func) != "dict.fromkeys":
            raise Refusal("E22", "methods are called on values, not on types and functions", func)

    def _keyword(self, keyword: ast.keyword, func: ast.expr) -> None:
        if keyword.arg is None:
            raise Refusal("E27", "** in a call is not available", keyword.value)
        check_identifier(keyword.arg, keyword)
        strict = isinstance(func, ast.Attribute) and func.attr != "update"
        strict = strict or (isinstance(func, ast.Name) and func.id in FUNCTIONS and func.id != "dict")
        if strict and keyword.arg not in KEYWORDS:
            raise Refusal("E27", f"the keyword argument {shown(keyword.arg)} is not available", keyword)
        self.check(keyword.value)

    def _isinstance(self, node: ast.Call) -> None:
        kinds = node.args[1] if len(node.args) == 2 else None
        names = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
        if isinstance(kinds, ast.BinOp):
            self.annotation(kinds)
        elif not all(isinstance(name, ast.Name) and name.id in TYPES for name in names):
            raise Refusal("E27", "isinstance takes a value and plain types", node)

    def function(self, node: ast.FunctionDef) -> None:
        """Definitions: what runs when they are made must be plain."""
        check_identifier(node.name, node)
        if node.decorator_list or getattr(node, "type_params", []):
            raise Refusal("E26", "decorators and type parameters are not available", node)
        self.annotation(node.returns)
        self.arguments(node.args)
        self.all(node.body)

    def lambda_(self, node: ast.Lambda) -> None:
        """As functions."""
        self.arguments(node.args)
        self.check(node.body)

    def arguments(self, node: ast.arguments) -> None:
        """Plain parameters, literals as defaults."""
        for parameter in parameters_of(node):
            check_identifier(parameter.arg, parameter)
            self.annotation(parameter.annotation)
        for default in [*node.defaults, *node.kw_defaults]:
            if default is not None:
                if not is_frozen(default):
                    raise Refusal("E26", "a default is a number, a text, None or a tuple of them", default)
                self.check(default)

    def annotation(self, node: ast.expr | None) -> None:
        """Types by name; texts are not looked into, for nothing reads them."""
        if node is None or (isinstance(node, ast.Constant) and (node.value is None or is_text(node))):
            return
        if isinstance(node, ast.Name) and node.id in TYPES:
            return
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            self.annotation(node.left)
            self.annotation(node.right)
            return
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in TYPES:
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            for part in parts:
                if not (isinstance(part, ast.Constant) and part.value is Ellipsis):
                    self.annotation(part)
            return
        name = node.id if isinstance(node, ast.Name) else ""
        raise Refusal("E26", "the annotation is no plain type", node, HELP.get(name, ""))

    def annotated(self, node: ast.AnnAssign) -> None:
        """``x: float = 0.0``."""
        if not isinstance(node.target, ast.Name):
            raise Refusal("E26", "only plain names take annotations", node)
        self.annotation(node.annotation)
        self.check(node.target)
        if node.value is not None:
            self.check(node.value)

    def for_(self, node: ast.For | ast.comprehension) -> None:
        """Loops bind plain names; ``async for`` in comprehensions is refused here."""
        if getattr(node, "is_async", 0):
            raise Refusal("E20", "async is not available", node.target)
        for part in ast.walk(node.target):
            if not isinstance(part, ast.Name | ast.Tuple | ast.List | ast.Starred | ast.Store):
                raise Refusal("E20", "loops bind plain names only", node.target)
        self.children(node)

    def try_(self, node: ast.Try) -> None:
        """Handlers name exceptions of the list."""
        self.all(node.body)
        for handler in node.handlers:
            kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
            for kind in kinds:
                if not (isinstance(kind, ast.Name) and kind.id in EXCEPTIONS):
                    raise Refusal("E28", "except names exceptions such as ZeroDivisionError or KeyError", handler)
            if handler.name is not None:
                raise Refusal("E28", "'except ... as' is not available", handler)
            self.all(handler.body)
        # The compiler writes a finally twice: within one another they grow as powers of two.
        for part in node.finalbody:
            for inner in ast.walk(part):
                if isinstance(inner, ast.Try):
                    raise Refusal("E20", "try within finally is not available", inner)
        self.all([*node.orelse, *node.finalbody])

    def raise_(self, node: ast.Raise) -> None:
        """``raise``, ``raise ValueError`` and ``raise ValueError("why")``, perhaps ``from None``."""
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if kind is not None and not (isinstance(kind, ast.Name) and kind.id in EXCEPTIONS):
            raise Refusal("E28", "raise names an exception such as ValueError", node)
        if node.cause is not None and not (isinstance(node.cause, ast.Constant) and node.cause.value is None):
            raise Refusal("E28", "'raise ... from' takes None only", node)
        if isinstance(node.exc, ast.Call):
            if node.exc.keywords:
                raise Refusal("E27", "exceptions take no keyword arguments", node)
            self.all(node.exc.args)

    def operation(self, node: ast.BinOp) -> None:
        """Arithmetic; formats by ``%`` are small."""
        if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
            self._percent(node.left.value, node)
        if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.JoinedStr):
            raise Refusal("E30", "a format by % is a plain text in quotes", node)
        self.children(node)

    def _percent(self, text: str, node: ast.AST) -> None:
        numbers = [int(number) for found in PERCENT.finditer(text) for number in found.groups() if number]
        if "%" in PERCENT.sub("", text) or any(number > MAX_WIDTH for number in numbers):
            raise Refusal("E30", f"the format {shown(text)} is not plain", node)

    def formatted(self, node: ast.FormattedValue) -> None:
        """``{x:.2f}``; the format is constant."""
        spec = node.format_spec
        parts = spec.values if isinstance(spec, ast.JoinedStr) else []
        if not all(is_text(part) for part in parts):
            raise Refusal("E30", "the format of an f-string is constant", node.value)
        found = SPEC.fullmatch("".join(str(getattr(part, "value", "")) for part in parts))
        if not found or any(int(number) > MAX_WIDTH for number in found.groups() if number):
            raise Refusal("E30", f"the format of an f-string is plain, and at most {MAX_WIDTH} wide", node.value)
        self.check(node.value)

    def match_class(self, node: ast.MatchClass) -> None:
        """``case int():`` and ``case int(x):``."""
        plain = isinstance(node.cls, ast.Name) and node.cls.id in TYPES
        if not plain or node.kwd_patterns or node.kwd_attrs or len(node.patterns) > 1:
            raise Refusal("E29", "a class pattern is a plain type, as in 'case int():'", node)
        self.all(node.patterns)

    def match_mapping(self, node: ast.MatchMapping) -> None:
        """``case {"a": x, **rest}:``."""
        if node.rest is not None:
            check_identifier(node.rest, node)
        self.children(node)

    def match_name(self, node: ast.MatchAs | ast.MatchStar) -> None:
        """``case x:``, ``case [a, *b]:``."""
        if node.name is not None:
            check_identifier(node.name, node)
        self.children(node)

    def import_(self, node: ast.Import | ast.ImportFrom) -> None:
        """Only ``import math``, which ``module_statements`` takes out at the top."""
        names = ", ".join(alias.name for alias in node.names)
        hint = "annotations need no import: write dict, list, float | None" if "typing" in ast.unparse(node) else ""
        raise Refusal("E15", f"the import of {shown(names)} is not available", node, hint)


CHECKS: dict[type[ast.AST], Callable[[AllowList, Any], None]] = {
    **dict.fromkeys(ALLOWED_PLAIN, AllowList.children),
    ast.Name: AllowList.name,
    ast.Constant: AllowList.constant,
    ast.Attribute: AllowList.attribute,
    ast.Call: AllowList.call,
    ast.FunctionDef: AllowList.function,
    ast.Lambda: AllowList.lambda_,
    ast.AnnAssign: AllowList.annotated,
    ast.For: AllowList.for_,
    ast.comprehension: AllowList.for_,
    ast.Try: AllowList.try_,
    ast.Raise: AllowList.raise_,
    ast.BinOp: AllowList.operation,
    ast.FormattedValue: AllowList.formatted,
    ast.MatchClass: AllowList.match_class,
    ast.MatchMapping: AllowList.match_mapping,
    ast.MatchAs: AllowList.match_name,
    ast.MatchStar: AllowList.match_name,
    ast.Import: AllowList.import_,
    ast.ImportFrom: AllowList.import_,
}


def parameters_of(node: ast.arguments) -> list[ast.arg]:
    """Every parameter, of whatever kind."""
    stars = [star for star in (node.vararg, node.kwarg) if star is not None]
    return [*node.posonlyargs, *node.args, *node.kwonlyargs, *stars]


# --- what module constants may be ------------------------------------------------------------------------------------


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


class ModuleLevel:
    """The statements outside functions: what they declare, by name."""

    def __init__(self, tree: ast.Module, max_components: int) -> None:
        self.functions: dict[str, ast.FunctionDef] = {}
        self.frozen: set[str] = set()
        """Constants that cannot change."""
        self.collections: set[str] = set()
        """Constants that nothing may change."""
        self.components: dict[str, str] = {}
        self._max_components = max_components
        for statement in tree.body:
            self._take(statement)
        self._check_reward()

    def _take(self, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef):
            if node.name in self.frozen | self.collections | self.functions.keys():
                code = "E10" if node.name == "reward" else "E25"
                raise Refusal(code, f"{shown(node.name)} is bound twice", node)
            self.functions[node.name] = node
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            self._constant(node, node.targets[0], node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._constant(node, node.target, node.value)
        elif not (isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and is_text(node.value))):
            raise Refusal("E12", "outside functions stand constants and functions only", node)

    def _constant(self, node: ast.stmt, target: ast.expr, value: ast.expr) -> None:
        if not isinstance(target, ast.Name):
            raise Refusal("E12", "a constant is one plain name", node)
        name = target.id
        if name in self.frozen | self.collections | self.functions.keys():
            raise Refusal("E14" if name == "COMPONENTS" else "E25", f"{shown(name)} is bound twice", node)
        if name == "COMPONENTS":
            self.components = self._declared(value)
            self.collections.add(name)
        elif is_frozen(value, self.frozen):
            self.frozen.add(name)
        elif is_collection(value, self.frozen):
            self.collections.add(name)
        else:
            raise Refusal("E13", f"{shown(name)} is not constant", node)

    def _declared(self, value: ast.expr) -> dict[str, str]:
        if not isinstance(value, ast.Dict) or len(value.keys) > self._max_components:
            raise Refusal("E14", f"COMPONENTS is a dict of at most {self._max_components} components", value)
        components: dict[str, str] = {}
        for key, kind in zip(value.keys, value.values, strict=True):
            name = key.value if isinstance(key, ast.Constant) else None
            if not (isinstance(name, str) and COMPONENT_NAME.fullmatch(name) and len(name) <= MAX_COMPONENT_NAME):
                raise Refusal("E14", f"a component's name is at most {MAX_COMPONENT_NAME} letters", key or value)
            if "__" in name or name in components:
                raise Refusal("E14", f"the component {shown(name)} is declared twice or not a plain name", key)
            if not (isinstance(kind, ast.Constant) and kind.value in KINDS):
                raise Refusal("E14", f"the component {shown(name)} is 'sparse' or 'dense'", kind)
            components[name] = str(kind.value)
        return components

    def _check_reward(self) -> None:
        node = self.functions.get("reward")
        if node is None:
            raise Refusal("E10", "there is no function reward")
        plain = [parameter.arg for parameter in node.args.args]
        if tuple(plain) != PARAMETERS or len(parameters_of(node.args)) != len(PARAMETERS) or node.args.defaults:
            raise Refusal("E11", f"reward takes ({', '.join(plain)[:MAX_NAME]})", node)


# --- who binds which name --------------------------------------------------------------------------------------------

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Scope:
    """Names that a module, function or comprehension binds."""

    def __init__(self, parent: Scope | None, node: ast.AST) -> None:
        self.parent, self.node = parent, node
        self.bound: dict[str, list[ast.AST]] = {}
        """Name to what binds it."""

    @property
    def function(self) -> Scope:
        """The scope that ``:=`` binds in."""
        return self.parent.function if self.parent and isinstance(self.node, COMPREHENSIONS) else self

    def owner(self, name: str) -> Scope | None:
        """The scope that a name belongs to, where the program binds it."""
        scope: Scope | None = self
        while scope is not None and name not in scope.bound:
            scope = scope.parent
        return scope


class Scopes:
    """Every scope, and what every name that is read belongs to."""

    def __init__(self, tree: ast.Module) -> None:
        self.module = Scope(None, tree)
        self.reads: list[tuple[ast.Name, Scope]] = []
        self.augmented: list[tuple[ast.Name, Scope]] = []
        """Names that stand left of ``+=`` and the like, which change what they hold where it can be changed."""
        self.read_in: dict[int, Scope] = {}
        """Id of a name that is read to the scope that it is read in."""
        self.parents: dict[int, ast.AST] = {}
        """Id of a node to the node that it is part of."""
        for statement in tree.body:
            self._walk(statement, self.module)

    def _bind(self, name: str, node: ast.AST, scope: Scope) -> None:
        if name in RESERVED and not (name == "COMPONENTS" and scope.parent is None):
            raise Refusal("E25", f"{shown(name)} is bound anew", node, f"call it my_{name}")
        is_parameter = isinstance(node, ast.arg)
        if name in PARAMETERS and not is_parameter:
            raise Refusal("E25", f"{name} is bound anew", node, f"call it my_{name}")
        if name == "reward" and not isinstance(node, ast.Name | ast.MatchAs | ast.arg) and scope.parent is not None:
            raise Refusal("E25", "reward is defined again within a function", node)
        scope.bound.setdefault(name, []).append(node)

    def _walk(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            self._function(node, scope)
        elif isinstance(node, COMPREHENSIONS):
            self._comprehension(node, scope)
        else:
            self._plain(node, scope)
            self._parts(node, scope)

    def _plain(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                parent = self.parents.get(id(node))
                within = isinstance(parent, ast.NamedExpr)
                if isinstance(parent, ast.AugAssign):
                    self.augmented.append((node, scope))
                self._bind(node.id, node, scope.function if within else scope)
            else:
                self.reads.append((node, scope))
                self.read_in[id(node)] = scope
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name is not None:
            self._bind(node.name, node, scope)
        elif isinstance(node, ast.MatchMapping) and node.rest is not None:
            self._bind(node.rest, node, scope)

    def _parts(self, node: ast.AST, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            self.parents[id(child)] = node
            self._walk(child, scope)

    def _function(self, node: ast.FunctionDef | ast.Lambda, scope: Scope) -> None:
        if isinstance(node, ast.FunctionDef):
            self._bind(node.name, node, scope)
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.parents[id(default)] = node
                self._walk(default, scope)
        inner = Scope(scope, node)
        for parameter in parameters_of(node.args):
            self._bind(parameter.arg, parameter, inner)
        for part in node.body if isinstance(node, ast.FunctionDef) else [node.body]:
            self.parents[id(part)] = node
            self._walk(part, inner)

    def _comprehension(self, node: Any, scope: Scope) -> None:
        inner = Scope(scope, node)
        for index, generator in enumerate(node.generators):
            self.parents[id(generator)] = node
            for part in ast.iter_child_nodes(generator):
                self.parents[id(part)] = generator
                # Python looks up the first iterable outside.
                self._walk(part, scope if index == 0 and part is generator.iter else inner)
        for part in [getattr(node, name) for name in ("key", "value", "elt") if hasattr(node, name)]:
            self.parents[id(part)] = node
            self._walk(part, inner)

    def check_names(self) -> None:
        """Refuse names that neither the program nor the language offers."""
        for node, scope in self.reads:
            if scope.owner(node.id) is None and node.id not in FUNCTIONS | EXCEPTIONS | {"math"}:
                raise unavailable(node)

    def check_collections(self, collections: set[str]) -> None:
        """Refuse whatever could change a constant, or hand it to what could."""
        for node, scope in self.reads:
            if node.id in collections and scope.owner(node.id) is self.module and not self._only_reads(node):
                raise Refusal("E13", f"the constant {shown(node.id)} is written to or handed on", node,
                              "copy it first: dict(x), list(x)")  # fmt: skip

    def _only_reads(self, node: ast.Name) -> bool:
        parent = self.parents[id(node)]
        if isinstance(parent, ast.Subscript):
            return parent.value is node and isinstance(parent.ctx, ast.Load)
        if isinstance(parent, ast.Attribute):
            return parent.attr in READING
        if isinstance(parent, ast.Starred):
            return True
        if isinstance(parent, ast.Dict):
            return all(part is not node or key is None for key, part in zip(parent.keys, parent.values, strict=True))
        if isinstance(parent, ast.Compare):
            return is_container(parent, node)
        if isinstance(parent, ast.For | ast.comprehension):
            return parent.iter is node
        if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id in READERS:
            return len(parent.args) == 1 and parent.args[0] is node
        return False


def is_container(compare: ast.Compare, node: ast.expr) -> bool:
    """Whether it stands last, right of ``in``."""
    return compare.comparators[-1] is node and isinstance(compare.ops[-1], ast.In | ast.NotIn)


# --- which fields are read -------------------------------------------------------------------------------------------

Place = tuple[int, str]
"""A function's id and one of its parameters."""


class Fields:
    """Follows the groups of fields from the parameters of ``reward`` into helpers, and finds what they read of them.

    A group that goes anywhere else (another name, a list, a lambda's parameter) is open: all its fields may be read.
    """

    def __init__(self, scopes: Scopes, reward: ast.FunctionDef) -> None:
        self._scopes, self._reward = scopes, reward
        self._keys: list[tuple[Place, str, ast.expr]] = []
        self._opens: list[Place] = []
        self._writes: list[tuple[Place, ast.expr]] = []
        self._numbers: list[tuple[Place, ast.expr]] = []
        self._flows: list[tuple[Place, Place]] = []
        self._reads_action = False
        for node, scope in scopes.reads:
            owner = scope.owner(node.id)
            if owner is not None and isinstance(owner.bound[node.id][0], ast.arg):
                self._use(node, (id(owner.node), node.id), owner)
        for node, scope in scopes.augmented:
            self._writes.append(((id(scope.node), node.id), node))
        self._groups = self._follow()

    def _use(self, node: ast.Name, place: Place, owner: Scope) -> None:
        if owner.node is self._reward and node.id == "action":
            self._reads_action = True
        parent = self._scopes.parents[id(node)]
        kind = next((use for kinds, use in USES.items() if isinstance(parent, kinds)), None)
        if len(owner.bound[node.id]) > 1 or kind is None or not kind(self, node, parent, place):
            self._opens.append(place)

    def _subscript(self, node: ast.Name, parent: ast.Subscript, place: Place) -> bool:
        if parent.value is not node:
            return False
        if not isinstance(parent.ctx, ast.Load):
            self._writes.append((place, parent))
        elif isinstance(parent.slice, ast.Constant) and isinstance(parent.slice.value, str):
            self._keys.append((place, parent.slice.value, parent.slice))
        elif isinstance(parent.slice, ast.Constant):
            self._numbers.append((place, parent.slice))
        else:
            return False
        return True

    def _method(self, node: ast.Name, parent: ast.Attribute, place: Place) -> bool:
        call = self._scopes.parents[id(parent)]
        if parent.attr in VIEWS:
            return False
        if parent.attr != "get":
            self._writes.append((place, parent))
            return True
        key = call.args[0] if isinstance(call, ast.Call) and call.args else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            self._keys.append((place, key.value, key))
            return True
        return False

    def _membership(self, node: ast.Name, parent: ast.Compare, place: Place) -> bool:
        if len(parent.ops) == 1 and is_container(parent, node) and isinstance(parent.left, ast.Constant):
            self._keys.append((place, str(parent.left.value), parent.left))
            return True
        return False

    def _argument(self, node: ast.Name, call: ast.Call, place: Place) -> bool:
        target = self._called(call)
        if target is None or node not in call.args or any(isinstance(arg, ast.Starred) for arg in call.args):
            return False
        return self._flow(place, target, call.args.index(node))

    def _flow(self, place: Place, target: ast.FunctionDef, index: int) -> bool:
        parameters = [*target.args.posonlyargs, *target.args.args]
        if index >= len(parameters):
            return False
        self._flows.append((place, (id(target), parameters[index].arg)))
        return True

    def _keyword(self, node: ast.Name, keyword: ast.keyword, place: Place) -> bool:
        call = self._scopes.parents[id(keyword)]
        target = self._called(call) if isinstance(call, ast.Call) else None
        names = [] if target is None else [arg.arg for arg in [*target.args.args, *target.args.kwonlyargs]]
        if target is None or keyword.arg not in names:
            return False
        self._flows.append((place, (id(target), keyword.arg)))
        return True

    def _called(self, call: ast.Call) -> ast.FunctionDef | None:
        """The function of the program that is called, where that is certain."""
        if not isinstance(call.func, ast.Name):
            return None
        owner = self._scopes.read_in[id(call.func)].owner(call.func.id)
        bound = owner.bound[call.func.id] if owner else []
        return bound[0] if len(bound) == 1 and isinstance(bound[0], ast.FunctionDef) else None

    def _follow(self) -> dict[Place, set[str]]:
        groups: dict[Place, set[str]] = {(id(self._reward), group): {group} for group in GROUPS}
        changed = True
        while changed:
            changed = False
            for source, target in self._flows:
                new = groups.get(source, set()) - groups.get(target, set())
                if new:
                    groups.setdefault(target, set()).update(new)
                    changed = True
        return groups

    def _of(self, place: Place) -> set[str]:
        """The groups that a parameter may hold; one that nothing is handed to is taken by its name."""
        return self._groups.get(place) or ({place[1]} if place[1] in GROUPS else set())

    def columns(self, fields: dict[str, list[str]]) -> Iterator[str]:
        """Qualified columns that are read by constant keys; refuses those that there are none of."""
        known = {group: frozenset(names) for group, names in fields.items()}
        if self._reads_action:
            yield "action"
        for place, node in self._numbers:
            if self._of(place):
                raise Refusal("E40", f"{place[1]} is read by the name of a field in quotes", node)
        for place, key, node in self._keys:
            for group in sorted(self._of(place)):
                if key not in known[group]:
                    raise Refusal("E40", f"{group} has no field {shown(key)}", node, unknown=[group, key[:MAX_NAME]])
                yield f"{group}.{key}"

    def open_groups(self) -> set[str]:
        """Groups that are read in other ways too; refuses writing."""
        for place, node in self._writes:
            if self._of(place):
                raise Refusal("E41", f"{place[1]} is written to", node)
        return {group for place in self._opens for group in self._of(place)}


USES: dict[type[ast.AST], Callable[[Fields, ast.Name, Any, Place], bool]] = {
    ast.Subscript: Fields._subscript,
    ast.Attribute: Fields._method,
    ast.Compare: Fields._membership,
    ast.Call: Fields._argument,
    ast.keyword: Fields._keyword,
}
"""How a group may be used without being opened, by what the name is part of."""


# --- all of it -------------------------------------------------------------------------------------------------------


def without_math(tree: ast.Module) -> ast.Module:
    """The module without ``import math`` at its top level: math is there anyway."""

    def is_math(node: ast.stmt) -> bool:
        names = [(alias.name, alias.asname) for alias in node.names] if isinstance(node, ast.Import) else []
        return names == [("math", None)]

    return ast.Module([node for node in tree.body if not is_math(node)], [])


def parsed(source: str) -> ast.Module:
    """The syntax tree, all of which is on the lists.

    Raises:
        Refusal: it is not Python, too deep for the parser, or not on the lists.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
            check_depth(tree)
            AllowList(tree).all(without_math(tree).body)
            compile(tree, "reward", "exec", dont_inherit=True)  # finds 'break' outside loops; runs nothing
    except SyntaxError as error:
        place = ast.Constant(0, lineno=error.lineno or 1, col_offset=max((error.offset or 1) - 1, 0))
        raise Refusal("E05", str(error.msg)[:200], place) from error
    except (RecursionError, MemoryError) as error:
        raise Refusal("E04", "the code is nested too deeply for the parser") from error
    except ValueError as error:
        raise Refusal("E05", str(error)[:200]) from error
    return without_math(tree)


def verdict(request: Mapping[str, Any]) -> dict[str, Any]:
    """What a program uses.

    Raises:
        Refusal: it is none.
    """
    tree = parsed(request["source"])
    scopes = Scopes(tree)
    module = ModuleLevel(tree, request["max_components"])
    scopes.check_names()
    scopes.check_collections(module.collections)
    fields = Fields(scopes, module.functions["reward"])
    return {
        "columns": sorted(set(fields.columns(request["fields"]))),
        "open_groups": sorted(fields.open_groups()),
        "components": module.components,
    }


def answered(request: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict, or the rejection."""
    try:
        return verdict(request)
    except Refusal as refusal:
        column = getattr(refusal.node, "col_offset", None)
        rejection = {
            "code": refusal.code,
            "reason": refusal.reason,
            "line": getattr(refusal.node, "lineno", None),
            "column": None if column is None else column + 1,
            "hint": refusal.hint,
            "unknown": refusal.unknown,
        }
        return {"rejection": rejection}


def limit() -> None:
    """Bound what this process may use."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def main() -> None:
    """Answer the request on standard input."""
    limit()
    sys.stdout.write(json.dumps(answered(json.load(sys.stdin.buffer))))


if __name__ == "__main__":
    main()
