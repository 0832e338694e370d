"""Which fields a reward program reads."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any

from .names import GROUPS, MAX_NAME, VIEWS
from .refusal import Refusal, shown
from .scopes import Scope, Scopes, is_container

Place = tuple[int, str]
"""A function's id and one of its parameters."""


class Fields:
    """Follows the groups of fields from the parameters of ``reward`` into helpers, and finds what they read of them.

    A group that goes anywhere else (another name, a list, a lambda's parameter) is open: all its fields may be read.
    """

    def __init__(self, scopes: Scopes, reward: ast.FunctionDef) -> None:
        self._scopes, self._reward = scopes, reward
        self._keys: list[tuple[Place, str, ast.expr]] = []
        self._opens: list[Place] = []
        self._writes: list[tuple[Place, ast.expr]] = []
        self._numbers: list[tuple[Place, ast.expr]] = []
        self._flows: list[tuple[Place, Place]] = []
        self._reads_action = False
        for node, scope in scopes.reads:
            owner = scope.owner(node.id)
            if owner is not None and isinstance(owner.bound[node.id][0], ast.arg):
                self._use(node, (id(owner.node), node.id), owner)
        for node, scope in scopes.augmented:
            self._writes.append(((id(scope.node), node.id), node))
        self._groups = self._follow()

    def _use(self, node: ast.Name, place: Place, owner: Scope) -> None:
        if owner.node is self._reward and node.id == "action":
            self._reads_action = True
        parent = self._scopes.parents[id(node)]
        kind = next((use for kinds, use in USES.items() if isinstance(parent, kinds)), None)
        if len(owner.bound[node.id]) > 1 or kind is None or not kind(self, node, parent, place):
            self._opens.append(place)

    def _subscript(self, node: ast.Name, parent: ast.Subscript, place: Place) -> bool:
        if parent.value is not node:
            return False
        if not isinstance(parent.ctx, ast.Load):
            self._writes.append((place, parent))
        elif isinstance(parent.slice, ast.Constant) and isinstance(parent.slice.value, str):
            self._keys.append((place, parent.slice.value, parent.slice))
        elif isinstance(parent.slice, ast.Constant):
            self._numbers.append((place, parent.slice))
        else:
            return False
        return True

    def _method(self, node: ast.Name, parent: ast.Attribute, place: Place) -> bool:
        call = self._scopes.parents[id(parent)]
        if parent.attr in VIEWS:
            return False
        if parent.attr != "get":
            self._writes.append((place, parent))
            return True
        key = call.args[0] if isinstance(call, ast.Call) and call.args else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            self._keys.append((place, key.value, key))
            return True
        return False

    def _membership(self, node: ast.Name, parent: ast.Compare, place: Place) -> bool:
        if len(parent.ops) == 1 and is_container(parent, node) and isinstance(parent.left, ast.Constant):
            self._keys.append((place, str(parent.left.value), parent.left))
            return True
        return False

    def _argument(self, node: ast.Name, call: ast.Call, place: Place) -> bool:
        target = self._called(call)
        if target is None or node not in call.args or any(isinstance(arg, ast.Starred) for arg in call.args):
            return False
        return self._flow(place, target, call.args.index(node))

    def _flow(self, place: Place, target: ast.FunctionDef, index: int) -> bool:
        parameters = [*target.args.posonlyargs, *target.args.args]
        if index >= len(parameters):
            return False
        self._flows.append((place, (id(target), parameters[index].arg)))
        return True

    def _keyword(self, node: ast.Name, keyword: ast.keyword, place: Place) -> bool:
        call = self._scopes.parents[id(keyword)]
        target = self._called(call) if isinstance(call, ast.Call) else None
        names = [] if target is None else [arg.arg for arg in [*target.args.args, *target.args.kwonlyargs]]
        if target is None or keyword.arg not in names:
            return False
        self._flows.append((place, (id(target), keyword.arg)))
        return True

    def _called(self, call: ast.Call) -> ast.FunctionDef | None:
        """The function of the program that is called, where that is certain."""
        if not isinstance(call.func, ast.Name):
            return None
        owner = self._scopes.read_in[id(call.func)].owner(call.func.id)
        bound = owner.bound[call.func.id] if owner else []
        return bound[0] if len(bound) == 1 and isinstance(bound[0], ast.FunctionDef) else None

    def _follow(self) -> dict[Place, set[str]]:
        groups: dict[Place, set[str]] = {(id(self._reward), group): {group} for group in GROUPS}
        changed = True
        while changed:
            changed = False
            for source, target in self._flows:
                new = groups.get(source, set()) - groups.get(target, set())
                if new:
                    groups.setdefault(target, set()).update(new)
                    changed = True
        return groups

    def _of(self, place: Place) -> set[str]:
        """The groups that a parameter may hold; one that nothing is handed to is taken by its name."""
        return self._groups.get(place) or ({place[1]} if place[1] in GROUPS else set())

    def columns(self, fields: dict[str, list[str]]) -> Iterator[str]:
        """Qualified columns that are read by constant keys; refuses those that there are none of."""
        known = {group: frozenset(names) for group, names in fields.items()}
        if self._reads_action:
            yield "action"
        for place, node in self._numbers:
            if self._of(place):
                raise Refusal("E40", f"{place[1]} is read by the name of a field in quotes", node)
        for place, key, node in self._keys:
            for group in sorted(self._of(place)):
                if key not in known[group]:
                    raise Refusal("E40", f"{group} has no field {shown(key)}", node, unknown=[group, key[:MAX_NAME]])
                yield f"{group}.{key}"

    def open_groups(self) -> set[str]:
        """Groups that are read in other ways too; refuses writing."""
        for place, node in self._writes:
            if self._of(place):
                raise Refusal("E41", f"{place[1]} is written to", node)
        return {group for place in self._opens for group in self._of(place)}


USES: dict[type[ast.AST], Callable[[Fields, ast.Name, Any, Place], bool]] = {
    ast.Subscript: Fields._subscript,
    ast.Attribute: Fields._method,
    ast.Compare: Fields._membership,
    ast.Call: Fields._argument,
    ast.keyword: Fields._keyword,
}
"""How a group may be used without being opened, by what the name is part of."""
