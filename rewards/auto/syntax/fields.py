"""Which fields a reward program reads."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from .bindings import bound_values, is_followed, sources
from .names import GROUPS, MAX_NAME, VIEWS
from .refusal import Refusal, shown
from .scopes import Scope, Scopes, is_container

Place = tuple[int, str]
"""A function's or comprehension's id and one of its names."""

Way = Literal["[]", "get", "in"]


@dataclass(frozen=True)
class Key:
    """A field that is read by its name."""

    place: Place
    name: str
    node: ast.expr
    way: Way


@dataclass
class Held:
    """What a name may hold, besides what flows into it."""

    is_parameter: bool = False
    num_bound: int = 0
    """How often it is bound."""
    is_mixed: bool = False
    """Whether it may hold something else with keys."""
    is_own: bool = True
    """Whether it holds nothing but dictionaries that the program made, as far as it is bound."""


@dataclass
class Function:
    """How a function of the program is called."""

    num_calls: int = 0
    is_handed_on: bool = False
    """Whether it is used in other ways too, or called with ``*``."""
    strange: set[str] = field(default_factory=set)
    """Parameters that are handed what may hold a group that was not followed."""


class Fields:
    """Follows the groups of fields from the parameters of ``reward`` into names and helpers, and finds what they read.

    A group that goes anywhere else (a list, a lambda's parameter) is open: all its fields may be read. A name may hold
    several groups, also one after the other: what is read of it may be read of each.
    """

    def __init__(self, scopes: Scopes, reward: ast.FunctionDef) -> None:
        self._scopes, self._reward = scopes, reward
        self._keys: list[Key] = []
        self._opens: list[Place] = []
        self._tests: list[Place] = []
        """Names that are asked whether they are empty."""
        self._writes: list[tuple[Place, ast.expr]] = []
        self._numbers: list[tuple[Place, ast.expr]] = []
        self._flows: list[tuple[Place, Place]] = []
        self._held: dict[Place, Held] = {}
        self._functions: dict[int, Function] = {}
        self._columns: set[str] = set()
        self._reads_action = False
        self._take_bindings()
        for node, scope in scopes.reads:
            self._take_read(node, scope)
        for node, scope in scopes.augmented:
            self._writes.append(((id(scope.node), node.id), node))
        self._groups = self._follow()
        self._mix()

    # ---- what names hold

    def _take_bindings(self) -> None:
        for scope in {id(scope): scope for scope in self._scopes.bound_in.values()}.values():
            if scope.parent is None:
                continue
            for name, nodes in scope.bound.items():
                held = self._held[id(scope.node), name] = Held(num_bound=len(nodes))
                for node in nodes:
                    if isinstance(node, ast.arg):
                        held.is_parameter, held.is_own = True, False
                    else:
                        self._take_binding((id(scope.node), name), node, held)

    def _take_binding(self, place: Place, node: ast.AST, held: Held) -> None:
        values = bound_values(node, self._scopes.parents)
        if values is None:
            held.is_mixed, held.is_own = True, False
            return
        for value in (source for whole in values for source in sources(whole)):
            origin = self._place_of(value) if isinstance(value, ast.Name) else None
            if origin is not None:
                self._flows.append((origin, place))
                held.is_own = False
            elif not _is_empty(value):
                held.is_mixed = True
                held.is_own = held.is_own and _is_made(value)

    def _place_of(self, node: ast.Name) -> Place | None:
        """Where a name that is read belongs, if to a function or comprehension."""
        scope = self._scopes.read_in.get(id(node))
        owner = None if scope is None else scope.owner(node.id)
        return None if owner is None or owner.parent is None else (id(owner.node), node.id)

    # ---- what is done with them

    def _take_read(self, node: ast.Name, scope: Scope) -> None:
        owner = scope.owner(node.id)
        if owner is None:
            return
        bound = owner.bound[node.id]
        if len(bound) == 1 and isinstance(bound[0], ast.FunctionDef):
            self._take_call(node, bound[0])
        place = self._place_of(node)
        if place is not None:
            self._use(node, place, owner)

    def _use(self, node: ast.Name, place: Place, owner: Scope) -> None:
        if owner.node is self._reward and node.id == "action":
            self._reads_action = True
        whole: ast.expr = node
        parent = self._scopes.parents[id(node)]
        while isinstance(parent, ast.BoolOp | ast.IfExp | ast.NamedExpr):
            if isinstance(parent, ast.BoolOp) and parent.values[-1] is not whole:
                self._tests.append(place)
                if isinstance(parent.op, ast.And):
                    return
            if not any(source is node for source in sources(parent)):
                break
            whole, parent = parent, self._scopes.parents[id(parent)]
        if is_followed(whole, self._scopes.parents):
            return
        kind = next((use for kinds, use in USES.items() if isinstance(parent, kinds)), None)
        if kind is None or not kind(self, whole, parent, place):
            self._opens.append(place)

    def _subscript(self, node: ast.expr, parent: ast.Subscript, place: Place) -> bool:
        if parent.value is not node:
            return False
        if not isinstance(parent.ctx, ast.Load):
            self._writes.append((place, parent))
        elif isinstance(parent.slice, ast.Constant) and isinstance(parent.slice.value, str):
            self._keys.append(Key(place, parent.slice.value, parent.slice, "[]"))
        elif isinstance(parent.slice, ast.Constant):
            self._numbers.append((place, parent.slice))
        else:
            return False
        return True

    def _method(self, _: ast.expr, parent: ast.Attribute, place: Place) -> bool:
        call = self._scopes.parents[id(parent)]
        if parent.attr in VIEWS:
            return False
        if parent.attr != "get":
            self._writes.append((place, parent))
            return True
        key = call.args[0] if isinstance(call, ast.Call) and call.func is parent and call.args else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            self._keys.append(Key(place, key.value, key, "get"))
            return True
        return False

    def _comparison(self, node: ast.expr, parent: ast.Compare, place: Place) -> bool:
        if len(parent.ops) > 1:
            return False
        sides = [parent.left, *parent.comparators]
        if is_container(parent, node) and isinstance(parent.left, ast.Constant):
            self._keys.append(Key(place, str(parent.left.value), parent.left, "in"))
            return True
        # No group is None, with or without fields.
        return any(isinstance(side, ast.Constant) and side.value is None for side in sides)

    def _argument(self, node: ast.expr, call: ast.Call, place: Place) -> bool:
        if isinstance(call.func, ast.Name) and call.func.id == "isinstance":
            return node is call.args[0]
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

    def _keyword(self, _: ast.expr, keyword: ast.keyword, place: Place) -> bool:
        call = self._scopes.parents[id(keyword)]
        target = self._called(call) if isinstance(call, ast.Call) else None
        names = [] if target is None else [arg.arg for arg in [*target.args.args, *target.args.kwonlyargs]]
        if target is None or keyword.arg not in names:
            return False
        self._flows.append((place, (id(target), keyword.arg)))
        return True

    def _test(self, node: ast.expr, parent: Any, place: Place) -> bool:
        is_test = node in parent.ifs if isinstance(parent, ast.comprehension) else parent.test is node
        if is_test:
            self._tests.append(place)
        return is_test

    def _negation(self, _: ast.expr, parent: ast.UnaryOp, place: Place) -> bool:
        if isinstance(parent.op, ast.Not):
            self._tests.append(place)
        return isinstance(parent.op, ast.Not)

    def _called(self, call: ast.Call) -> ast.FunctionDef | None:
        """The function of the program that is called, where that is certain."""
        if not isinstance(call.func, ast.Name):
            return None
        owner = self._scopes.read_in[id(call.func)].owner(call.func.id)
        bound = owner.bound[call.func.id] if owner else []
        return bound[0] if len(bound) == 1 and isinstance(bound[0], ast.FunctionDef) else None

    def _take_call(self, node: ast.Name, target: ast.FunctionDef) -> None:
        """Notes which parameters get what the program made itself."""
        function = self._functions.setdefault(id(target), Function())
        call = self._scopes.parents[id(node)]
        if not (isinstance(call, ast.Call) and call.func is node) or any(
            isinstance(part, ast.Starred) or (isinstance(part, ast.keyword) and part.arg is None)
            for part in [*call.args, *call.keywords]
        ):
            function.is_handed_on = True
            return
        function.num_calls += 1
        names = [parameter.arg for parameter in [*target.args.posonlyargs, *target.args.args]]
        given = [*zip(names, call.args, strict=False), *((part.arg or "", part.value) for part in call.keywords)]
        function.strange |= {name for name, value in given if not self._is_own(value)}

    def _is_own(self, value: ast.expr) -> bool:
        """Whether it is a dictionary that the program made, or a name of nothing else."""
        for source in sources(value):
            if not (
                _is_empty(source) or _is_made(source) or (isinstance(source, ast.Name) and self._names_own(source))
            ):
                return False
        return True

    def _names_own(self, node: ast.Name) -> bool:
        place, owner = self._place_of(node), self._scopes.read_in[id(node)].owner(node.id)
        return owner is self._scopes.module if place is None else self._held[place].is_own

    # ---- what follows

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

    def _mix(self) -> None:
        """Other things with keys flow from name to name, as groups do; what helpers are handed is judged for each."""
        changed = True
        while changed:
            changed = False
            for source, target in self._flows:
                held = self._held.get(target)
                if held is None or held.is_mixed or (held.is_parameter and held.num_bound == 1):
                    continue
                if self._may_be_other(source):
                    held.is_mixed = changed = True

    def _may_be_other(self, place: Place) -> bool:
        """Whether a name may hold something with keys that is no group."""
        held = self._held[place]
        return held.is_mixed or (held.is_parameter and not self._of(place))

    def _of(self, place: Place) -> set[str]:
        """The groups that a name may hold; a parameter of which nothing else is certain is taken by its name."""
        found = self._groups.get(place)
        if found or place[1] not in GROUPS or not self._held[place].is_parameter:
            return found or set()
        function = self._functions.get(place[0])
        if function is None or function.is_handed_on or not function.num_calls or place[1] in function.strange:
            return {place[1]}
        return set()

    def columns(self, fields: dict[str, list[str]]) -> Iterator[str]:
        """Qualified columns that are read by constant keys; refuses those that there are none of."""
        known = {group: frozenset(names) for group, names in fields.items()}
        if self._reads_action:
            yield "action"
        for place, node in self._numbers:
            if self._of(place) and not self._held[place].is_mixed:
                raise Refusal("E40", f"{place[1]} is read by the name of a field in quotes", node)
        asked = {(key.place, key.name) for key in self._keys if key.way == "in"}
        for key in self._keys:
            groups = sorted(self._of(key.place))
            unknown = [group for group in groups if key.name not in known[group]]
            if unknown and not self._may_lack(key, len(unknown) < len(groups), asked):
                raise _unknown(key, unknown[0])
            self._columns |= {f"{group}.{key.name}" for group in groups if group not in unknown}
        yield from self._columns

    def _may_lack(self, key: Key, is_partly_known: bool, asked: Iterable[tuple[Place, str]]) -> bool:
        """Whether a name may hold a dictionary with a field that a group of it has not."""
        held = self._held[key.place]
        if held.is_mixed:
            return True
        certain = held.is_parameter and held.num_bound == 1 and (key.place, key.name) not in asked
        return is_partly_known and not certain

    def open_groups(self) -> set[str]:
        """Groups that are read in other ways too; refuses writing. To be asked after ``columns``."""
        for place, node in self._writes:
            if self._of(place) and not self._held[place].is_mixed:
                raise Refusal("E41", f"{place[1]} is written to", node)
        # A group without any field would be empty.
        bare = {group for place in self._tests for group in self._of(place)}
        bare -= {column.partition(".")[0] for column in self._columns}
        return {group for place in self._opens for group in self._of(place)} | bare


def _is_empty(node: ast.expr) -> bool:
    """Nothing with keys: ``None``, ``0``, ``{}``, ``dict()``."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "dict" and not (node.args or node.keywords)
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Dict) and not node.keys)


def _is_made(node: ast.expr) -> bool:
    """A dictionary that the program makes."""
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict"
    return is_call or isinstance(node, ast.Dict | ast.DictComp)


def _unknown(key: Key, group: str) -> Refusal:
    """The refusal of a field that there is none of."""
    what = {"[]": "", "get": ": get would always give its default", "in": ": this would never be in it"}[key.way]
    return Refusal("E40", f"{group} has no field {shown(key.name)}{what}", key.node,
                   unknown=[group, key.name[:MAX_NAME]])  # fmt: skip


USES: dict[type[ast.AST] | tuple[type[ast.AST], ...], Callable[[Fields, ast.expr, Any, Place], bool]] = {
    ast.Subscript: Fields._subscript,
    ast.Attribute: Fields._method,
    ast.Compare: Fields._comparison,
    ast.Call: Fields._argument,
    ast.keyword: Fields._keyword,
    (ast.If, ast.While, ast.IfExp, ast.Assert, ast.comprehension): Fields._test,
    ast.UnaryOp: Fields._negation,
}
"""How a group may be used without being opened, by what the name is part of."""
