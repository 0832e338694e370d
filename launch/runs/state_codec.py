"""Nested state as JSON plus named arrays, exact both ways, without pickle.

What JSON cannot say is written as an object with one key that begins with ``$``:

    {"$array": name}   numpy array, kept under ``name``      {"$float": "nan" | "inf" | "-inf"}
    {"$scalar": name}  numpy scalar, likewise                {"$bytes": base64}
    {"$map": [[key, value], ...]}  a mapping whose keys are not all plain strings

Tuples come back as lists. Python integers may be of any size. Names are the dotted path of the array in
the state.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

_ARRAY_KINDS = "biuf"  # bool, signed, unsigned, float: what safetensors can hold


def encode_state(state: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A state as (JSON tree, ``{dotted name: array}``).

    Args:
        state: nested mappings and lists of numpy arrays and scalars, numbers, strings, bytes and None.

    Raises:
        TypeError: a value is of another type; the text names its dotted path.
    """
    arrays: dict[str, np.ndarray] = {}
    return _encode(state, "state", arrays), arrays


def decode_state(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The state of ``encode_state``.

    Raises:
        ValueError: the tree names an array that is missing, or uses an unknown ``$`` word.
    """
    if isinstance(tree, list):
        return [decode_state(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        word, content = next(iter(tree.items()))
        if word.startswith("$"):
            return _decode_special(word, content, arrays)
    return {key: decode_state(value, arrays) for key, value in tree.items()}


def plain_array(array: np.ndarray, path: str) -> np.ndarray:
    """The array in native byte order and C layout, as safetensors wants it.

    Raises:
        TypeError: the dtype cannot be stored.
    """
    if array.dtype.kind not in _ARRAY_KINDS or array.dtype.itemsize > 8:
        raise TypeError(f"{path} has dtype {array.dtype}; a checkpoint holds bool, integer and float arrays")
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _encode(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic):
        return {"$scalar": _keep(np.asarray(value), path, arrays)}
    if isinstance(value, np.ndarray):
        return {"$array": _keep(value, path, arrays)}
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return _encode_mapping(value, path, arrays)
    if isinstance(value, (list, tuple)):
        return [_encode(item, f"{path}.{i}", arrays) for i, item in enumerate(value)]
    raise TypeError(
        f"{path} is a {type(value).__name__}; a checkpoint holds mappings, lists, numpy arrays, numbers, "
        "strings, bytes and None"
    )


def _encode_mapping(value: Mapping[Any, Any], path: str, arrays: dict[str, np.ndarray]) -> Any:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: _encode(inner, f"{path}.{key}", arrays) for key, inner in value.items()}
    return {
        "$map": [
            [_encode(key, f"{path}.key{i}", arrays), _encode(inner, f"{path}.{key}", arrays)]
            for i, (key, inner) in enumerate(value.items())
        ]
    }


def _keep(array: np.ndarray, path: str, arrays: dict[str, np.ndarray]) -> str:
    name, number = path, 1
    while name in arrays:  # {"a": {"b": x}, "a.b": y} would meet
        number += 1
        name = f"{path}#{number}"
    arrays[name] = plain_array(array, path)
    return name


def _decode_special(word: str, content: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if word in ("$array", "$scalar"):
        if content not in arrays:
            raise ValueError(f"the state names array '{content}', which is missing")
        return arrays[content] if word == "$array" else arrays[content][()]
    if word == "$float":
        return float(content)
    if word == "$bytes":
        return base64.b64decode(content)
    if word == "$map":
        return {_hashable(decode_state(k, arrays)): decode_state(v, arrays) for k, v in content}
    raise ValueError(f"the state uses the unknown word '{word}'")


def _hashable(key: Any) -> Any:
    return tuple(_hashable(item) for item in key) if isinstance(key, list) else key
