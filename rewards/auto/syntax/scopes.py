"""Who binds which name."""

from __future__ import annotations

import ast
from typing import Any

from .names import EXCEPTIONS, FUNCTIONS, PARAMETERS, READERS, READING, RESERVED
from .refusal import Refusal, shown, unavailable
from .tree import parameters_of

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
        self.parents: dict[int, ast.AST] = {}
        """Id of a node to the node that it is part of."""
        for statement in tree.body:
            self._walk(statement, self.module)

    def _bind(self, name: str, node: ast.AST, scope: Scope) -> None:
        if name in RESERVED and not (name == "COMPONENTS" and scope.parent is None):
            raise Refusal("E25", f"{shown(name)} is bound anew", node, f"call it my_{name}")
        is_parameter = isinstance(node, ast.arg)
        if name in PARAMETERS and not is_parameter:
            raise Refusal("E25", f"{name} is bound anew", node, f"call it my_{name}")
        if name == "reward" and not isinstance(node, ast.Name | ast.MatchAs | ast.arg) and scope.parent is not None:
            raise Refusal("E25", "reward is defined again within a function", node)
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
                self._bind(node.id, node, scope.function if within else scope)
            else:
                self.reads.append((node, scope))
                self.read_in[id(node)] = scope
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name is not None:
            self._bind(node.name, node, scope)
        elif isinstance(node, ast.MatchMapping) and node.rest is not None:
            self._bind(node.rest, node, scope)

    def _parts(self, node: ast.AST, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            self.parents[id(child)] = node
            self._walk(child, scope)

    def _function(self, node: ast.FunctionDef | ast.Lambda, scope: Scope) -> None:
        if isinstance(node, ast.FunctionDef):
            self._bind(node.name, node, scope)
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.parents[id(default)] = node
                self._walk(default, scope)
        inner = Scope(scope, node)
        for parameter in parameters_of(node.args):
            self._bind(parameter.arg, parameter, inner)
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

    def check_collections(self, collections: set[str]) -> None:
        """Refuse whatever could change a constant, or hand it to what could."""
        for node, scope in self.reads:
            if node.id in collections and scope.owner(node.id) is self.module and not self._only_reads(node):
                raise Refusal("E13", f"the constant {shown(node.id)} is written to or handed on", node,
                              "copy it first: dict(x), list(x)")  # fmt: skip

    def _only_reads(self, node: ast.Name) -> bool:
        parent = self.parents[id(node)]
        if isinstance(parent, ast.Subscript):
            return parent.value is node and isinstance(parent.ctx, ast.Load)
        if isinstance(parent, ast.Attribute):
            return parent.attr in READING
        if isinstance(parent, ast.Starred):
            return True
        if isinstance(parent, ast.Dict):
            return all(part is not node or key is None for key, part in zip(parent.keys, parent.values, strict=True))
        if isinstance(parent, ast.Compare):
            return is_container(parent, node)
        if isinstance(parent, ast.For | ast.comprehension):
            return parent.iter is node
        if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id in READERS:
            return len(parent.args) == 1 and parent.args[0] is node
        return False


def is_container(compare: ast.Compare, node: ast.expr) -> bool:
    """Whether it stands last, right of ``in``."""
    return compare.comparators[-1] is node and isinstance(compare.ops[-1], ast.In | ast.NotIn)
