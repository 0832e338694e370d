"""What constants may be: what is computed from literals and other constants, and stays the same however it is read.

Nothing is computed here. What is found out is the *depth* of a constant: how many layers of it could be changed. It is
0 for numbers, texts, and tuples and frozensets of them; 1 for a list, dict or set of those; 2 for a list of lists, and
so on. A tuple is a layer where it holds one. A depth that is too large is harmless.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .names import FUNCTIONS
from .refusal import Refusal, shown
from .results import (
    BUILDERS,
    CONSUMERS,
    COPYING_METHODS,
    ITERATORS,
    LISTING_METHODS,
    PLAIN,
    PLAIN_METHODS,
    SORTING,
    VIEWING_METHODS,
    called_math,
    called_name,
    is_math,
)

ONE_EXPRESSION = "write what it is as one expression, or compute it in a function"
USE_DEF = "write def; functions are called by the name of their def, and are no values outside functions"
USED_UP = "write list(...) or tuple(...) around it"


class Constants:
    """Judges expressions that are evaluated once, when the module is loaded.

    Args:
        depths: of the constants so far, by name.
        functions: names of the program's own functions.
        code: of refusals.
    """

    def __init__(self, depths: Mapping[str, int], functions: Collection[str], code: str = "E13") -> None:
        self._depths, self._functions, self._code = dict(depths), functions, code

    def depth(self, node: ast.expr) -> int:
        """The depth of an expression.

        Raises:
            Refusal: it is not constant.
        """
        rule = RULES.get(type(node))
        if rule is None:
            reason, hint = REASONS.get(type(node), ("this is not constant", ONE_EXPRESSION))
            raise self._refusal(reason, node, hint)
        return rule(self, node)

    def elements(self, node: ast.expr) -> int:
        """The depth of its elements, for what reads them once.

        Raises:
            Refusal: it is not constant.
        """
        if isinstance(node, ast.Starred):
            return inner(self.elements(node.value))
        if isinstance(node, ast.GeneratorExp):
            return self._comprehended(node)
        if called_name(node) in ITERATORS and isinstance(node, ast.Call):
            return self._iterated(node, called_name(node))
        return inner(self.depth(node))

    def is_table(self, node: ast.expr) -> bool:
        """Whether it is a dict in braces with keys in which nothing could be changed."""
        keys = node.keys if isinstance(node, ast.Dict) else [None]
        return all(key is not None and self.depth(key) == 0 for key in keys)

    def _refusal(self, reason: str, node: ast.AST, hint: str) -> Refusal:
        return Refusal(self._code, reason, node, hint)

    def _deepest(self, nodes: list[Any]) -> int:
        """Of some expressions, among them perhaps ``*x``, for which its elements stand."""
        parts = (self.elements(node.value) if isinstance(node, ast.Starred) else self.depth(node) for node in nodes)
        return max(parts, default=0)

    def _name(self, node: ast.Name) -> int:
        if node.id in self._depths:
            return self._depths[node.id]
        if node.id in self._functions or node.id in FUNCTIONS:
            raise self._refusal(f"the function {shown(node.id)} is not constant", node, USE_DEF)
        raise self._refusal(
            f"{shown(node.id)} is not bound above this line", node, "write what it is before it is used"
        )

    def _plain(self, node: ast.expr) -> int:
        self._deepest([part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)])
        return 0

    def _widest(self, node: ast.expr) -> int:
        return self._deepest([part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)])

    def _choice(self, node: ast.IfExp) -> int:
        self.depth(node.test)
        return self._deepest([node.body, node.orelse])

    def _subscript(self, node: ast.Subscript) -> int:
        depth = self.depth(node.value)
        if isinstance(node.slice, ast.Slice):
            self._plain(node.slice)
            return depth
        self.depth(node.slice)
        return inner(depth)

    def _display(self, node: ast.List | ast.Set) -> int:
        return 1 + self._deepest(node.elts)

    def _tuple(self, node: ast.Tuple) -> int:
        return layered(self._deepest(node.elts))

    def _dict(self, node: ast.Dict) -> int:
        unpacked = [self.elements(part) for key, part in zip(node.keys, node.values, strict=True) if key is None]
        keyed = [part for key, part in zip(node.keys, node.values, strict=True) if key is not None]
        return 1 + max(self._deepest([key for key in node.keys if key is not None]), self._deepest(keyed), *unpacked)

    def _comprehension(self, node: ast.expr) -> int:
        return 1 + self._comprehended(node)

    def _comprehended(self, node: Any) -> int:
        """The depth of what a comprehension makes."""
        within = Constants(self._depths, self._functions, self._code)
        for generator in node.generators:
            within._depths.update(bound_depths(generator.target, within.elements(generator.iter)))
            within._deepest(generator.ifs)
        if isinstance(node, ast.DictComp):
            return max(within.depth(node.key), within.depth(node.value))
        return within.depth(node.elt)

    def _attribute(self, node: ast.Attribute) -> int:
        if is_math(node):
            return 0
        raise self._refusal("an attribute is not constant", node, ONE_EXPRESSION)

    def _call(self, node: ast.Call) -> int:
        name = called_name(node)
        if called_math(node):
            for argument in node.args:
                self.elements(argument)
            return self._keywords(node)
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func)
        if name in ITERATORS:
            raise self._refusal(f"what {name} gives is used up by reading it once", node, USED_UP)
        if name not in FUNCTIONS:
            what = f"the function {shown(name)}" if name else "what is called"
            raise self._refusal(f"{what} is called outside functions", node, ONE_EXPRESSION)
        return self._builtin(node, name)

    def _builtin(self, node: ast.Call, name: str) -> int:
        named = self._keywords(node)
        if name == "isinstance":  # what stands second names types
            self._deepest(node.args[:1])
            return 0
        reads = name in CONSUMERS and not (name in ("max", "min") and len(node.args) > 1)
        elements = max((self.elements(argument) for argument in node.args[: int(reads)]), default=0)
        rest = self._deepest(node.args[int(reads) :])
        if name in PLAIN or (name == "sum" and len(node.args) == 1 and not node.keywords):
            return 0
        if name in ("tuple", "frozenset"):
            return layered(elements)
        if name in BUILDERS:
            return 1 + max(elements, rest, named)
        if name in ("max", "min", "next", "sum"):
            return max(elements, rest, named)
        raise self._refusal(f"the function {shown(name)} is called outside functions", node, ONE_EXPRESSION)

    def _keywords(self, node: ast.Call) -> int:
        """The depth of what is given by name, but for functions to sort by."""
        sorts = called_name(node) in SORTING
        for keyword in node.keywords:
            if sorts and keyword.arg == "key":
                self._check_function(keyword.value)
        return self._deepest([keyword.value for keyword in node.keywords if not (sorts and keyword.arg == "key")])

    def _check_function(self, node: ast.expr) -> None:
        """What is handed to map, filter, sorted and the like: none of the program's own."""
        named = isinstance(node, ast.Name) and node.id in PLAIN
        none = isinstance(node, ast.Constant) and node.value is None
        if isinstance(node, ast.Attribute):  # of math, or counts.get
            self._deepest([] if is_math(node) else [node.value])
        elif not (named or none):
            raise self._refusal("a function is called outside functions", node, ONE_EXPRESSION)

    def _iterated(self, node: ast.Call, name: str) -> int:
        """The depth of the elements of what zip, map and the like give."""
        self._keywords(node)
        if name in ("filter", "map") and node.args:
            self._check_function(node.args[0])
            elements = max((self.elements(argument) for argument in node.args[1:]), default=0)
            return 0 if name == "map" else elements
        if name in ("enumerate", "zip"):
            first = node.args if name == "zip" else node.args[:1]
            self._deepest(node.args[len(first) :])
            return layered(max((self.elements(argument) for argument in first), default=0))
        return max((self.elements(argument) for argument in node.args[:1]), default=0)

    def _method(self, node: ast.Call, func: ast.Attribute) -> int:
        named = self._keywords(node)
        is_maker = isinstance(func.value, ast.Name) and func.value.id in FUNCTIONS  # dict.fromkeys is all there is
        depth = 0 if is_maker else self.depth(func.value)
        if is_maker or func.attr == "join":
            elements = max((self.elements(argument) for argument in node.args[:1]), default=0)
            return int(is_maker) * (1 + max(elements, self._deepest(node.args[1:]), named))
        given = max(self._deepest(node.args), named)
        if func.attr in PLAIN_METHODS:
            return int(func.attr in LISTING_METHODS)
        if func.attr == "get":
            return max(inner(depth), given)
        if func.attr in VIEWING_METHODS:
            return 1 + (layered(inner(depth)) if func.attr == "items" else inner(depth))
        if func.attr in COPYING_METHODS:
            return max(depth, given)
        raise self._refusal(f"the method {shown(func.attr)} is called outside functions", node, ONE_EXPRESSION)


