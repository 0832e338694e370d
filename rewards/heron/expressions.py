"""A small language of arithmetic over columns, in which users write factors.

Python's syntax and precedence, parsed and never executed: fields (``obs.hp``, ``obs['hp']``, ``prev_obs.hp``,
``info.new_tiles_seen``, ``action``, of vectors ``obs[0]`` and ``action[0]``), numbers, ``+ - * / // % **``,
comparisons, ``and or not``, ``a if c else b``, ``'text' in obs.message``, and the functions abs, min, max, log1p and
sqrt. An outermost ``sum(...)``, ``mean(...)``, ``last(...)``, ``max(...)`` or ``min(...)`` of one argument says how the
steps of a segment become one number; without it they are summed.

Example:
    >>> kicks = parse_expression("kicks", "sum(action == 'kick' and 'WHAMM' in obs.message)")
    >>> kicks.columns, kicks.over
    (('action', 'obs.message'), 'sum')
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, NoReturn

import numpy as np

from rewards.heron.columns import REDUCTIONS, check_columns, is_text

MAX_CHARS = 500
MAX_NODES = 100
MAX_EXPONENT = 8
"""Largest exponent, either way."""

_MAX_NUMBER = 1e100
_GROUPS = ("obs", "prev_obs", "info", "action")
_ALLOWED = (
    "allowed are fields, numbers, texts, + - * / // % **, comparisons, and, or, not, 'a if c else b', 'in', "
    "abs, min, max, log1p and sqrt"
)
_DOTTED_NUMBER = re.compile(r"\b(obs|prev_obs|action)\.([0-9]+)")
_NEVER_IN_MESSAGES = re.compile(r"\d+|(?<!\S)[Aa]n?(?= )")
"""Numbers and articles: canonical messages have N and the."""

Columns = Mapping[str, np.ndarray]
Operation = Callable[..., np.ndarray]


@dataclass(frozen=True, eq=False)
class Expression:
    """A parsed expression; called with columns [T, B] it gives float64 [T, B].

    Where a value is undefined (division by zero, root of a negative number, overflow) it is nan, and so is all that
    is computed from it; what a condition leaves out does not matter.
    """

    text: str
    columns: tuple[str, ...]
    """Columns that it reads, in the order of the text."""
    over: str
    """Key of ``REDUCTIONS``."""
    value: Callable[[Columns], np.ndarray]
    """The same, of columns whose numbers are float64, and nan where undefined."""

    def __call__(self, columns: Columns) -> np.ndarray:
        """float64 [T, B]; nan where it is undefined."""
        with np.errstate(all="ignore"):
            return self.value({name: _prepared(columns[name]) for name in self.columns})


def parse_expression(name: str, text: str) -> Expression:
    """Check and compile an expression.

    Args:
        name: of the factor; errors name it.
        text: at most ``MAX_CHARS`` characters.

    Raises:
        ValueError: it is not of the language; one sentence with the place, characters counted from 1.
    """
    text = text.strip()
    compiler = _Compiler(name, text)
    tree = _parse(compiler)
    over, body = _reduction(tree)
    term = compiler.number(body)
    if not compiler.columns:
        raise ValueError(f"factor '{name}' reads no field, so it would be the same at every step")
    return Expression(text=text, columns=tuple(compiler.columns), over=over, value=term.value)


def _reduction(tree: ast.expr) -> tuple[str, ast.expr]:
    """Key of ``REDUCTIONS``, and what is reduced."""
    match tree:
        case ast.Call(func=ast.Name(id=over), args=[body], keywords=[]) if over in REDUCTIONS:
            return over, body
    return "sum", tree


def _parse(compiler: _Compiler) -> ast.expr:
    name, text = compiler.name, compiler.text
    if not text:
        raise ValueError(f"factor '{name}': the expression is empty")
    if len(text) > MAX_CHARS:
        raise ValueError(f"factor '{name}': the expression has {len(text)} characters, allowed are {MAX_CHARS}")
    for at, char in enumerate(text):
        if not char.isprintable():
            compiler.refuse_at(at, f"{char!r} is not a character that can be printed")
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        dotted = _DOTTED_NUMBER.search(text)
        if dotted:
            compiler.refuse_at(dotted.start(), f"write {dotted[1]}[{dotted[2]}] for the column {dotted[0]}")
        compiler.refuse_at(min(max((error.offset or 1) - 1, 0), len(text)), f"not an expression ({error.msg})")
    except (RecursionError, MemoryError):
        raise ValueError(f"factor '{name}': the expression is nested too deeply") from None
    nodes = sum(isinstance(node, ast.expr) for node in ast.walk(tree))
    if nodes > MAX_NODES:
        raise ValueError(f"factor '{name}': the expression has {nodes} parts, allowed are {MAX_NODES}")
    return tree


def _prepared(column: np.ndarray) -> np.ndarray:
    """Texts as they are, all else as float64 with nan for what is not finite."""
    if column.dtype.kind == "U":
        return column
    values = column.astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    return values


@dataclass(frozen=True, eq=False)
class _Term:
    """A compiled part of an expression."""

    value: Callable[[Columns], Any]
    is_text: bool = False
    constant: str | None = None
    """Its text, where it is one in quotes."""
    column: str | None = None
    """Its name, where it is a field."""


def _strict(operation: Operation) -> Operation:
    """The same operation, nan where an operand is nan or the result is not finite."""

    def apply(*values: np.ndarray) -> np.ndarray:
        result = np.asarray(operation(*values), np.float64)
        undefined = ~np.isfinite(result)
        for value in values:
            undefined = undefined | np.isnan(value)
        return np.where(undefined, np.nan, result)

    return apply


# As in Python, `and`, `or` and `if` do not look at what does not matter.
def _choose(condition: np.ndarray, then: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(condition), np.nan, np.where(condition != 0, then, otherwise))


def _and(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return _choose(first, second, first)


def _or(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return _choose(first, first, second)


def _contains(needle: str, haystack: np.ndarray) -> np.ndarray:
    return (np.char.find(haystack, needle) >= 0).astype(np.float64)


def _contains_not(needle: str, haystack: np.ndarray) -> np.ndarray:
    return 1.0 - _contains(needle, haystack)


def _same_text(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray(np.equal(first, second), np.float64)


def _other_text(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return 1.0 - _same_text(first, second)


_UNARY: Mapping[type[ast.unaryop], Operation] = {
    ast.UAdd: _strict(np.positive),
    ast.USub: _strict(np.negative),
    ast.Not: _strict(np.logical_not),
}
_BINARY: Mapping[type[ast.operator], Operation] = {
    ast.Add: _strict(np.add),
    ast.Sub: _strict(np.subtract),
    ast.Mult: _strict(np.multiply),
    ast.Div: _strict(np.divide),
    ast.FloorDiv: _strict(np.floor_divide),
    ast.Mod: _strict(np.mod),
    ast.Pow: _strict(np.power),
}
_BOOLEAN: Mapping[type[ast.boolop], Operation] = {ast.And: _and, ast.Or: _or}
_NUMBER_COMPARISONS: Mapping[type[ast.cmpop], Operation] = {
    ast.Eq: _strict(np.equal),
    ast.NotEq: _strict(np.not_equal),
    ast.Lt: _strict(np.less),
    ast.LtE: _strict(np.less_equal),
    ast.Gt: _strict(np.greater),
    ast.GtE: _strict(np.greater_equal),
}
_TEXT_COMPARISONS: Mapping[type[ast.cmpop], Operation] = {ast.Eq: _same_text, ast.NotEq: _other_text}
_CONTAINMENTS: Mapping[type[ast.cmpop], Operation] = {ast.In: _contains, ast.NotIn: _contains_not}


@dataclass(frozen=True)
class _Function:
    operation: Operation
    takes_one: bool
    """One argument; otherwise two or more, joined from the left."""


_FUNCTIONS: Mapping[str, _Function] = {
    "abs": _Function(_strict(np.abs), True),
    "log1p": _Function(_strict(np.log1p), True),
    "sqrt": _Function(_strict(np.sqrt), True),
    "min": _Function(_strict(np.minimum), False),
    "max": _Function(_strict(np.maximum), False),
}


class _Compiler:
    """Turns a tree into a term, and collects the columns that it reads."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.columns: dict[str, None] = {}

    def refuse_at(self, at: int, problem: str) -> NoReturn:
        """Raise ValueError about position ``at`` of the text, counted from 0."""
        raise ValueError(f"factor '{self.name}', character {at + 1}: {problem}")

    def refuse(self, node: ast.expr, problem: str) -> NoReturn:
        """Raise ValueError about a part of the text."""
        # The parser counts bytes.
        self.refuse_at(len(self.text.encode()[: node.col_offset].decode()), problem)

    def term(self, node: ast.expr) -> _Term:
        """Compile a part of any type."""
        if type(node) not in _COMPILERS:
            self.refuse(node, f"'{self._source(node)}' is not allowed here; {_ALLOWED}")
        return _COMPILERS[type(node)](self, node)

    def number(self, node: ast.expr) -> _Term:
        """Compile a part that must be a number."""
        term = self.term(node)
        if term.is_text:
            self.refuse(node, f"{self._source(node)} is text where a number is needed; compare it with ==, != or 'in'")
        return term

    def _source(self, node: ast.expr) -> str:
        return ast.get_source_segment(self.text, node) or self.text

    def _applied(self, operation: Operation, *operands: _Term) -> _Term:
        values = [operand.value for operand in operands]
        return _Term(lambda columns: operation(*(value(columns) for value in values)))

    def _field(self, node: ast.expr, column: str) -> _Term:
        try:
            check_columns([column])
        except ValueError as error:
            self.refuse(node, str(error))
        self.columns[column] = None
        return _Term(operator.itemgetter(column), is_text=is_text(column), column=column)

    def _group(self, node: ast.expr) -> str:
        if not isinstance(node, ast.Name) or node.id not in _GROUPS:
            self.refuse(node, f"fields are read of {', '.join(_GROUPS)}, as obs.hp, not of '{self._source(node)}'")
        return node.id

    def name_(self, node: ast.Name) -> _Term:
        """``action``."""
        if node.id in _GROUPS and node.id != "action":
            self.refuse(node, f"'{node.id}' needs a field, as {node.id}.NAME")
        return self._field(node, node.id)

    def attribute(self, node: ast.Attribute) -> _Term:
        """``obs.hp``."""
        return self._field(node, f"{self._group(node.value)}.{node.attr}")

    def subscript(self, node: ast.Subscript) -> _Term:
        """``obs['hp']`` and ``obs[0]``."""
        group = self._group(node.value)
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if type(key) not in (str, int):
            self.refuse(node.slice, f"{group}[...] needs the name of a field in quotes, or a number from 0 on")
        return self._field(node, f"{group}.{key}")

    def constant(self, node: ast.Constant) -> _Term:
        """Numbers, True, False and texts."""
        value = node.value
        if isinstance(value, str):
            return _Term(lambda columns: value, is_text=True, constant=value)
        if not isinstance(value, int | float):
            self.refuse(node, f"'{self._source(node)}' is neither a number nor a text")
        if value > _MAX_NUMBER:
            self.refuse(node, f"numbers may be at most {_MAX_NUMBER:g}")
        number = np.float64(value)
        return _Term(lambda columns: number)

    def unary(self, node: ast.UnaryOp) -> _Term:
        """Signs and ``not``."""
        if type(node.op) not in _UNARY:
            self.refuse(node, f"this operator is not allowed; {_ALLOWED}")
        return self._applied(_UNARY[type(node.op)], self.number(node.operand))

    def binary(self, node: ast.BinOp) -> _Term:
        """Arithmetic."""
        if type(node.op) not in _BINARY:
            self.refuse(node, f"this operator is not allowed; {_ALLOWED}")
        if isinstance(node.op, ast.Pow):
            self._check_exponent(node.right)
        return self._applied(_BINARY[type(node.op)], self.number(node.left), self.number(node.right))

    def _check_exponent(self, node: ast.expr) -> None:
        inner = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd) else node
        value = inner.value if isinstance(inner, ast.Constant) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or value > MAX_EXPONENT:
            self.refuse(node, f"the exponent of ** must be a plain number from -{MAX_EXPONENT} to {MAX_EXPONENT}")

    def boolean(self, node: ast.BoolOp) -> _Term:
        """``and`` and ``or``."""
        operation = _BOOLEAN[type(node.op)]
        return reduce(lambda first, second: self._applied(operation, first, second), map(self.number, node.values))

    def conditional(self, node: ast.IfExp) -> _Term:
        """``a if c else b``."""
        condition, then, otherwise = (self.number(part) for part in (node.test, node.body, node.orelse))
        return self._applied(_choose, condition, then, otherwise)

    def comparison(self, node: ast.Compare) -> _Term:
        """One comparison, or a chain of them."""
        nodes = [node.left, *node.comparators]
        terms = [self.term(part) for part in nodes]
        links = [self._link(op, nodes[i : i + 2], terms[i], terms[i + 1]) for i, op in enumerate(node.ops)]
        return reduce(lambda first, second: self._applied(_and, first, second), links)

    def _link(self, op: ast.cmpop, nodes: list[ast.expr], first: _Term, second: _Term) -> _Term:
        if type(op) in _CONTAINMENTS:
            return self._containment(_CONTAINMENTS[type(op)], nodes, first, second)
        if first.is_text != second.is_text:
            text, number = nodes if first.is_text else nodes[::-1]
            self.refuse(
                nodes[0],
                f"{self._source(text)} is text and {self._source(number)} a number: they cannot be compared",
            )
        operations = _TEXT_COMPARISONS if first.is_text else _NUMBER_COMPARISONS
        if type(op) not in operations:
            kind, signs = ("texts", "==, != and 'in'") if first.is_text else ("numbers", "== != < <= > >=")
            self.refuse(nodes[0], f"{kind} can be compared with {signs} only")
        return self._applied(operations[type(op)], first, second)

    def _containment(self, operation: Operation, nodes: list[ast.expr], needle: _Term, haystack: _Term) -> _Term:
        if needle.constant is None:
            self.refuse(nodes[0], f"left of 'in' stands a text in quotes, not {self._source(nodes[0])}")
        if haystack.column is None or not haystack.is_text:
            self.refuse(nodes[1], f"right of 'in' stands a field of text, as obs.message, not {self._source(nodes[1])}")
        if haystack.column.endswith(".message"):
            likely = _NEVER_IN_MESSAGES.sub(lambda found: "N" if found[0].isdigit() else "the", needle.constant)
            if likely != needle.constant:
                self.refuse(nodes[0], f"messages have N for numbers and 'the' for articles: write {likely!r}")
        return self._applied(operation, needle, haystack)

    def call(self, node: ast.Call) -> _Term:
        """Functions of the step; reductions stand outermost and never come here."""
        name = node.func.id if isinstance(node.func, ast.Name) else None
        function = _FUNCTIONS.get(name or "")
        if function is None or node.keywords:
            if name in REDUCTIONS:
                self.refuse(node, f"{name}(...) takes one argument and stands outermost, around the whole expression")
            self.refuse(node, f"the call '{self._source(node)}' is not allowed; {_ALLOWED}")
        if function.takes_one != (len(node.args) == 1) or not node.args:
            number = "one argument" if function.takes_one else "two or more arguments, or one where it stands outermost"
            self.refuse(node, f"{name}(...) takes {number}, not {len(node.args)}")
        terms = [self.number(argument) for argument in node.args]
        if function.takes_one:
            return self._applied(function.operation, terms[0])
        return reduce(lambda first, second: self._applied(function.operation, first, second), terms)


_COMPILERS: Mapping[type[ast.expr], Callable[[_Compiler, Any], _Term]] = {
    ast.Name: _Compiler.name_,
    ast.Attribute: _Compiler.attribute,
    ast.Subscript: _Compiler.subscript,
    ast.Constant: _Compiler.constant,
    ast.UnaryOp: _Compiler.unary,
    ast.BinOp: _Compiler.binary,
    ast.BoolOp: _Compiler.boolean,
    ast.IfExp: _Compiler.conditional,
    ast.Compare: _Compiler.comparison,
    ast.Call: _Compiler.call,
}
