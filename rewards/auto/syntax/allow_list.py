"""Which nodes of a syntax tree are allowed."""

from __future__ import annotations

import ast

from .expressions import EXPRESSIONS
from .formats import FORMATS
from .patterns import PATTERNS
from .statements import STATEMENTS
from .walk import Checks, Walk

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
