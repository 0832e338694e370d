"""Rewrites a program so that it can be run fast: fields that it reads by constant keys become plain arguments.

``obs['hp']`` becomes the argument ``__obs_hp__``, so that no dictionary is made for each transition. A group of fields
that is used in any other way (handed on whole, read by keys built at run time, assigned to, shadowed) stays a
dictionary, and a program that does anything unusual with ``reward`` itself stays as it is.

Before that goes what nothing needs (``rewards.auto.language.needless``: annotations, imports, ...), and what Monty
lacks is said in other words: ``key=counts.get``, ``next`` of a generator, exceptions of anything but one text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rewards.auto.language.needless import Needless
from rewards.auto.language.rules import is_lookup, is_next
from rewards.auto.program import Program
from rewards.auto.sandbox.engine import EngineError

FUNCTION = "reward"
GROUPS: tuple[str, ...] = ("obs", "prev_obs", "action", "info")
"""What the function's parameters stand for, in their order."""

_MAX_ARGUMENTS = 100
"""With more fields a dictionary costs no more than arguments."""


@dataclass(frozen=True)
class Parameter:
    """One argument of the function that is called for each transition."""

    columns: tuple[str, ...]
    """Qualified columns that go into it."""
    is_group: bool
    """Whether they go in as a dictionary of fields; else it is one column."""

    def written(self, cells: Mapping[str, str]) -> str:
        """The argument in source code, given that of the value of each column."""
        if not self.is_group:
            return cells[self.columns[0]] if self.columns else "None"
        fields = (f"{column.rpartition('.')[2]!r}: {cells[column]}" for column in self.columns)
        return "{" + ", ".join(fields) + "}"


