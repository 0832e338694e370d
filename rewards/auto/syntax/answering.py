"""Answers a request about a reward program with its verdict.

A request is ``{"source": str, "fields": {"obs": [name, ...], "prev_obs": ..., "info": ...}, "max_components": int}``,
an answer ``{"columns": [...], "open_groups": [...], "components": {...}}``, or ``{"rejection": {"code": ..., "reason":
..., "line": ..., "column": ..., "hint": ..., "unknown": [group, name] or null}}``.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from typing import Any

from .allow_list import CHECKS
from .declarations import ModuleLevel
from .fields import Fields
from .refusal import Refusal
from .scopes import Scopes
from .tree import check_depth
from .walk import Walk


def without_needless(tree: ast.Module) -> ast.Module:
    """The module without ``import math`` and ``from __future__ import annotations`` at its top level.

    Math is there anyway, and annotations are plain types, whether they are evaluated or not.
    """
    return ast.Module([node for node in tree.body if not _is_needless(node)], [])


def _is_needless(node: ast.stmt) -> bool:
    match node:
        case ast.Import([ast.alias("math", None)]):
            return True
        case ast.ImportFrom("__future__", [ast.alias("annotations", None)], 0):
            return True
    return False


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
            Walk(tree, CHECKS).all(without_needless(tree).body)
            # Finds 'break' outside loops, and __future__ too late; runs nothing.
            compile(tree, "reward", "exec", dont_inherit=True)
    except SyntaxError as error:
        place = ast.Constant(0, lineno=error.lineno or 1, col_offset=max((error.offset or 1) - 1, 0))
        raise Refusal("E05", str(error.msg)[:200], place) from error
    except (RecursionError, MemoryError) as error:
        raise Refusal("E04", "the code is nested too deeply for the parser") from error
    except ValueError as error:
        raise Refusal("E05", str(error)[:200]) from error
    return without_needless(tree)


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
