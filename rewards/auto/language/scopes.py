"""Who binds which name."""

from __future__ import annotations

import ast
from typing import Any

from .names import EXCEPTIONS, FIXED, FUNCTIONS, PARAMETERS, RESERVED
from .tree import Refusal, parameters_of, shown, unavailable

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
        self.bound_in: dict[int, Scope] = {}
        """Id of what binds a name to the scope that it binds it in."""
        self.parents: dict[int, ast.AST] = {}
        """Id of a node to the node that it is part of."""
        for statement in tree.body:
            self._walk(statement, self.module)

    def _own(self, name: str, node: ast.AST, scope: Scope) -> None:
        self._bind(name, node, scope)
        self.bound_in[id(node)] = scope

    def _bind(self, name: str, node: ast.AST, scope: Scope) -> None:
        if scope.parent is None:
            taken = name in RESERVED or name in PARAMETERS
            if taken and name != "COMPONENTS":
                raise Refusal("E25", f"{shown(name)} is bound anew", node, f"call it my_{name}")
        elif name in FIXED:
            raise Refusal("E25", f"{shown(name)} is bound anew", node, f"call it my_{name}")
        elif isinstance(node, ast.FunctionDef) and name in ("reward", *PARAMETERS):
            raise Refusal("E25", f"{name} is defined again within a function", node, f"call it my_{name}")
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
                self._own(node.id, node, scope.function if within else scope)
            else:
                self.reads.append((node, scope))
                self.read_in[id(node)] = scope
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name is not None:
            self._own(node.name, node, scope)
        elif isinstance(node, ast.MatchMapping) and node.rest is not None:
            self._own(node.rest, node, scope)

    def _parts(self, node: ast.AST, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            self.parents[id(child)] = node
            self._walk(child, scope)

    def _function(self, node: ast.FunctionDef | ast.Lambda, scope: Scope) -> None:
        if isinstance(node, ast.FunctionDef):
            self._own(node.name, node, scope)
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.parents[id(default)] = node
                self._walk(default, scope)
        inner = Scope(scope, node)
        for parameter in parameters_of(node.args):
            self._own(parameter.arg, parameter, inner)
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


def is_container(compare: ast.Compare, node: ast.expr) -> bool:
    """Whether it stands last, right of ``in``."""
    return compare.comparators[-1] is node and isinstance(compare.ops[-1], ast.In | ast.NotIn)


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
