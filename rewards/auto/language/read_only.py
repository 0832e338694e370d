"""What may only be read: constants that are collections, and the groups of fields that ``reward`` is given.

What is kept in a constant would be kept between calls. The elements of a collection cannot be changed (``module``), so
it is enough that nothing changes the collection itself. ``Holders`` knows the names that may hold one: its own, other
names for it, and parameters of the program's functions that are called with it, whatever the order of the lines. Each
place where such a name is read must be one of ``READS``, which hand on elements, copies and numbers, or give it to
another name that is known to hold it; everything else is refused.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .module import ModuleLevel
from .names import BUILDERS, FUNCTIONS, GROUPS, ITERATORS, READING_METHODS, SET_METHODS
from .scopes import Scopes
from .tree import Refusal, called_name, is_math, shown

Place = tuple[int, str]
"""The id of a module's, function's or comprehension's node, and one of its names."""

OTHER = ""
"""Stands for anything else with keys that a name may hold."""

NEW_VALUE = "write x = x + y, which makes a new value"

READERS = BUILDERS | ITERATORS | {"all", "any", "bool", "isinstance", "len", "repr", "str", "sum"}
"""Functions that read the elements of their first argument."""

ARGUMENTS = SET_METHODS | {"join", "issubset", "issuperset", "isdisjoint"}
"""Methods that read the elements of whatever they are given."""


class Use(NamedTuple):
    """A place where a name that may hold something is read."""

    node: ast.Name
    place: Place
    whole: ast.expr
    """The expression that has its value: ``x``, ``x or y``, ``(z := x)``."""
    parent: ast.AST
    """What that is part of."""
    is_tested: bool
    """Whether it is asked whether it is empty."""
    is_kept: bool
    """Whether more is done with it than that."""


class Holders:
    """Which names may hold a collection or a group, and where they are read.

    Args:
        scopes: of the program.
        module: its constants and functions.
    """

    def __init__(self, scopes: Scopes, module: ModuleLevel) -> None:
        self.scopes = scopes
        self.reward = module.functions["reward"]
        self.bound = {
            (id(scope.node), name): nodes
            for scope in {id(scope): scope for scope in scopes.bound_in.values()}.values()
            for name, nodes in scope.bound.items()
        }
        """What binds each name."""
        self.held: dict[Place, set[str]] = {place: set() for place in self.bound}
        """What each may hold: names of constants and groups, and ``OTHER``."""
        self._flows: list[tuple[Place, Place]] = []
        top = id(scopes.module.node)
        for name in (name for name, is_collection in module.constants.items() if is_collection):
            self.held[top, name].add(name)
        for group in GROUPS:
            self.held[id(self.reward), group].add(group)
        self._take_bindings(top)
        self._take_calls()
        self._follow()
        self.uses = [self._use(node, place) for node, place in self._reads() if self.held[place] - {OTHER}]

    def _take_bindings(self, top: int) -> None:
        for place, nodes in self.bound.items():
            for node in nodes:
                if place[0] != top and not isinstance(node, ast.arg):
                    values = bound_values(node, self.scopes.parents)
                    self._give(place, None if values is None else values)

    def _give(self, place: Place, values: list[ast.expr] | None) -> None:
        """A name gets one of these; None = not certain."""
        for value in [None] if values is None else [source for whole in values for source in sources(whole)]:
            origin = self.place_of(value) if isinstance(value, ast.Name) else None
            if origin is not None:
                self._flows.append((origin, place))
            elif value is None or not _is_empty(value):
                self.held[place].add(OTHER)

    def _take_calls(self) -> None:
        """What the parameters of the program's functions get.

        One that is named like a group is taken for it where that is not known.
        """
        known: dict[Place, bool] = {}
        loose: set[int] = set()
        for node, _ in self.scopes.reads:
            target = self.function_of(node)
            call = self.scopes.parents.get(id(node))
            if target is None:
                continue
            if not (isinstance(call, ast.Call) and call.func is node):
                loose.add(id(target))
                continue
            for place, value in self._given(call, target):
                known[place] = known.get(place, True) and all(map(_is_named_or_made, sources(value)))
                self._give(place, [value])
        for place, nodes in self.bound.items():
            is_parameter = any(isinstance(node, ast.arg) for node in nodes)
            if place[1] in GROUPS and is_parameter and (place[0] in loose or not known.get(place, False)):
                self.held[place].add(place[1])

    def _given(self, call: ast.Call, target: ast.FunctionDef) -> list[tuple[Place, ast.expr]]:
        """Parameters, and what a call gives them."""
        plain = [*target.args.posonlyargs, *target.args.args]
        is_certain = not any(isinstance(argument, ast.Starred) for argument in call.args)
        pairs = list(zip(plain, call.args, strict=False)) if is_certain else []
        named = {parameter.arg: parameter for parameter in [*target.args.args, *target.args.kwonlyargs]}
        pairs += [(named[part.arg], part.value) for part in call.keywords if part.arg in named]
        return [((id(target), parameter.arg), value) for parameter, value in pairs]

    def _follow(self) -> None:
        changed = True
        while changed:
            changed = False
            for source, target in self._flows:
                if not self.held[source] <= self.held[target]:
                    self.held[target] |= self.held[source]
                    changed = True

    def place_of(self, node: ast.Name) -> Place | None:
        """Where a name that is read belongs, where the program binds it."""
        scope = self.scopes.read_in.get(id(node))
        owner = None if scope is None else scope.owner(node.id)
        return None if owner is None else (id(owner.node), node.id)

    def function_of(self, node: ast.expr) -> ast.FunctionDef | None:
        """The function of the program that a name stands for, where that is certain."""
        place = self.place_of(node) if isinstance(node, ast.Name) else None
        nodes = [] if place is None else self.bound[place]
        return nodes[0] if len(nodes) == 1 and isinstance(nodes[0], ast.FunctionDef) else None

    def is_parameter(self, place: Place) -> bool:
        """Whether a name is a parameter, and nothing else binds it."""
        return len(self.bound[place]) == 1 and isinstance(self.bound[place][0], ast.arg)

    def _reads(self) -> list[tuple[ast.Name, Place]]:
        """Names that are read within functions; what stands outside was judged by ``module``."""
        found = [(node, self.place_of(node)) for node, scope in self.scopes.reads if scope.function.parent is not None]
        return [(node, place) for node, place in found if place is not None]

    def _use(self, node: ast.Name, place: Place) -> Use:
        whole: ast.expr = node
        parent, is_tested = self.scopes.parents[id(node)], False
        while isinstance(parent, ast.BoolOp | ast.IfExp | ast.NamedExpr):
            if isinstance(parent, ast.BoolOp) and parent.values[-1] is not whole:
                is_tested = True
                if isinstance(parent.op, ast.And):
                    return Use(node, place, whole, parent, is_tested=True, is_kept=False)
            elif isinstance(parent, ast.IfExp) and parent.test is whole:
                break
            whole, parent = parent, self.scopes.parents[id(parent)]
        return Use(node, place, whole, parent, is_tested, is_kept=True)

    def is_followed(self, use: Use) -> bool:
        """Whether the value goes into names that are known to hold it, and nowhere else."""
        call = self.scopes.parents[id(use.parent)] if isinstance(use.parent, ast.keyword) else use.parent
        if isinstance(call, ast.Call):
            target = self.function_of(call.func)
            return target is not None and any(value is use.whole for _, value in self._given(call, target))
        return is_named(use.whole, self.scopes.parents)