def inner(depth: int) -> int:
    """The depth of the elements."""
    return max(depth - 1, 0)


def layered(elements: int) -> int:
    """The depth of a tuple of such elements."""
    return 1 + elements if elements else 0


def bound_depths(target: ast.expr, depth: int) -> Mapping[str, int]:
    """The depths of the names that something of this depth is unpacked into."""
    if isinstance(target, ast.Name):
        return {target.id: depth}
    if isinstance(target, ast.Starred):  # a list of the elements
        return bound_depths(target.value, 1 + depth)
    parts = target.elts if isinstance(target, ast.Tuple | ast.List) else []
    return {name: found for part in parts for name, found in bound_depths(part, inner(depth)).items()}


REASONS: Mapping[type[ast.AST], tuple[str, str]] = {
    ast.Lambda: ("a lambda is a function and not constant", USE_DEF),
    ast.GeneratorExp: ("a generator is used up by reading it once", USED_UP),
    ast.NamedExpr: ("':=' stands outside functions", "write a line of its own"),
}
"""Kinds of expressions that are not constant, why, and what to do."""

RULES: Mapping[type[ast.AST], Callable[[Constants, Any], int]] = {
    ast.Constant: Constants._plain,
    ast.JoinedStr: Constants._plain,
    ast.FormattedValue: Constants._plain,
    ast.Compare: Constants._plain,
    ast.UnaryOp: Constants._plain,
    ast.BinOp: Constants._widest,
    ast.BoolOp: Constants._widest,
    ast.IfExp: Constants._choice,
    ast.Name: Constants._name,
    ast.Attribute: Constants._attribute,
    ast.Subscript: Constants._subscript,
    ast.Tuple: Constants._tuple,
    ast.List: Constants._display,
    ast.Set: Constants._display,
    ast.Dict: Constants._dict,
    ast.ListComp: Constants._comprehension,
    ast.SetComp: Constants._comprehension,
    ast.DictComp: Constants._comprehension,
    ast.Call: Constants._call,
}
"""Kinds of expressions that may be constant; the depth of each."""
