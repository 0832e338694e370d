"""Which fields a reward program reads: those that it names by constant keys.

What is read of a name may be read of each group that the name may hold (``read_only.Holders``). A group that is used in
any other way is open: all its fields may be read.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from .names import GROUPS, MAX_NAME, VIEWS
from .read_only import OTHER, Holders, Place, Use
from .scopes import is_container
from .tree import Refusal, called_name, shown

WAYS: Mapping[Literal["[]", "get", "in"], str] = {
    "[]": "",
    "get": ": get would always give its default",
    "in": ": this would never be in it",
}
"""How a field is read, and what is wrong with a name there is none of."""


class Key(NamedTuple):
    """A field that is read by its name."""

    place: Place
    name: str
    node: ast.expr
    way: Literal["[]", "get", "in"]


class Fields:
    """What is done with groups.

    Args:
        holders: the names that may hold one.
    """

    def __init__(self, holders: Holders) -> None:
        self._holders = holders
        self._keys: list[Key] = []
        self._opened: set[str] = set()
        self._tested: set[str] = set()
        """Groups that are asked whether they are empty."""
        self._columns: set[str] = set()
        for use in holders.uses:
            if self._groups(use.place):
                self._take(use)
        for node, scope in holders.scopes.augmented:
            self._check_written((id(scope.node), node.id), node)

    def _groups(self, place: Place) -> set[str]:
        return self._holders.held[place] & {*GROUPS}

    def _is_mixed(self, place: Place) -> bool:
        """Whether a name may hold a dictionary of the program's own; what helpers are handed is judged for each."""
        return OTHER in self._holders.held[place] and not self._holders.is_parameter(place)

    def _check_written(self, place: Place, node: ast.AST) -> None:
        if self._groups(place) and not self._is_mixed(place):
            raise Refusal("E41", f"{place[1]} is written to", node)

    def _take(self, use: Use) -> None:
        groups = self._groups(use.place)
        if use.is_tested:
            self._tested |= groups
        if not use.is_kept or self._holders.is_followed(use):
            return
        kind = next((kind for kinds, kind in USES.items() if isinstance(use.parent, kinds)), None)
        if kind is None or not kind(self, use, use.parent):
            self._opened |= groups

    def _key(self, use: Use, node: ast.expr, way: Literal["[]", "get", "in"]) -> bool:
        is_name = isinstance(node, ast.Constant) and (isinstance(node.value, str) or way == "in")
        if isinstance(node, ast.Constant) and is_name:
            self._keys.append(Key(use.place, str(node.value), node, way))
        return is_name

    def _subscript(self, use: Use, parent: ast.Subscript) -> bool:
        if parent.value is not use.whole:
            return False
        if not isinstance(parent.ctx, ast.Load):
            self._check_written(use.place, parent)
            return True
        if isinstance(parent.slice, ast.Constant) and not isinstance(parent.slice.value, str):
            if not self._is_mixed(use.place):
                raise Refusal("E40", f"{use.place[1]} is read by the name of a field in quotes", parent.slice)
            return True
        return self._key(use, parent.slice, "[]")

    def _method(self, use: Use, parent: ast.Attribute) -> bool:
        call = self._holders.scopes.parents[id(parent)]
        if parent.attr in VIEWS:
            return False
        if parent.attr != "get":
            self._check_written(use.place, parent)
            return True
        is_called = isinstance(call, ast.Call) and call.func is parent and bool(call.args)
        return isinstance(call, ast.Call) and is_called and self._key(use, call.args[0], "get")

    def _comparison(self, use: Use, parent: ast.Compare) -> bool:
        if len(parent.ops) > 1:
            return False
        if is_container(parent, use.whole) and self._key(use, parent.left, "in"):
            return True
        # No group is None, with or without fields.
        sides = [parent.left, *parent.comparators]
        return any(isinstance(side, ast.Constant) and side.value is None for side in sides)

    def _argument(self, use: Use, parent: ast.Call) -> bool:
        return called_name(parent) == "isinstance" and parent.args[0] is use.whole

    def _test(self, use: Use, parent: Any) -> bool:
        is_test = use.whole in parent.ifs if isinstance(parent, ast.comprehension) else parent.test is use.whole
        if is_test:
            self._tested |= self._groups(use.place)
        return is_test

    def _negation(self, use: Use, parent: ast.UnaryOp) -> bool:
        if isinstance(parent.op, ast.Not):
            self._tested |= self._groups(use.place)
        return isinstance(parent.op, ast.Not)

    def columns(self, fields: Mapping[str, list[str]]) -> Iterator[str]:
        """Qualified columns that are read by constant keys; refuses those that there are none of."""
        holders = self._holders
        place = id(holders.reward), "action"
        if any(holders.place_of(node) == place for node, _ in holders.scopes.reads):
            yield "action"
        asked = {(key.place, key.name) for key in self._keys if key.way == "in"}
        for key in self._keys:
            groups = sorted(self._groups(key.place))
            unknown = [group for group in groups if key.name not in fields[group]]
            may_lack = len(unknown) < len(groups) and (
                not holders.is_parameter(key.place) or (key.place, key.name) in asked
            )
            if unknown and not may_lack and not self._is_mixed(key.place):
                reason = f"{unknown[0]} has no field {shown(key.name)}{WAYS[key.way]}"
                raise Refusal("E40", reason, key.node, unknown=[unknown[0], key.name[:MAX_NAME]])
            self._columns |= {f"{group}.{key.name}" for group in groups if group not in unknown}
        yield from self._columns

    def open_groups(self) -> set[str]:
        """Groups that are read in other ways too. To be asked after ``columns``."""
        # A group without any field would be empty.
        return self._opened | (self._tested - {column.partition(".")[0] for column in self._columns})


USES: Mapping[type[ast.AST] | tuple[type[ast.AST], ...], Callable[[Fields, Use, Any], bool]] = {
    ast.Subscript: Fields._subscript,
    ast.Attribute: Fields._method,
    ast.Compare: Fields._comparison,
    ast.Call: Fields._argument,
    (ast.If, ast.While, ast.IfExp, ast.Assert, ast.comprehension): Fields._test,
    ast.UnaryOp: Fields._negation,
}
"""How a group may be used without being opened, by what the name is part of."""
