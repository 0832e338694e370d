"""Patterns of match."""

from __future__ import annotations

import ast

from .names import TYPES
from .refusal import Refusal
from .tree import check_identifier
from .walk import Checks, Walk


def match_class(walk: Walk, node: ast.MatchClass) -> None:
    """``case int():`` and ``case int(x):``."""
    plain = isinstance(node.cls, ast.Name) and node.cls.id in TYPES
    if not plain or node.kwd_patterns or node.kwd_attrs or len(node.patterns) > 1:
        raise Refusal("E29", "a class pattern is a plain type, as in 'case int():'", node)
    walk.all(node.patterns)


def match_mapping(walk: Walk, node: ast.MatchMapping) -> None:
    """``case {"a": x, **rest}:``."""
    if node.rest is not None:
        check_identifier(node.rest, node)
    walk.children(node)


def match_name(walk: Walk, node: ast.MatchAs | ast.MatchStar) -> None:
    """``case x:``, ``case [a, *b]:``."""
    if node.name is not None:
        check_identifier(node.name, node)
    walk.children(node)


PATTERNS: Checks = {
    ast.MatchClass: match_class,
    ast.MatchMapping: match_mapping,
    ast.MatchAs: match_name,
    ast.MatchStar: match_name,
}
