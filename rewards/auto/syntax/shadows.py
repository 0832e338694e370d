"""Names of functions that a function of the program gives to something else, as in ``sum = 0.0``."""

from __future__ import annotations

import ast

from .names import FUNCTIONS
from .refusal import Refusal, shown, unavailable
from .scopes import Scopes


def check_shadows(scopes: Scopes) -> None:
    """Refuse calls of such a name, for all checks take a call of ``len`` for that of the function.

    ``next`` is only called.
    """
    for node, scope in scopes.reads:
        if node.id not in FUNCTIONS:
            continue
        parent = scopes.parents[id(node)]
        is_called = isinstance(parent, ast.Call) and parent.func is node
        if scope.owner(node.id) is not None:
            if is_called:
                raise Refusal("E25", f"{shown(node.id)} is bound anew and called", node, f"call the other my_{node.id}")
        elif node.id == "next" and not is_called:
            raise unavailable(node)
