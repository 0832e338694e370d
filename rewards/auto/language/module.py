"""The module level of a reward program: what it declares, and what its constants may be.

A constant is *plain* where nothing could change it (a number, a text, a range, a tuple or frozenset of such), or a
*collection*: a list, dict or set whose elements are plain. Collections are only read (``read_only``), and since their
elements cannot be changed either, nothing that is read out of one carries over to the next call. Nothing is computed
here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .names import (
    BUILDERS,
    FUNCTIONS,
    ITERATORS,
    KINDS,
    LISTING_METHODS,
    MAX_COMPONENT_NAME,
    MAX_NAME,
    PARAMETERS,
    PLAIN,
    PLAIN_METHODS,
    SET_METHODS,
    SORTING,
    VIEWS,
)  # fmt: skip
from .tree import Refusal, called_name, is_math, is_text, parameters_of, shown

COMPONENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)

ONE_EXPRESSION = "write what it is as one expression, or compute it in a function"
USE_DEF = "write def; functions are called by the name of their def, and are no values outside functions"
USED_UP = "write list(...) or tuple(...) around it"
WRITE_TUPLES = "write tuples within it, ((1, 2), (3, 4)), or a constant for each"
NO_DEFAULT = "write None as the default, and make it in the function"


class Constants:
    """Judges expressions that are evaluated once, when the module is loaded.

    Args:
        known: the constants so far: whether each is a collection.
        functions: names of the program's own functions.
        code: of refusals.
    """

    def __init__(self, known: Mapping[str, bool], functions: Collection[str], code: str = "E13") -> None:
        self._known, self._functions, self._code = known, functions, code

    def is_collection(self, node: ast.expr) -> bool:
        """Whether an expression gives a collection; else it gives something plain.

        Raises:
            Refusal: it is not constant.
        """
        rule = RULES.get(type(node))
        if rule is None:
            raise self._refusal(*REASONS.get(type(node), ("this is not constant", ONE_EXPRESSION)), node)
        return rule(self, node)

    def _refusal(self, reason: str, hint: str, node: ast.AST) -> Refusal:
        return Refusal(self._code, reason, node, hint)

    def _check_plain(self, nodes: list[Any]) -> None:
        """Refuse collections among what is to lie within something, or is not to be handed on."""
        for node in nodes:
            if isinstance(node, ast.Starred):
                self._check_iterated([node.value])
            elif self.is_collection(node):
                raise self._refusal("a list, dict or set lies within another, or is handed on", WRITE_TUPLES, node)

    def _check_iterated(self, nodes: list[Any]) -> None:
        """What is read once, element by element; all elements are plain."""
        for node in nodes:
            if isinstance(node, ast.Starred):
                self._check_iterated([node.value])
            elif isinstance(node, ast.GeneratorExp):
                self._comprehension(node)
            elif isinstance(node, ast.Call) and called_name(node) in ITERATORS:
                calls = called_name(node) in ("filter", "map") and len(node.args) > 1
                if calls and not (isinstance(node.args[0], ast.Name) and node.args[0].id in PLAIN):
                    raise self._refusal("a function is called outside functions", ONE_EXPRESSION, node)
                self._check_iterated(node.args[int(calls) :])
                self._check_plain([keyword.value for keyword in node.keywords])
            else:
                self.is_collection(node)

    def _widest(self, node: ast.AST) -> bool:
        """Whether a part is a collection: what an operator gives holds their elements."""
        return any([self.is_collection(part) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)])

    def _plain(self, node: ast.AST) -> bool:
        self._widest(node)
        return False

    def _choice(self, node: ast.IfExp) -> bool:
        self.is_collection(node.test)
        return any([self.is_collection(node.body), self.is_collection(node.orelse)])

    def _name(self, node: ast.Name) -> bool:
        if node.id in self._known:
            return self._known[node.id]
        if node.id in self._functions or node.id in FUNCTIONS:
            raise self._refusal(f"the function {shown(node.id)} is not constant", USE_DEF, node)
        raise self._refusal(
            f"{shown(node.id)} is not bound above this line", "write what it is before it is used", node
        )

    def _subscript(self, node: ast.Subscript) -> bool:
        is_part = isinstance(node.slice, ast.Slice)
        self._widest(node.slice) if is_part else self.is_collection(node.slice)
        return self.is_collection(node.value) and is_part

    def _display(self, node: ast.Tuple | ast.List | ast.Set) -> bool:
        self._check_plain(node.elts)
        return not isinstance(node, ast.Tuple)

    def _dict(self, node: ast.Dict) -> bool:
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                self._check_iterated([value])
            else:
                self._check_plain([key, value])
        return True

    def _comprehension(self, node: Any) -> bool:
        within = Constants(dict(self._known), self._functions, self._code)
        for generator in node.generators:
            within._check_iterated([generator.iter])
            within._known = {**within._known, **bound_by(generator.target)}
            for test in generator.ifs:
                within.is_collection(test)
        within._check_plain([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])
        return True

    def _attribute(self, node: ast.Attribute) -> bool:
        if not is_math(node):
            raise self._refusal("an attribute is not constant", ONE_EXPRESSION, node)
        return False

    def _call(self, node: ast.Call) -> bool:
        name = called_name(node)
        sorts = name in SORTING
        for keyword in node.keywords:
            if sorts and keyword.arg == "key":
                self._check_function(keyword.value)
            else:
                self._check_plain([keyword.value])
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func)
        if name in ITERATORS:
            raise self._refusal(f"what {name} gives is used up by reading it once", USED_UP, node)
        if name not in PLAIN | BUILDERS | {"max", "min", "sum"}:
            what = f"the function {shown(name)}" if name else "what is called"
            raise self._refusal(f"{what} is called outside functions", ONE_EXPRESSION, node)
        if name == "isinstance":  # what stands second names types
            self._check_iterated(node.args[:1])
        elif name in PLAIN | BUILDERS:
            self._check_iterated(node.args)
        elif len(node.args) == 1 or name == "sum":
            self._check_iterated(node.args[:1])
            self._check_plain(node.args[1:])
        else:
            self._check_plain(node.args)
        return name in BUILDERS and name not in ("tuple", "frozenset")

    def _check_function(self, node: ast.expr) -> None:
        """What may be sorted by: ``len`` and the like, ``counts.get``."""
        if isinstance(node, ast.Attribute) and node.attr == "get":
            self.is_collection(node.value)
        elif not (isinstance(node, ast.Name) and node.id in PLAIN):
            raise self._refusal("a function is called outside functions", ONE_EXPRESSION, node)

    def _method(self, node: ast.Call, func: ast.Attribute) -> bool:
        if is_math(func):
            self._check_iterated(node.args)
            return False
        if isinstance(func.value, ast.Name) and func.value.id in FUNCTIONS:  # dict.fromkeys is all there is
            self._check_iterated(node.args[:1])
            self._check_plain(node.args[1:])
            return True
        self.is_collection(func.value)
        if func.attr in PLAIN_METHODS:
            self._check_iterated(node.args)
            return func.attr in LISTING_METHODS
        if func.attr in VIEWS | SET_METHODS:
            self._check_iterated(node.args)
            return True
        if func.attr == "get":
            self._check_plain(node.args)
            return False
        raise self._refusal(f"the method {shown(func.attr)} is called outside functions", ONE_EXPRESSION, node)


def bound_by(target: ast.expr) -> dict[str, bool]:
    """The names that something with plain elements is unpacked into, and whether each gets a collection."""
    starred = {id(part.value) for part in ast.walk(target) if isinstance(part, ast.Starred)}
    return {part.id: id(part) in starred for part in ast.walk(target) if isinstance(part, ast.Name)}


REASONS: Mapping[type[ast.AST], tuple[str, str]] = {
    ast.Lambda: ("a lambda is a function and not constant", USE_DEF),
    ast.GeneratorExp: ("a generator is used up by reading it once", USED_UP),
    ast.NamedExpr: ("':=' stands outside functions", "write a line of its own"),
}
"""Kinds of expressions that are not constant, why, and what to do."""

RULES: Mapping[type[ast.AST], Callable[[Constants, Any], bool]] = {
    **dict.fromkeys((ast.Constant, ast.JoinedStr, ast.FormattedValue, ast.Compare, ast.UnaryOp), Constants._plain),
    **dict.fromkeys((ast.BinOp, ast.BoolOp), Constants._widest),
    **dict.fromkeys((ast.Tuple, ast.List, ast.Set), Constants._display),
    **dict.fromkeys((ast.ListComp, ast.SetComp, ast.DictComp), Constants._comprehension),
    ast.IfExp: Constants._choice,
    ast.Name: Constants._name,
    ast.Attribute: Constants._attribute,
    ast.Subscript: Constants._subscript,
    ast.Dict: Constants._dict,
    ast.Call: Constants._call,
}
"""Kinds of expressions that may be constant."""


class ModuleLevel:
    """The statements outside functions: what they declare, by name."""

    def __init__(self, tree: ast.Module, max_components: int) -> None:
        self.functions: dict[str, ast.FunctionDef] = {}
        self.constants: dict[str, bool] = {}
        """Whether each is a collection, which something could change."""
        self.texts: dict[str, str] = {}
        """Constants that are texts in quotes."""
        self.components: dict[str, str] = {}
        self._max_components = max_components
        self._names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        for statement in tree.body:
            self._take(statement)
        self._check_reward()

    def _take(self, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef):
            self._function(node)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._constant(node, target, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._constant(node, node.target, node.value)
        elif not (isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and is_text(node.value))):
            raise Refusal("E12", "outside functions stand constants and functions only", node)

    def _function(self, node: ast.FunctionDef) -> None:
        if node.name in self.constants.keys() | self.functions.keys():
            code = "E10" if node.name == "reward" else "E25"
            raise Refusal(code, f"{shown(node.name)} is bound twice", node)
        defaults = Constants(self.constants, self._names, "E26")
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None and defaults.is_collection(default):
                reason = f"a default of {shown(node.name)} is kept, and could be changed"
                raise Refusal("E26", reason, default, NO_DEFAULT)
        self.functions[node.name] = node

    def _constant(self, node: ast.stmt, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._named(node, target.id, value)
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpacked(node, target, value)
        else:
            raise Refusal("E12", "a constant is a plain name, and is written once", node)

    def _named(self, node: ast.stmt, name: str, value: ast.expr) -> None:
        self._check_new(node, name)
        if name == "COMPONENTS":
            self.components = self._declared(value)
            self.constants[name] = True
            return
        self.constants[name] = Constants(self.constants, self._names).is_collection(value)
        text = self._text(value)
        if text is not None:
            self.texts[name] = text

    def _unpacked(self, node: ast.stmt, target: ast.Tuple | ast.List, value: ast.expr) -> None:
        values = value.elts if isinstance(value, ast.Tuple | ast.List) else []
        pairwise = len(values) == len(target.elts)
        if pairwise and not any(isinstance(part, ast.Starred) for part in [*target.elts, *values]):
            for part, of_part in zip(target.elts, values, strict=True):
                self._constant(node, part, of_part)
            return
        for part in ast.walk(target):
            if not isinstance(part, ast.Name | ast.Tuple | ast.List | ast.Starred | ast.Store):
                raise Refusal("E12", "a constant is a plain name, and is written once", node)
        Constants(self.constants, self._names).is_collection(value)
        bound = bound_by(target)
        names = [part.id for part in ast.walk(target) if isinstance(part, ast.Name)]
        for name in names:
            self._check_new(node, name)
            if names.count(name) > 1:
                raise Refusal("E25", f"{shown(name)} is bound twice", node)
        if "COMPONENTS" in bound:
            raise Refusal("E14", "COMPONENTS stands in a line of its own", node)
        self.constants.update(bound)

    def _check_new(self, node: ast.stmt, name: str) -> None:
        if name in self.constants.keys() | self.functions.keys():
            raise Refusal("E14" if name == "COMPONENTS" else "E25", f"{shown(name)} is bound twice", node)

    def _text(self, node: ast.expr | None) -> str | None:
        """A text in quotes, or one that a constant stands for."""
        if isinstance(node, ast.Name):
            return self.texts.get(node.id)
        return str(node.value) if isinstance(node, ast.Constant) and is_text(node) else None

    def _declared(self, value: ast.expr) -> dict[str, str]:
        if not isinstance(value, ast.Dict) or len(value.keys) > self._max_components:
            raise Refusal("E14", f"COMPONENTS is a dict in braces, of at most {self._max_components} components", value)
        components: dict[str, str] = {}
        for key, of_key in zip(value.keys, value.values, strict=True):
            name = self._component(key, value)
            if name in components:
                raise Refusal("E14", f"the component {shown(name)} is declared twice", key)
            components[name] = self._kind(name, of_key)
        return components

    def _component(self, key: ast.expr | None, table: ast.expr) -> str:
        name = self._text(key)
        if name is None:
            raise Refusal("E14", "a component's name is a text in quotes, or a constant that is one", key or table)
        if len(name) > MAX_COMPONENT_NAME:
            raise Refusal("E14", f"a component's name has at most {MAX_COMPONENT_NAME} characters", key)
        if not COMPONENT_NAME.fullmatch(name) or "__" in name:
            hint = "a name such as new_tiles: a letter, then letters, digits and single _"
            raise Refusal("E14", f"the component's name {shown(name)} is more than letters, digits and _", key, hint)
        return name

    def _kind(self, name: str, node: ast.expr) -> str:
        kind = (self._text(node) or "").lower()
        if kind in KINDS:
            return kind
        turned = name.lower() in KINDS and not isinstance(node, ast.Constant | ast.Name)
        hint = 'the other way round: COMPONENTS = {"goal": "sparse"}' if turned else ""
        raise Refusal("E14", f"the component {shown(name)} is neither 'sparse' nor 'dense'", node, hint)

    def _check_reward(self) -> None:
        node = self.functions.get("reward")
        if node is None:
            raise Refusal("E10", "there is no function reward")
        names = tuple(parameter.arg for parameter in node.args.args)
        if names == PARAMETERS and len(parameters_of(node.args)) == len(PARAMETERS):
            return
        listed = ast.unparse(bare(node.args))
        raise Refusal("E11", f"reward takes ({listed[:MAX_NAME]}){excess(node.args)}", node)


def bare(node: ast.arguments) -> ast.arguments:
    """The parameters without annotations and defaults."""

    def plain(parameters: list[ast.arg]) -> list[ast.arg]:
        return [ast.arg(parameter.arg) for parameter in parameters]

    stars = [ast.arg(star.arg) if star else None for star in (node.vararg, node.kwarg)]
    only = plain(node.kwonlyargs)
    return ast.arguments(plain(node.posonlyargs), plain(node.args), stars[0], only, [None] * len(only), stars[1], [])


def excess(node: ast.arguments) -> str:
    """What in a list of parameters is more than plain names."""
    signs = {
        "'/'": node.posonlyargs,
        "'*'": node.kwonlyargs and not node.vararg,
        f"'*{node.vararg.arg[:MAX_NAME]}'" if node.vararg else "": node.vararg,
        f"'**{node.kwarg.arg[:MAX_NAME]}'" if node.kwarg else "": node.kwarg,
    }
    found = [sign for sign, there in signs.items() if there]
    return f": leave out {' and '.join(found)}" if found else ""
