"""The module level of a reward program: what it declares."""

from __future__ import annotations

import ast
import re

from .literals import is_collection, is_frozen
from .names import KINDS, MAX_COMPONENT_NAME, MAX_NAME, PARAMETERS
from .refusal import Refusal, shown
from .tree import is_text, parameters_of

COMPONENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)


class ModuleLevel:
    """The statements outside functions: what they declare, by name."""

    def __init__(self, tree: ast.Module, max_components: int) -> None:
        self.functions: dict[str, ast.FunctionDef] = {}
        self.frozen: set[str] = set()
        """Constants that cannot change."""
        self.collections: set[str] = set()
        """Constants that nothing may change."""
        self.components: dict[str, str] = {}
        self._max_components = max_components
        for statement in tree.body:
            self._take(statement)
        self._check_reward()

    def _take(self, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef):
            if node.name in self.frozen | self.collections | self.functions.keys():
                code = "E10" if node.name == "reward" else "E25"
                raise Refusal(code, f"{shown(node.name)} is bound twice", node)
            self.functions[node.name] = node
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            self._constant(node, node.targets[0], node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._constant(node, node.target, node.value)
        elif not (isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and is_text(node.value))):
            raise Refusal("E12", "outside functions stand constants and functions only", node)

    def _constant(self, node: ast.stmt, target: ast.expr, value: ast.expr) -> None:
        if not isinstance(target, ast.Name):
            raise Refusal("E12", "a constant is one plain name", node)
        name = target.id
        if name in self.frozen | self.collections | self.functions.keys():
            raise Refusal("E14" if name == "COMPONENTS" else "E25", f"{shown(name)} is bound twice", node)
        if name == "COMPONENTS":
            self.components = self._declared(value)
            self.collections.add(name)
        elif is_frozen(value, self.frozen):
            self.frozen.add(name)
        elif is_collection(value, self.frozen):
            self.collections.add(name)
        else:
            raise Refusal("E13", f"{shown(name)} is not constant", node)

    def _declared(self, value: ast.expr) -> dict[str, str]:
        if not isinstance(value, ast.Dict) or len(value.keys) > self._max_components:
            raise Refusal("E14", f"COMPONENTS is a dict of at most {self._max_components} components", value)
        components: dict[str, str] = {}
        for key, kind in zip(value.keys, value.values, strict=True):
            name = key.value if isinstance(key, ast.Constant) else None
            if not (isinstance(name, str) and COMPONENT_NAME.fullmatch(name) and len(name) <= MAX_COMPONENT_NAME):
                raise Refusal("E14", f"a component's name is at most {MAX_COMPONENT_NAME} letters", key or value)
            if "__" in name or name in components:
                raise Refusal("E14", f"the component {shown(name)} is declared twice or not a plain name", key)
            if not (isinstance(kind, ast.Constant) and kind.value in KINDS):
                raise Refusal("E14", f"the component {shown(name)} is 'sparse' or 'dense'", kind)
            components[name] = str(kind.value)
        return components

    def _check_reward(self) -> None:
        node = self.functions.get("reward")
        if node is None:
            raise Refusal("E10", "there is no function reward")
        plain = [parameter.arg for parameter in node.args.args]
        if tuple(plain) != PARAMETERS or len(parameters_of(node.args)) != len(PARAMETERS) or node.args.defaults:
            raise Refusal("E11", f"reward takes ({', '.join(plain)[:MAX_NAME]})", node)
