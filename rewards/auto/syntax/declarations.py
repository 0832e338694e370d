"""The module level of a reward program: what it declares."""

from __future__ import annotations

import ast
import re

from .constants import Constants, bound_depths
from .names import KINDS, MAX_COMPONENT_NAME, MAX_NAME, PARAMETERS
from .refusal import Refusal, shown
from .tree import is_text, parameters_of

COMPONENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)


class ModuleLevel:
    """The statements outside functions: what they declare, by name."""

    def __init__(self, tree: ast.Module, max_components: int) -> None:
        self.functions: dict[str, ast.FunctionDef] = {}
        self.depths: dict[str, int] = {}
        """How many layers of a constant could be changed, if something did."""
        self.default_depths: dict[int, int] = {}
        """The same of defaults, which are constants too, by the node's id."""
        self.tables: set[str | int] = set()
        """Constants, and ids of defaults, that are dicts with plain keys."""
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
        if node.name in self.depths.keys() | self.functions.keys():
            code = "E10" if node.name == "reward" else "E25"
            raise Refusal(code, f"{shown(node.name)} is bound twice", node)
        defaults = Constants(self.depths, self._names, "E26")
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.default_depths[id(default)] = defaults.depth(default)
                if defaults.is_table(default):
                    self.tables.add(id(default))
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
            self.depths[name] = 1
            return
        constants = Constants(self.depths, self._names)
        self.depths[name] = constants.depth(value)
        if constants.is_table(value):
            self.tables.add(name)
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
        depths = bound_depths(target, Constants(self.depths, self._names).depth(value))
        names = [part.id for part in ast.walk(target) if isinstance(part, ast.Name)]
        for name in names:
            self._check_new(node, name)
            if names.count(name) > 1:
                raise Refusal("E25", f"{shown(name)} is bound twice", node)
        if "COMPONENTS" in depths:
            raise Refusal("E14", "COMPONENTS stands in a line of its own", node)
        self.depths.update(depths)

    def _check_new(self, node: ast.stmt, name: str) -> None:
        if name in self.depths.keys() | self.functions.keys():
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
