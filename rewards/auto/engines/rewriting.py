"""Rewrites a program so that it can be run fast: fields that it reads by constant keys become plain arguments.

``obs['hp']`` becomes the argument ``__obs_hp__``, so that no dictionary is made for each transition. A group of fields
that is used in any other way (handed on whole, read by keys built at run time, assigned to, shadowed) stays a
dictionary, and a program that does anything unusual with ``reward`` itself stays as it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rewards.auto.engine import EngineError
from rewards.auto.program import Program

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
    whole = without_future(program.source)
    tree = ast.parse(whole)
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
    source = ast.unparse(ast.fix_missing_locations(tree)) if plain else whole
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


def without_future(source: str) -> str:
    """The source with ``pass`` for imports of ``__future__``, which engines need not know; lines stay where they are.

    Raises:
        SyntaxError: it is no Python.
    """
    lines = source.encode().split(b"\n")  # the tree's columns count bytes
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            first, end = node.lineno - 1, node.end_lineno or node.lineno
            before, after = lines[first][: node.col_offset], lines[end - 1][node.end_col_offset :]
            lines[first:end] = [before + b"pass" + after, *[b""] * (end - node.lineno)]
    return b"\n".join(lines).decode()


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
    annotated = function.returns is not None or any(argument.annotation is not None for argument in arguments.args)
    return None if any(extra) or annotated or len(arguments.args) != len(GROUPS) else function


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