@dataclass(frozen=True)
class Plan:
    """How a program is run: source code that defines ``FUNCTION``, and what it is called with."""

    source: str
    parameters: tuple[Parameter, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Qualified columns that it needs, each once."""
        return tuple(dict.fromkeys(column for parameter in self.parameters for column in parameter.columns))


def plan_of(program: Program) -> Plan:
    """The fastest way to run a program that gives the same values.

    Raises:
        SyntaxError: the source is no Python, so it was never admitted.
    """
    tree, is_changed = _sayable(program.source)
    function = _function(tree)
    plain = frozenset[str]() if function is None else _plain_groups(function, program)
    if function is not None and plain:
        names: dict[str, ast.arg] = dict(zip(GROUPS, function.args.args, strict=True))
        groups = {names[group].arg: group for group in plain}
        _Flatten(groups).visit(function)
        kept = [names[group] if group not in plain else None for group in GROUPS]
        arguments = [
            [argument] if argument is not None else [ast.arg(_argument(c)) for c in _columns(program, group)]
            for group, argument in zip(GROUPS, kept, strict=True)
        ]
        function.args.args = [argument for of_group in arguments for argument in of_group]
    source = ast.unparse(ast.fix_missing_locations(tree)) if plain or is_changed else program.source
    return Plan(source, tuple(p for group in GROUPS for p in _parameters(program, group, plain)))


def readable_plan(program: Program) -> Plan:
    """The same for engines, which say in their own way what cannot be read.

    Raises:
        EngineError: the source is no Python, or nested too deeply.
    """
    try:
        return plan_of(program)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise EngineError(f"the program cannot be read: {error}") from error


def _sayable(source: str) -> tuple[ast.Module, bool]:
    """The tree in words that every engine knows, and whether it differs from the source."""
    tree = ast.parse(source)
    needless, words = Needless(tree), _OtherWords()
    tree = words.visit(needless.taken_out())
    return tree, needless.changed or words.changed


class _OtherWords(ast.NodeTransformer):
    """Says what Monty lacks in other words, which mean the same to Python."""

    def __init__(self) -> None:
        self.changed = False

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        """``key=counts.get``: methods are no values."""
        self.generic_visit(node)
        if is_lookup(node):
            self.changed = True
            parameter = ast.arguments([], [ast.arg("__key__")], None, [], [], None, [])
            node.value = ast.Lambda(parameter, ast.Call(node.value, [ast.Name("__key__", ast.Load())], []))
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """``next(x for x in xs)``: generators are lists."""
        self.generic_visit(node)
        if not (isinstance(node.func, ast.Name) and node.func.id == "next" and is_next(node)):
            return node
        self.changed = True
        found = ast.List([ast.Starred(node.args[0], ast.Load()), node.args[1]], ast.Load())
        return ast.Subscript(found, ast.Constant(0), ast.Load())

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """``raise KeyError(3)``: what is no text ends the whole batch."""
        self.generic_visit(node)
        call = node.exc
        if isinstance(call, ast.Call) and call.args and not (len(call.args) == 1 and _is_surely_text(call.args[0])):
            self.changed = True
            is_one = len(call.args) == 1 and not isinstance(call.args[0], ast.Starred)
            what = call.args[0] if is_one else ast.Tuple(call.args, ast.Load())
            call.args = [ast.BinOp(ast.Constant("%s"), ast.Mod(), ast.Tuple([what], ast.Load()))]
        return node


def _is_surely_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _columns(program: Program, group: str) -> tuple[str, ...]:
    return tuple(column for column in program.needed_columns if column.rpartition(".")[0] == group)


def _parameters(program: Program, group: str, plain: frozenset[str]) -> Iterable[Parameter]:
    if group == "action":
        return [Parameter(("action",) if "action" in program.needed_columns else (), is_group=False)]
    if group in plain:
        return [Parameter((column,), is_group=False) for column in _columns(program, group)]
    return [Parameter(_columns(program, group), is_group=True)]


def _argument(column: str) -> str:
    return f"__{column.replace('.', '_')}__"  # no program may use names like this


def _function(tree: ast.Module) -> ast.FunctionDef | None:
    """``FUNCTION``, where there is one, with four plain parameters, and nothing else speaks of it."""
    found = [node for node in ast.walk(tree) if FUNCTION in _identifiers(node)]
    function = found[0] if len(found) == 1 else None
    if not isinstance(function, ast.FunctionDef) or function not in tree.body or function.decorator_list:
        return None
    arguments = function.args
    extra = (arguments.posonlyargs, arguments.kwonlyargs, arguments.vararg, arguments.kwarg, arguments.defaults)
    return None if any(extra) or len(arguments.args) != len(GROUPS) else function


def _identifiers(node: ast.AST) -> set[str]:
    """Every identifier that a node itself holds."""
    if isinstance(node, ast.Constant):
        return set()
    held = [value for _, value in ast.iter_fields(node)]
    flat = [item for value in held for item in (value if isinstance(value, list) else [value])]
    return {item for item in flat if isinstance(item, str)}


def _plain_groups(function: ast.FunctionDef, program: Program) -> frozenset[str]:
    """Groups of which nothing but constant fields is read, in this function and those inside it."""
    groups = {argument.arg: group for argument, group in zip(function.args.args, GROUPS, strict=True)}
    groups = {name: group for name, group in groups.items() if group != "action"}
    reads = [node for node in ast.walk(function) if _field(node, groups, program.columns) is not None]
    accounted = {id(node.value) for node in reads if isinstance(node, ast.Subscript)}
    accounted |= {id(argument) for argument in function.args.args}
    other = {
        groups[name]
        for node in ast.walk(function)
        if id(node) not in accounted
        for name in _identifiers(node) & groups.keys()
    }
    plain = frozenset(groups.values()) - other
    total = sum(len(_columns(program, group)) for group in plain)
    return plain if total <= _MAX_ARGUMENTS else frozenset()


def _field(node: ast.AST, groups: Mapping[str, str], columns: Iterable[str]) -> str | None:
    """The column that a node reads as ``group['field']``, if it does just that."""
    match node:
        case ast.Subscript(ast.Name(name, ast.Load()), ast.Constant(str(field)), ast.Load()) if name in groups:
            column = f"{groups[name]}.{field}"
            return column if column in columns else None
    return None


class _Flatten(ast.NodeTransformer):
    """Puts the argument of a column where the column is read."""

    def __init__(self, groups: Mapping[str, str]) -> None:
        self._groups = groups

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        match node:
            case ast.Subscript(ast.Name(name), ast.Constant(str(field))) if name in self._groups:
                return ast.Name(_argument(f"{self._groups[name]}.{field}"), ast.Load())
        return self.generic_visit(node)
