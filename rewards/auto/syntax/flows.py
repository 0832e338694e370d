"""Where constants go, so that nothing changes them: what is kept in a constant would be kept between calls.

Followed is what every name of every function may stand for, whatever the order of the lines, until nothing new comes
up. Whatever is put into something that is there already may turn up wherever something is taken out of anything. A
function that is used as a value may be called with whatever such functions are called with.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .declarations import ModuleLevel
from .names import FUNCTIONS
from .refusal import Refusal, shown
from .results import (
    BUILDERS,
    CHANGED_IN_PLACE,
    COPYING_METHODS,
    PLAIN,
    PLAIN_METHODS,
    READING_METHODS,
    SORTING,
    VIEWING_METHODS,
    called_math,
    is_float,
    is_number,
)
from .scopes import COMPREHENSIONS, Scope, Scopes
from .tree import parameters_of
from .values import (
    A_FUNCTION,
    CLEAN,
    FUNCTION_VALUE,
    KINDS,
    PAIRS,
    TABLE,
    Parts,
    Value,
    collected,
    constant,
    joined,
)

MAX_ROUNDS = 100

Named = list[tuple[str | None, Value]]
"""Arguments by name; without one: elements of ``**x``."""

COPY = "change a copy under a name of its own: list(x), dict(x); of what lies within a constant too"
NEW_VALUE = "write x = x + y, which makes a new value"
NO_DEFAULT = "write None as the default, and make it in the function"


def check_constants(tree: ast.Module, scopes: Scopes, module: ModuleLevel) -> None:
    """Refuse what could change a constant, or the default of a parameter.

    Raises:
        Refusal: something could.
    """
    if any(module.depths.values()) or any(module.default_depths.values()):
        Flows(tree, scopes, module).check()


class Flows:
    """What names stand for, and what functions give back."""

    def __init__(self, tree: ast.Module, scopes: Scopes, module: ModuleLevel) -> None:
        self._scopes, self._module = scopes, module
        self._functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        self._values: dict[object, Value] = {}
        """Of names, by their scope, and of what functions give back, by their node."""
        self._stored = CLEAN
        """Holds what is put into something that is there already."""
        self._handed = CLEAN
        """What functions that are values may be called with."""
        self._given = CLEAN
        """What they may give back."""
        self._current: ast.FunctionDef | None = None
        self._loose = self._used_as_values()
        self._fields = self._own_groups()

    def check(self) -> None:
        """Follow everything.

        Raises:
            Refusal: a constant could be changed.
        """
        for _ in range(MAX_ROUNDS):
            before = self._state()
            for node in self._functions:
                self._define(node)
            if self._state() == before:
                return
        raise Refusal("E06", f"where constants go is not found out in {MAX_ROUNDS} rounds")

    def _state(self) -> tuple[object, ...]:
        return dict(self._values), self._stored, self._handed, self._given

    def _used_as_values(self) -> set[ast.AST]:
        """The functions with a name that is read in another way than to call them, or that is not theirs alone."""
        found: set[ast.AST] = set()
        for node, scope in self._scopes.reads:
            owner = scope.owner(node.id)
            bound = owner.bound[node.id] if owner else []
            call = self._scopes.parents.get(id(node))
            if len(bound) > 1 or not (isinstance(call, ast.Call) and call.func is node):
                found.update(binder for binder in bound if isinstance(binder, ast.FunctionDef))
        return found

    def _own_groups(self) -> set[tuple[Scope | None, str]]:
        """The parameters of ``reward`` of which only fields are read, which are numbers and texts."""
        reward = self._module.functions["reward"]
        bound = {(self._scopes.bound_in[id(parameter)], parameter.arg) for parameter in parameters_of(reward.args)}
        found: set[tuple[Scope | None, str]] = {place for place in bound if len(place[0].bound[place[1]]) == 1}
        for node, scope in self._scopes.reads:
            if node.id == "reward":
                return set()
            if not isinstance(self._scopes.parents.get(id(node)), ast.Subscript | ast.Attribute | ast.Compare):
                found.discard((scope.owner(node.id), node.id))
        return found

    def _add(self, key: object, value: Value) -> None:
        self._values[key] = joined([self._values.get(key, CLEAN), value])

    def _store(self, parts: Parts) -> None:
        self._stored = Value(holds=self._stored.holds | parts)

    def _hand(self, value: Value) -> None:
        self._handed = joined([self._handed, value])

    def _element(self, value: Value) -> Value:
        """What may be read out of something."""
        return Value(value.within | self._stored.holds, value.holds | self._stored.holds)

    def _change(self, value: Value, node: ast.AST, hint: str = COPY) -> None:
        """Refuse to change what may be a constant."""
        names = sorted(name for name, *_ in value.itself if name != FUNCTION_VALUE)
        if not names:
            return
        function, _, parameter = names[0].partition(".")
        if parameter:
            what = f"the default of {shown(parameter)} in {shown(function)} may be changed here, and is kept"
            raise Refusal("E26", what, node, NO_DEFAULT)
        raise Refusal("E13", f"the constant {shown(function)}, or what lies within it, may be changed here", node, hint)

    # Functions

    def _define(self, node: ast.FunctionDef) -> None:
        self._parameters(node)
        outer, self._current = self._current, node
        self._lines(node.body)
        self._current = outer

    def _parameters(self, node: ast.FunctionDef | ast.Lambda) -> None:
        arguments = node.args
        plain = [*arguments.posonlyargs, *arguments.args]
        defaulted = plain[len(plain) - len(arguments.defaults) :]
        pairs = [*zip(defaulted, arguments.defaults, strict=True)]
        pairs += [
            (parameter, default)
            for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if default is not None
        ]
        for parameter, default in pairs:
            self._bind(parameter, self._default(node, parameter, default))
        if isinstance(node, ast.Lambda) or node in self._loose:
            for parameter in [*plain, *arguments.kwonlyargs]:
                self._bind(parameter, self._handed)
            self._bind_rest(arguments, self._handed)

    def _default(self, node: ast.FunctionDef | ast.Lambda, parameter: ast.arg, default: ast.expr) -> Value:
        if id(default) not in self._module.default_depths:
            return self._value(default)
        depth = self._module.default_depths[id(default)]
        name = default.id if isinstance(default, ast.Name) else f"{getattr(node, 'name', '')}.{parameter.arg}"
        return constant(name, depth, is_table=bool(self._module.tables & {name, id(default)}))

    def _bind_rest(self, arguments: ast.arguments, value: Value) -> None:
        for star in (arguments.vararg, arguments.kwarg):
            if star is not None:
                self._bind(star, collected([value]))

    def _bind(self, node: ast.AST, value: Value) -> None:
        """A name, by what binds it."""
        name = getattr(node, "id", None) or getattr(node, "arg", None) or getattr(node, "name", None)
        name = name or getattr(node, "rest", None)
        self._add((self._scopes.bound_in[id(node)], name), value)

    # Statements

    def _lines(self, nodes: Iterable[ast.stmt]) -> None:
        for node in nodes:
            rule = STATEMENTS.get(type(node))
            if rule is None:
                self._inside(node)
            else:
                rule(self, node)

    def _inside(self, node: ast.AST) -> None:
        """Whatever a node is made of."""
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.stmt):
                self._lines([part])
            elif isinstance(part, ast.expr):
                self._value(part)
            else:
                self._inside(part)

    def _assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._unpack(target, node.value)

    def _annotated(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._unpack(node.target, node.value)

    def _unpack(self, target: ast.expr, value: ast.expr) -> None:
        """Targets and values side by side where they are written so."""
        if isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
            parts = [*target.elts, *value.elts]
            if len(target.elts) == len(value.elts) and not any(isinstance(part, ast.Starred) for part in parts):
                for one, other in zip(target.elts, value.elts, strict=True):
                    self._unpack(one, other)
                return
        self._target(target, self._value(value))

    def _target(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self._bind(target, value)
        elif isinstance(target, ast.Tuple | ast.List):
            some = value.read
            for part in target.elts:
                starred = isinstance(part, ast.Starred)
                self._target(part.value if starred else part, some.copy if starred else self._element(some))
        else:
            self._inside(target)
            self._change(self._base(target), target)
            self._store(value.everything)

    def _base(self, target: ast.expr) -> Value:
        """What a part is put into, or taken from."""
        return self._value(target.value) if isinstance(target, ast.Subscript | ast.Attribute) else CLEAN

    def _augmented(self, node: ast.AugAssign) -> None:
        right = self._value(node.value)
        number = is_float(node.value) or (is_number(node.value) and not isinstance(node.op, ast.Mult))
        in_place = isinstance(node.op, CHANGED_IN_PLACE) and not number
        self._store(right.within)
        if isinstance(node.target, ast.Name):
            old = self._values.get((self._scopes.bound_in[id(node.target)], node.target.id), CLEAN)
            self._bind(node.target, Value(holds=old.within | right.within))
        else:
            self._inside(node.target)
            base = self._base(node.target)
            self._change(base, node)
            old = self._element(base)
        if in_place:
            self._change(old, node, NEW_VALUE)

    def _delete(self, node: ast.Delete) -> None:
        for part in ast.walk(node):
            if isinstance(part, ast.Subscript) and isinstance(part.ctx, ast.Del):
                self._change(self._base(part), part)

    def _for(self, node: ast.For) -> None:
        self._each(node.target, node.iter)
        self._lines([*node.body, *node.orelse])

    def _each(self, target: ast.expr, over: ast.expr) -> None:
        """The target of a loop."""
        value = self._value(over).read
        if isinstance(target, ast.Tuple) and len(target.elts) == 2:
            others = Value(frozenset(part for part in value.itself if part[2] != PAIRS), value.holds)
            parts = [self._element(self._element(some)) for some in (others, value)]
            if not any(isinstance(part, ast.Starred) for part in target.elts):
                for part, some in zip(target.elts, parts, strict=True):
                    self._target(part, some)
                return
        self._target(target, self._element(value))

    def _return(self, node: ast.Return) -> None:
        value = CLEAN if node.value is None else self._value(node.value)
        self._add(self._current, value)
        if self._current in self._loose:
            self._given = joined([self._given, value])

    def _match(self, node: ast.Match) -> None:
        value = self._value(node.subject)
        for case in node.cases:
            self._capture(case.pattern, value)
            if case.guard is not None:
                self._value(case.guard)
            self._lines(case.body)

    def _capture(self, pattern: ast.pattern, value: Value) -> None:
        """The names that a pattern binds."""
        whole = isinstance(pattern, ast.MatchAs | ast.MatchOr | ast.MatchClass)
        rest = isinstance(pattern, ast.MatchStar | ast.MatchMapping)
        if id(pattern) in self._scopes.bound_in:
            self._bind(pattern, value.copy if rest else value)
        for part in ast.iter_child_nodes(pattern):
            if isinstance(part, ast.MatchStar):
                self._capture(part, value)
            elif isinstance(part, ast.pattern):
                self._capture(part, value if whole else self._element(value))
            elif isinstance(part, ast.expr):
                self._value(part)

    # Expressions

    def _value(self, node: ast.expr) -> Value:
        rule = EXPRESSIONS.get(type(node))
        if rule is not None:
            return rule(self, node)
        parts = [self._value(part) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
        return Value(joined(parts).everything, joined(parts).everything)

    def _plain(self, node: ast.expr) -> Value:
        self._inside(node)
        return CLEAN

    def _name(self, node: ast.Name) -> Value:
        owner = self._scopes.read_in[id(node)].owner(node.id) if id(node) in self._scopes.read_in else None
        if owner is None:
            return A_FUNCTION if node.id in FUNCTIONS else CLEAN
        if owner is self._scopes.module:
            return constant(node.id, self._module.depths.get(node.id, 0), is_table=node.id in self._module.tables)
        return self._values.get((owner, node.id), CLEAN)

    def _either(self, node: ast.BoolOp) -> Value:
        return joined([self._value(part) for part in node.values])

    def _choice(self, node: ast.IfExp) -> Value:
        self._value(node.test)
        return joined([self._value(node.body), self._value(node.orelse)])

    def _walrus(self, node: ast.NamedExpr) -> Value:
        value = self._value(node.value)
        self._bind(node.target, value)
        return value

    def _operation(self, node: ast.BinOp) -> Value:
        return joined([self._value(node.left).copy, self._value(node.right).copy])

    def _display(self, node: ast.Tuple | ast.List | ast.Set) -> Value:
        return joined(self._part(part) for part in node.elts)

    def _part(self, node: ast.expr) -> Value:
        """Something new that holds this, or its elements."""
        if isinstance(node, ast.Starred):
            return self._value(node.value).read.copy
        return collected([self._value(node)])

    def _dict(self, node: ast.Dict) -> Value:
        keys = [collected([self._value(key)]) for key in node.keys if key is not None]
        return joined([
            *keys,
            *(
                self._value(part).copy if key is None else collected([self._value(part)])
                for key, part in zip(node.keys, node.values, strict=True)
            ),
        ])  # fmt: skip

    def _comprehension(self, node: Any) -> Value:
        for generator in node.generators:
            self._each(generator.target, generator.iter)
            for test in generator.ifs:
                self._value(test)
        made = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        return collected([self._value(part) for part in made])

    def _subscript(self, node: ast.Subscript) -> Value:
        value = self._value(node.value)
        if isinstance(node.slice, ast.Slice):
            self._inside(node.slice)
            return value.copy
        self._value(node.slice)
        return CLEAN if self._is_fields(node.value) else self._element(value)

    def _is_fields(self, node: ast.expr) -> bool:
        if not isinstance(node, ast.Name) or id(node) not in self._scopes.read_in:
            return False
        return (self._scopes.read_in[id(node)].owner(node.id), node.id) in self._fields

    def _lambda(self, node: ast.Lambda) -> Value:
        self._parameters(node)
        self._given = joined([self._given, self._value(node.body)])
        return CLEAN

    # Calls

    def _call(self, node: ast.Call) -> Value:
        given = [
            self._element(self._value(part.value).read) if isinstance(part, ast.Starred) else self._value(part)
            for part in node.args
        ]
        by_name = [
            (part.arg, self._value(part.value) if part.arg else self._element(self._value(part.value)))
            for part in node.keywords
        ]
        named = joined(value for _, value in by_name)
        if called_math(node):
            return named
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func, given, by_name)
        if isinstance(node.func, ast.Name):
            owner = self._scopes.read_in[id(node.func)].owner(node.func.id)
            if owner is None:
                return self._builtin(node, node.func.id, given, by_name)
            bound = owner.bound[node.func.id]
            if len(bound) == 1 and isinstance(bound[0], ast.FunctionDef):
                self._pass(bound[0], given, by_name, anywhere=any(isinstance(part, ast.Starred) for part in node.args))
                return self._values.get(bound[0], CLEAN)
        self._value(node.func)
        return self._anything([*given, named])

    def _pass(self, target: ast.FunctionDef, given: list[Value], by_name: Named, *, anywhere: bool) -> None:
        """Hand arguments to a function of the program; ``anywhere``: any to any parameter."""
        arguments = target.args
        plain = [*arguments.posonlyargs, *arguments.args]
        for index, value in enumerate(given):
            for parameter in plain if anywhere else plain[index : index + 1]:
                self._bind(parameter, value)
        for name, value in by_name:
            for parameter in [*plain, *arguments.kwonlyargs]:
                if name is None or name == parameter.arg:
                    self._bind(parameter, value)
        self._bind_rest(arguments, joined([*given, *(value for _, value in by_name)]))

    def _anything(self, given: list[Value]) -> Value:
        """A call of what may be any function."""
        some = joined(given)
        self._hand(Value(some.everything, some.holds))
        parts = some.everything | some.within | self._stored.holds | self._given.everything
        return Value(parts, parts)

    def _builtin(self, node: ast.Call, name: str, given: list[Value], by_name: Named) -> Value:
        read = [value.read for value in given]
        elements = [self._element(value) for value in read]
        named = joined(value for part, value in by_name if not (part == "key" and name in SORTING))
        if name in ("filter", "map"):
            self._hand(joined(elements[1:]))
        elif name in SORTING and any(part == "key" for part, _ in by_name):
            self._hand(joined(elements if name == "sorted" else [*given, *elements]))
        single = len(node.args) == 1 and not isinstance(node.args[0], ast.Starred)
        if name in PLAIN or (name == "sum" and single and not node.keywords):
            return CLEAN
        if name in BUILDERS:
            return joined([*(value.copy for value in (given if name == "dict" else read)), collected([named])])
        if name == "map":
            return collected([*elements[1:], self._given])
        if name in ("filter", "reversed"):
            return joined(read[name == "filter" :])
        if name in ("enumerate", "zip"):
            return joined(value.view(*(KINDS if name == "enumerate" else ())) for value in read)
        if name in ("max", "min"):
            return joined([*elements, named] if single else [*given, *elements, named])
        if name == "next":
            return joined([*elements, *given[1:]])
        if name == "sum":
            return joined([*given, *elements, named])
        return joined([A_FUNCTION, self._anything([*given, named])])

    def _method(self, node: ast.Call, func: ast.Attribute, given: list[Value], by_name: Named) -> Value:
        named = joined(value for part, value in by_name if not (part == "key" and func.attr == "sort"))
        if isinstance(func.value, ast.Name) and func.value.id in FUNCTIONS:  # dict.fromkeys is all there is of these
            return joined([*(value.copy for value in given[:1]), collected([*given[1:], named])])
        base, some = self._value(func.value), joined([*given, named])
        if func.attr not in READING_METHODS:
            self._change(base, node)
        if any(name == FUNCTION_VALUE for name, *_ in base.itself):
            raise Refusal("E22", "methods are called on values, not on types and functions", func)
        if func.attr in PLAIN_METHODS:
            return CLEAN
        if func.attr in VIEWING_METHODS:
            listed = base.read if func.attr == "keys" else base
            return listed.view(*((TABLE,) if func.attr == "items" else ()))
        if func.attr in COPYING_METHODS:
            return joined([base.copy, some.copy])
        element = CLEAN if self._is_fields(func.value) else self._element(base)
        if func.attr == "get":
            return joined([element, some])
        self._store(joined([*(value.copy for value in given), collected([named])]).holds
                    if func.attr in ("extend", "update") else some.everything)  # fmt: skip
        if func.attr == "sort":
            self._hand(element)
        return joined([element, some])


STATEMENTS: Mapping[type[ast.AST], Callable[[Flows, Any], None]] = {
    ast.FunctionDef: Flows._define,
    ast.Assign: Flows._assign,
    ast.AnnAssign: Flows._annotated,
    ast.AugAssign: Flows._augmented,
    ast.Delete: Flows._delete,
    ast.For: Flows._for,
    ast.Return: Flows._return,
    ast.Match: Flows._match,
}
"""Statements that bind names, give back values, or change something; of others the parts are followed."""

EXPRESSIONS: Mapping[type[ast.AST], Callable[[Flows, Any], Value]] = {
    **dict.fromkeys((ast.Constant, ast.JoinedStr, ast.FormattedValue, ast.Compare, ast.UnaryOp), Flows._plain),
    **dict.fromkeys(COMPREHENSIONS, Flows._comprehension),
    **dict.fromkeys((ast.Tuple, ast.List, ast.Set), Flows._display),
    ast.Name: Flows._name,
    ast.BoolOp: Flows._either,
    ast.IfExp: Flows._choice,
    ast.NamedExpr: Flows._walrus,
    ast.BinOp: Flows._operation,
    ast.Dict: Flows._dict,
    ast.Subscript: Flows._subscript,
    ast.Lambda: Flows._lambda,
    ast.Call: Flows._call,
}
"""What each kind of expression may give; of others, whatever its parts may be."""
