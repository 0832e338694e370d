"""What there is to set in a configuration: its leaves, and where one class may replace another."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

_MANY = (tuple, list, set, frozenset, dict, Mapping, Sequence)


@dataclass(frozen=True, slots=True)
class Flag:
    """A leaf of the configuration."""

    path: str
    """Dotted, with underscores: ``ppo.learning_rate``."""
    annotation: Any

    @property
    def is_switch(self) -> bool:
        """True or false."""
        return self.annotation is bool

    @property
    def num_values(self) -> int | None:
        """How many values follow the flag; None = any number."""
        for alternative in alternatives(self.annotation):
            origin, inner = get_origin(alternative) or alternative, get_args(alternative)
            if origin is tuple and inner and inner[-1] is not Ellipsis:
                return len(inner)
            if origin in _MANY:
                return None
        return 1


def flags(value: Any, path: str = "", annotation: Any = None) -> Iterator[Flag]:
    """The leaves of a configuration, in the order of its fields."""
    if isinstance(value, BaseModel):
        hints = get_type_hints(type(value))
        for name, field in type(value).model_fields.items():
            known_as = field.alias or name
            yield from flags(getattr(value, name), f"{path}.{known_as}" if path else known_as, hints[name])
    elif children := _children(value):
        inner = get_args(alternatives(annotation)[0])
        for key, child in children.items():
            yield from flags(child, f"{path}.{key}", inner[-1] if inner else None)
    else:
        yield Flag(path, annotation)


def _children(value: Any) -> Mapping[Any, Any]:
    """What is set one by one: the entries of a mapping, and the configurations in a sequence by index."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (tuple, list)) and all(isinstance(v, BaseModel) for v in value):
        return dict(enumerate(value))
    return {}


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, ``Annotated`` taken off; the annotation itself where it is none."""
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(inner for a in get_args(annotation) for inner in alternatives(a))
    return (annotation,)


def variants(annotation: Any) -> dict[str, type[BaseModel]]:
    """``{value of the kind field: class}`` of a union of configuration classes."""
    found = {}
    for member in alternatives(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel) and "kind" in member.model_fields:
            found |= {str(name): member for name in get_args(member.model_fields["kind"].annotation)}
    return found


def unions(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, type[BaseModel]]]]:
    """Every field that may hold one of several configuration classes: its path, and its ``variants``."""
    if isinstance(value, BaseModel):
        for name, annotation in get_type_hints(type(value)).items():
            if name not in type(value).model_fields:
                continue
            inner = f"{path}.{name}" if path else name
            if len(found := variants(annotation)) > 1:
                yield inner, found
            yield from unions(getattr(value, name), inner)
