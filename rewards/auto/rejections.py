"""Why source code is no reward program: every code, what it means, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RejectionKind:
    """What a code stands for."""

    title: str
    """One clause."""
    why: str
    """Why it is refused."""
    instead: str
    """What to do."""


_CLOSED = "what is not on a list cannot be judged"

REJECTIONS: Mapping[str, RejectionKind] = {
    "E01": RejectionKind(
        "the source is too large", "parsing must stay cheap", "at most 16 KiB, 600 lines, and 400 characters a line"
    ),
    "E02": RejectionKind(
        "the source is not plain UTF-8", "another reading of the bytes is another program", "save it as UTF-8"
    ),
    "E03": RejectionKind(
        "the source holds control or invisible characters",
        "they can make code look like other code",
        "newlines, spaces and visible characters; in a text write an escape such as '\\u00a0'",
    ),
    "E04": RejectionKind(
        "the code is nested too deeply", "deep nesting can exhaust a parser", "split it with helper functions"
    ),
    "E05": RejectionKind("the code is not Python", "it does not parse", "mend the place that is shown"),
    "E06": RejectionKind(
        "the check itself did not finish", "the parser ran out of time or memory, or died", "write simpler code"
    ),
    "E10": RejectionKind(
        "there is not exactly one reward function", "it is what is called", "one top-level def reward(...)"
    ),
    "E11": RejectionKind(
        "reward takes other parameters",
        "it is called with these four, in this order",
        "def reward(obs, prev_obs, action, info):",
    ),
    "E12": RejectionKind(
        "a statement stands outside functions",
        "a module holds functions and constants only, so that nothing is kept between calls",
        "write the constant as one expression, or move it into a function",
    ),
    "E13": RejectionKind(
        "a module constant is not constant",
        "what could change would carry over from one call to the next",
        "what is computed from literals and constants above it, dicts, lists and sets too; nothing changes it, and no "
        "function of the program has a part in it",
    ),
    "E14": RejectionKind(
        "COMPONENTS is not a table of components",
        "it is read, not run",
        'COMPONENTS = {"goal": "sparse", "explore": "dense"}, at most 16, with names of letters, digits and _',
    ),
    "E15": RejectionKind(
        "an import",
        "programs use nothing but the language and math",
        "write math.sqrt(x): math is there without an import",
    ),
    "E20": RejectionKind(
        "a construct is not available", _CLOSED, "functions, if, for, while, match, try, comprehensions"
    ),
    "E21": RejectionKind("a name is not available", _CLOSED, "what the program defines, math, and the usual functions"),
    "E22": RejectionKind(
        "an attribute is not available",
        "attributes lead from any object to the interpreter",
        "the usual methods of texts, dicts and lists, called; fields are read as obs['hp']; f-strings for formatting",
    ),
    "E23": RejectionKind("a name with two underscores", "such names belong to the interpreter", "another name"),
    "E24": RejectionKind(
        "a name is not ASCII", "Python reads different letters as the same name", "the letters a to z, digits and _"
    ),
    "E25": RejectionKind(
        "a name that has a meaning is bound anew", "readers and checks rely on its meaning", "another name"
    ),
    "E26": RejectionKind(
        "a decorator, default or annotation is not plain",
        "they run when the function is defined",
        "no decorators; constants as defaults, which nothing changes; types such as dict[str, float] as annotations",
    ),
    "E27": RejectionKind("a call's arguments are not plain", _CLOSED, "positional and the usual keyword arguments"),
    "E28": RejectionKind(
        "exceptions are not handled by plain name",
        "exception objects lead to the interpreter, and some must not be caught",
        "except ZeroDivisionError: and raise ValueError('why')",
    ),
    "E29": RejectionKind(
        "a pattern reads attributes", "class patterns read any attribute", "case int(): or isinstance(x, int)"
    ),
    "E30": RejectionKind(
        "a format is not constant and small",
        "formats can read attributes and make huge texts",
        "f'{x:.2f}', with widths of at most 100",
    ),
    "E31": RejectionKind(
        "a constant is not allowed",
        "huge constants and other types have no use here",
        "numbers up to 10**18 either way, math.inf, texts of at most 2,000 characters",
    ),
    "E40": RejectionKind(
        "a field is not in the schema", "reading it would always fail, or give the default", "a field of the schema"
    ),
    "E41": RejectionKind(
        "the inputs are written to",
        "others read them too",
        "keep values in variables of your own; info counts what an episode has seen",
    ),
}
"""Code to what it stands for: E01 to E06 the text, E10 to E15 the module, E20 to E31 the code, E40 and on the data."""


def describe_rejections() -> str:
    """Every code as a Markdown table: for the documentation."""
    rows = ["| code | refused | why | write instead |", "|---|---|---|---|"]
    rows += [f"| {code} | {kind.title} | {kind.why} | {kind.instead} |" for code, kind in REJECTIONS.items()]
    return "\n".join(rows) + "\n"
