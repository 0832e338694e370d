"""What functions and methods give back, as far as it matters for what could be changed.

What is in no set may give back anything.
"""

from __future__ import annotations

import ast
from typing import TypeGuard

from .names import words

PLAIN = words("abs all any bool divmod float int isinstance len ord pow range repr round str")
"""Functions that give numbers, texts and what holds nothing else."""

BUILDERS = words("dict frozenset list set sorted tuple")
"""Functions that put the elements of what they are given into something new."""

ITERATORS = words("enumerate filter map reversed zip")
"""Functions whose values are used up by reading them."""

CONSUMERS = words("all any dict frozenset list max min next set sorted sum tuple")
"""Functions that read the elements of their first argument."""

SORTING = words("max min sorted")
"""Functions that take one to sort by, ``key``."""

PLAIN_METHODS = words(
    "lower upper title capitalize casefold swapcase strip lstrip rstrip removeprefix removesuffix startswith endswith "
    "split rsplit splitlines partition rpartition join replace find rfind rindex index count "
    "isdigit isdecimal isnumeric isalpha isalnum isascii isspace islower istitle isupper center ljust rjust zfill "
    "issubset issuperset isdisjoint"
)
"""Methods that give numbers, texts, and lists and tuples of them."""

LISTING_METHODS = words("split rsplit splitlines")
"""Those of them that give a list."""

COPYING_METHODS = words("copy union intersection difference symmetric_difference")
"""Methods that put the elements into something new."""

VIEWING_METHODS = words("keys values items")
"""Methods that show the elements."""

READING_METHODS = PLAIN_METHODS | COPYING_METHODS | VIEWING_METHODS | {"get"}
"""Methods that change nothing; all others do."""

MATH_TUPLES = words("frexp modf")
"""Of math's functions, those that give no number."""

CHANGED_IN_PLACE = (ast.Add, ast.Sub, ast.Mult, ast.BitAnd, ast.BitOr, ast.BitXor)
"""Operators whose form with ``=`` changes a list, dict or set itself."""


def called_name(node: ast.expr) -> str:
    """The name of what is called, where it is called by name."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def called_math(node: ast.expr) -> str:
    """``sqrt`` of ``math.sqrt(x)``."""
    return node.func.attr if isinstance(node, ast.Call) and is_math(node.func) else ""


def is_math(node: ast.expr) -> TypeGuard[ast.Attribute]:
    """Whether it is something of math."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "math"


def is_number(node: ast.expr) -> bool:
    """Whether it gives a number, or fails: ``x += number`` changes nothing in place."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float)
    if isinstance(node, ast.UnaryOp | ast.Compare):
        return True
    if isinstance(node, ast.IfExp):
        return is_number(node.body) and is_number(node.orelse)
    if isinstance(node, ast.BinOp):
        return _is_arithmetic(node)
    if isinstance(node, ast.Call) and is_math(node.func):
        return node.func.attr not in MATH_TUPLES and not node.keywords
    return called_name(node) in ("abs", "bool", "float", "int", "len")


def _is_arithmetic(node: ast.BinOp) -> bool:
    if isinstance(node.op, ast.Div | ast.FloorDiv | ast.Pow):
        return True
    if isinstance(node.op, ast.Add | ast.Sub):
        return is_number(node.left) or is_number(node.right)
    if isinstance(node.op, ast.Mult):
        return is_float(node.left) or is_float(node.right) or (is_number(node.left) and is_number(node.right))
    return isinstance(node.op, ast.Mod) and is_number(node.left)


def is_float(node: ast.expr) -> bool:
    """Whether it gives a number that no list can be repeated by, or fails."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, float)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Div) or (
            isinstance(node.op, ast.Mult) and (is_float(node.left) or is_float(node.right))
        )
    return called_name(node) == "float" or (isinstance(node, ast.UnaryOp) and is_float(node.operand))