def check_constants(holders: Holders) -> None:
    """Refuse what could change a constant.

    Raises:
        Refusal: something could.
    """
    for use in holders.uses:
        names = sorted(holders.held[use.place] - {OTHER, *GROUPS})
        if not names or (holders.is_followed(use) and use.is_kept):
            continue
        reads = next((reads for kinds, reads in READS.items() if isinstance(use.parent, kinds)), None)
        if not use.is_kept or reads is None or not reads(holders, use, use.parent):
            reason = f"the constant {shown(names[0])} is only read, and this could change it, or hand it on"
            hint = f"copy it first, with list({names[0]}) or dict({names[0]}); a tuple goes anywhere"
            raise Refusal("E13", reason, use.node, hint)
    for node, scope in holders.scopes.augmented:
        names = sorted(holders.held[id(scope.node), node.id] - {OTHER, *GROUPS})
        if names:
            raise Refusal("E13", f"the constant {shown(names[0])} would be changed here", node, NEW_VALUE)


def _argument(holders: Holders, use: Use, call: ast.Call) -> bool:
    """Whether a call reads no more than the elements of this argument."""
    if use.whole not in call.args:
        return False
    is_first, is_only = call.args[0] is use.whole, len(call.args) == 1 and not call.keywords
    if isinstance(call.func, ast.Attribute):
        if is_math(call.func) or call.func.attr in ARGUMENTS:
            return True
        # Of a type that has another name, kind.extend(x, y), the first is what is changed.
        return is_only if call.func.attr in ("extend", "update") else call.func.attr == "fromkeys" and is_first
    name = called_name(call)
    if name not in FUNCTIONS or holders.scopes.read_in[id(call.func)].owner(name) is not None:
        return False
    if name in ("filter", "map"):
        return not is_first
    if name in ("max", "min"):  # of several they give one itself
        return len(call.args) == 1
    return name == "zip" or (is_first and name in READERS)


def _is_returned(holders: Holders, use: Use, _: ast.Return) -> bool:
    """Whether nobody but the host gets what is returned: ``reward`` returns it, and the program never calls that."""
    is_own = holders.scopes.read_in[id(use.node)].node is holders.reward
    return is_own and not any(holders.function_of(node) is holders.reward for node, _ in holders.scopes.reads)


def _is_unpacked(_: Holders, use: Use, parent: ast.Dict) -> bool:
    """``{**x}``."""
    return any(key is None and value is use.whole for key, value in zip(parent.keys, parent.values, strict=True))


