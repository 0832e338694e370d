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
from .annotations import check_annotations
from .declarations import ModuleLevel
from .fields import Fields
from .flows import check_constants
from .needless import Needless, typing_modules
from .refusal import Refusal
from .scopes import Scopes
from .shadows import check_shadows
from .tree import check_size
from .walk import Walk


def parsed(source: str) -> ast.Module:
    """The syntax tree without what nothing needs; all of it is on the lists.

    Raises:
        Refusal: it is not Python, too deep for the parser, or not on the lists.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
            check_size(tree)
            check_annotations(tree, typing_modules(tree))
            tree = Needless(tree).taken_out()
            Walk(tree, CHECKS).all(tree.body)
            # Finds 'break' outside loops, and __future__ too late; runs nothing.
            compile(ast.parse(source), "reward", "exec", dont_inherit=True)
    except SyntaxError as error:
        place = ast.Constant(0, lineno=error.lineno or 1, col_offset=max((error.offset or 1) - 1, 0))
        raise Refusal("E05", str(error.msg)[:200], place) from error
    except (RecursionError, MemoryError) as error:
        raise Refusal("E04", "the code is nested too deeply for the parser") from error
    except ValueError as error:
        raise Refusal("E05", str(error)[:200]) from error
    return tree


def verdict(request: Mapping[str, Any]) -> dict[str, Any]:
    """What a program uses.

    Raises:
        Refusal: it is none.
    """
    tree = parsed(request["source"])
    scopes = Scopes(tree)
    module = ModuleLevel(tree, request["max_components"])
    scopes.check_names()
    check_shadows(scopes)
    check_constants(tree, scopes, module)
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
