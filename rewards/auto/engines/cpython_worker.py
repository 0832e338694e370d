"""Runs reward programs in Python itself; the process is locked in, for within Python everything can be reached.

Started by ``jail_exec.py``, it needs nothing but the standard library and imports nothing of this package. It reads
messages from standard input and writes one for each to standard output. A message is two little-endian integers of
eight bytes, the length of its header and of its whole, then the header, which is JSON, then the parts that the header
names. Nothing is pickled.

A request names the program's source, the loop's, how the loop is called, its inputs (``[name, form, bytes]``) and the
limits; an answer has the loop's values. A form is ``bytes``, ``json`` or ``d`` (float64).
"""

from __future__ import annotations

import array
import builtins
import json
import math
import signal
import sys
from collections.abc import Callable, Sequence
from types import CodeType, ModuleType
from typing import Any, BinaryIO

_ALLOWED = (
    "abs", "all", "any", "bool", "dict", "divmod", "enumerate", "filter", "float", "frozenset", "int", "isinstance",
    "len", "list", "map", "max", "min", "next", "iter", "ord", "chr", "pow", "range", "repr", "reversed", "round",
    "set", "slice", "sorted", "str", "sum", "tuple", "zip",
    "ArithmeticError", "AssertionError", "AttributeError", "Exception", "FloatingPointError", "IndexError", "KeyError",
    "LookupError", "NameError", "NotImplementedError", "OverflowError", "RecursionError", "RuntimeError",
    "StopIteration", "TypeError", "UnboundLocalError", "ValueError", "ZeroDivisionError",
)  # fmt: skip
"""Builtins that a program is given."""

_IMPORTABLE = ("math", "typing", "_pylong")
"""What a program may import, and what the interpreter itself imports where a program adds types up or divides huge
integers; all of it is loaded when the program begins."""

_PRINTS = ("print",)
"""Builtins that do nothing."""

_LOOP_ALLOWED = (*_ALLOWED, "type", "BaseException", "MemoryError")

_MOST_BITS = 4096
"""Longest integer that is handed back."""

_FRAMES = 8
"""Frames of this file and of the loop that lie below a program."""


def read_message(source: BinaryIO) -> tuple[dict[str, Any], memoryview] | None:
    """A header and the bytes of its parts; None at the end."""
    lengths = source.read(16)
    if len(lengths) < 16:
        return None
    header, whole = (int.from_bytes(lengths[at : at + 8], "little") for at in (0, 8))
    body = source.read(whole)
    return json.loads(body[:header]), memoryview(body)[header:]


def write_message(sink: BinaryIO, header: dict[str, Any], parts: Sequence[bytes]) -> None:
    """Write a header and the bytes of its parts."""
    head = json.dumps(header).encode()
    whole = len(head) + sum(map(len, parts))
    sink.write(b"".join((len(head).to_bytes(8, "little"), whole.to_bytes(8, "little"), head, *parts)))
    sink.flush()


def inputs_of(named: Sequence[tuple[str, str, int]], body: memoryview) -> dict[str, Any]:
    """The loop's inputs."""
    inputs: dict[str, Any] = {}
    at = 0
    for name, form, size in named:
        part = bytes(body[at : at + size])
        inputs[name] = part if form == "bytes" else json.loads(part)
        at += size
    return inputs


def run(header: dict[str, Any], body: memoryview, compiled: Callable[[str], CodeType]) -> Any:
    """Run a program's module level, and the loop where there is one; what the loop gave."""
    given = _some(_ALLOWED) | dict.fromkeys(_PRINTS, _nothing) | {"__import__": _loaded}
    own: dict[str, Any] = {"__builtins__": given, "math": math}
    exec(compiled(header["source"]), own)
    if not header["loop"]:
        return None
    around = {"__builtins__": _some(_LOOP_ALLOWED), "reward": own.get("reward"), **inputs_of(header["inputs"], body)}
    exec(compiled(header["loop"]), around)
    return eval(header["call"], around)


def _some(names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(builtins, name) for name in names}


def _loaded(name: str, *_: object) -> ModuleType:
    if name not in _IMPORTABLE or name not in sys.modules:
        raise ImportError(f"{name} is not available")
    return sys.modules[name]


def _nothing(*_: object, **__: object) -> None:
    return None


def packed(values: list[Any]) -> tuple[str, bytes]:
    """A list as a form and bytes: floats keep every bit."""
    if set(map(type, values)) == {float}:
        return "d", array.array("d", values).tobytes()
    return "json", json.dumps([plain(value) for value in values]).encode()


def plain(value: Any) -> Any:
    """A value as it can be written; of what is no number, text, None or dictionary only the name of its type."""
    if type(value) is int:
        return value if value.bit_length() <= _MOST_BITS else [f"int of {value.bit_length()} bits"]
    if type(value) is str:
        return value[:200]
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is dict and len(value) <= 64 and all(type(name) is str for name in value):
        return {name: ["dict"] if type(cell) is dict else plain(cell) for name, cell in value.items()}
    return [type(value).__name__]


def answer(came: Any) -> tuple[dict[str, Any], list[bytes]]:
    """The header and the parts of an answer."""
    if came is None:
        return {"error": None, "failures": {}, "names": None, "parts": []}, []
    values, names, by_name, failures = came
    parts = [packed(column) for column in ([values] if names is None else by_name)]
    described = [(form, len(part)) for form, part in parts]
    return {"error": None, "failures": failures, "names": names, "parts": described}, [part for _, part in parts]


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until there are no more."""
    known: dict[str, CodeType] = {}

    def compiled(text: str) -> CodeType:
        if text not in known:
            if len(known) > 8:
                known.clear()
            known[text] = compile(text, "program", "exec")
        return known[text]

    while (message := read_message(source)) is not None:
        header, body = message
        signal.setitimer(signal.ITIMER_PROF, header["cpu_s"])  # SIGPROF ends the process
        sys.setrecursionlimit(header["recursion"] + _FRAMES)
        try:
            reply, parts = answer(run(header, body, compiled))
        except MemoryError:
            reply, parts = {"error": "memory", "message": "out of memory"}, []
        except BaseException as error:  # noqa: BLE001 - whatever the program's module level raises
            reply, parts = {"error": "failed", "message": f"{type(error).__name__}: {error}"[:300]}, []
        sys.setrecursionlimit(1000)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        write_message(sink, reply, parts)


if __name__ == "__main__":
    # lazily loaded parts are needed while files can still be read
    json.loads(json.dumps({"a": [1.5, float("nan"), "\u00e9"]}).encode())
    serve(sys.stdin.buffer, sys.stdout.buffer)