READS: Mapping[type[ast.AST] | tuple[type[ast.AST], ...], Callable[[Holders, Use, Any], bool]] = {
    ast.Subscript: lambda _, use, parent: parent.value is use.whole and isinstance(parent.ctx, ast.Load),
    ast.Attribute: lambda _, use, parent: parent.attr in READING_METHODS,
    ast.Call: _argument,
    ast.For: lambda _, use, parent: parent.iter is use.whole,
    ast.comprehension: lambda _, use, parent: parent.iter is use.whole or use.whole in parent.ifs,
    ast.Starred: lambda _, use, parent: isinstance(parent.ctx, ast.Load),
    ast.Dict: _is_unpacked,
    ast.Assign: lambda _, use, parent: all(isinstance(target, ast.Tuple | ast.List) for target in parent.targets),
    ast.AugAssign: lambda _, use, parent: parent.value is use.whole,
    (ast.If, ast.While, ast.IfExp, ast.Assert): lambda _, use, parent: parent.test is use.whole,
    (ast.BinOp, ast.Compare, ast.UnaryOp, ast.FormattedValue): lambda _, use, parent: True,
    ast.Return: _is_returned,
}
"""What a collection may be part of, and when: what only reads its elements."""


def sources(node: ast.expr) -> list[ast.expr]:
    """The expressions whose value it may have; a group of fields is never empty, so never what ``and`` stops at."""
    if isinstance(node, ast.BoolOp):
        values = node.values if isinstance(node.op, ast.Or) else node.values[-1:]
        return [source for value in values for source in sources(value)]
    if isinstance(node, ast.IfExp):
        return [*sources(node.body), *sources(node.orelse)]
    return sources(node.value) if isinstance(node, ast.NamedExpr) else [node]


def bound_values(node: ast.AST, parents: Mapping[int, ast.AST]) -> list[ast.expr] | None:
    """What is bound to a name that stands left of ``=`` or ``:=``, or in a loop over a tuple; None = not certain.

    Args:
        node: the name.
        parents: id of a node to what it is part of.
    """
    if not isinstance(node, ast.Name):
        return None
    parent = parents.get(id(node))
    if isinstance(parent, ast.NamedExpr):
        return [parent.value]
    if isinstance(parent, ast.AugAssign):
        return []
    if not isinstance(parent, ast.Tuple | ast.List):
        return _values(parent, node)
    whole = _values(parents.get(id(parent)), parent)
    rows = [_row(value, len(parent.elts)) for value in whole or []]
    if whole is None or _row(parent, len(parent.elts)) is None:
        return None
    index = next(at for at, part in enumerate(parent.elts) if part is node)
    return None if None in rows else [row[index] for row in rows if row is not None]


def _values(statement: ast.AST | None, target: ast.expr) -> list[ast.expr] | None:
    """What a target gets, one after the other."""
    if isinstance(statement, ast.Assign) and target in statement.targets:
        return [statement.value]
    if isinstance(statement, ast.For | ast.comprehension) and statement.target is target:
        rows = statement.iter
        if isinstance(rows, ast.Tuple | ast.List) and not any(isinstance(part, ast.Starred) for part in rows.elts):
            return rows.elts
    return None


def _row(node: ast.expr, num: int) -> list[ast.expr] | None:
    """The elements of a tuple or list of so many plain ones."""
    if not isinstance(node, ast.Tuple | ast.List) or len(node.elts) != num:
        return None
    return None if any(isinstance(part, ast.Starred) for part in node.elts) else node.elts


def is_named(value: ast.expr, parents: Mapping[int, ast.AST]) -> bool:
    """Whether a value goes into names and nowhere else: ``o = obs``, ``for o in (obs, prev_obs)``."""
    node: ast.AST = value
    parent = parents[id(node)]
    while isinstance(parent, ast.Tuple | ast.List):
        node, parent = parent, parents[id(parent)]
    if isinstance(parent, ast.Assign) and parent.value is node:
        targets = parent.targets
    elif isinstance(parent, ast.For | ast.comprehension) and parent.iter is node:
        targets = [parent.target]
    else:
        return False
    return all(any(given is value for given in _given(target, parents)) for target in targets)


def _given(target: ast.expr, parents: Mapping[int, ast.AST]) -> list[ast.expr]:
    """What the names in a target get."""
    return [value for name in ast.walk(target) for value in bound_values(name, parents) or []]


def _is_empty(node: ast.expr) -> bool:
    """Nothing with keys: ``None``, ``0``, ``{}``, ``dict()``."""
    if isinstance(node, ast.Call):
        return called_name(node) == "dict" and not (node.args or node.keywords)
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Dict) and not node.keys)


def _is_named_or_made(node: ast.expr) -> bool:
    """A name, or a dictionary that the program makes."""
    return isinstance(node, ast.Name | ast.Dict | ast.DictComp) or called_name(node) == "dict" or _is_empty(node)
