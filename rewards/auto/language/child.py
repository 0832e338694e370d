"""Judges reward programs, each in a process that is thrown away.

Hostile text can end CPython's parser, and the process with it. This one is started as ``python -I -S``, for which the
package knows nothing but the standard library. It reads requests from standard input, a line of JSON each, and forks
for each of them; what it writes is a line ``{"status": int, "answer": str}``: how the fork ended, and what it said.

A request is ``{"source": str, "fields": {"obs": [name, ...], "prev_obs": ..., "info": ...}, "max_components": int}``,
an answer ``{"columns": [...], "open_groups": [...], "components": {...}}``, or ``{"rejection": {"code": ..., "reason":
..., "line": ..., "column": ..., "hint": ..., "unknown": [group, name] or null}}``.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from .fields import Fields
from .module import ModuleLevel
from .needless import Needless, check_annotations, typing_modules
from .read_only import Holders, check_constants
from .rules import CHECKS, Walk
from .scopes import Scopes, check_shadows
from .tree import Refusal, check_size

MEMORY_BYTES = 512 << 20
CPU_S = 5


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
    holders = Holders(scopes, module)
    check_constants(holders)
    fields = Fields(holders)
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


def apart(line: bytes) -> dict[str, Any]:
    """How a fork ended that answered a request, and what it said; it has no way to say anything else."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.dup2(theirs, 1)
            os.closerange(3, 64)
            os.close(0)
            limit()
            os.write(1, json.dumps(answered(json.loads(line))).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        said = answer.read()
    return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "answer": said.decode(errors="replace")}


def main() -> None:
    """Answer the requests on standard input, until there are no more."""
    for line in sys.stdin.buffer:
        sys.stdout.write(json.dumps(apart(line)) + "\n")
        sys.stdout.flush()
