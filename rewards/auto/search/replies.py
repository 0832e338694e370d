"""The code in what a language model replied.

Replies are wrapped in prose and fences, come in several pieces, or hold no code at all. Nothing is parsed here:
whether the code is a reward program is for ``rewards.auto.language.admission`` to say.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

MAX_THOUGHTS = 4000
"""Characters of what is kept of the text around the code."""


@dataclass(frozen=True)
class Code:
    """Source code, and what was said around it."""

    source: str
    """Lines end with one newline each and without blanks; no empty line at either end."""
    thoughts: str = ""
    """At most ``MAX_THOUGHTS`` characters."""


@dataclass(frozen=True)
class Problem:
    """There is no usable code."""

    reason: str
    """One sentence."""


@dataclass(frozen=True)
class _Piece:
    """Lines ``first`` up to, but not including, ``end`` of a reply; the code in them, and whether a fence held it."""

    first: int
    end: int
    source: str


_THINKING = re.compile(r"\A\s*<(think|thinking|thought|reasoning)>", re.IGNORECASE)
_THOUGHT = re.compile(r"</(?:think|thinking|thought|reasoning)>[ \t]*$", re.IGNORECASE | re.MULTILINE)
_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*([^`]*)")
_REWARD = re.compile(r"^def[ \t]+reward[ \t]*\(", re.MULTILINE)
_DEFINED = re.compile(r"^(?:def[ \t]+(\w+)|(\w+)[ \t]*(?::[^=\n]+)?=(?!=))", re.MULTILINE)
_CALLS_REWARD = re.compile(r"(?<!def )\breward[ \t]*\(")
_NEEDLESS = re.compile(
    r"^(?:import[ \t]+math|from[ \t]+__future__[ \t]+import[ \t]+annotations)[ \t]*(?:#.*)?\n", re.MULTILINE
)
"""Models write these whatever the prompt says; programs have ``math`` without an import, and need no ``__future__``."""
_CODE_LINE = re.compile(
    r"""[ \t]            # within a block
    | $                  # empty
    | \#
    | @\w
    | [)\]}]             # the end of a literal
    | def[ \t]+\w
    | import[ \t]+\w
    | from[ \t]+\S+[ \t]+import\b
    | \w+[ \t]*(?::[^=]+)?=(?!=)
    """,
    re.VERBOSE,
)


def code_of(reply: str) -> Code | Problem:
    """The reward program that a reply holds.

    Of several fences the last that defines ``reward`` is taken, whole; other fences are put before it where they
    define a name that it uses and does not define. Without a fence, it is the stretch of lines that look like code
    around ``def reward(``. Lines ``import math`` and ``from __future__ import annotations`` are left out.
    """
    text = reply.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    thoughts, said = _split_thoughts(text)
    if not said.strip():
        return Problem("the reply ended before any code came" if thoughts else "the reply is empty")
    lines = said.split("\n")
    fenced = _fenced(lines)
    pieces = _chosen(fenced) or _unfenced(lines)
    if not pieces:
        where = "none of its fenced blocks defines" if fenced else "it does not define"
        return Problem(f"the reply holds no reward program: {where} a function reward(obs, prev_obs, action, info)")
    used = {i for piece in pieces for i in range(piece.first, piece.end)}
    around = "\n".join(line for i, line in enumerate(lines) if i not in used)
    source = "\n\n\n".join(piece.source.strip("\n") for piece in pieces)
    source = _NEEDLESS.sub("", source + "\n").strip("\n")
    return Code(source + "\n", f"{thoughts}\n{around}".strip()[:MAX_THOUGHTS])


def _split_thoughts(text: str) -> tuple[str, str]:
    """What a model that reasons aloud thought, and what it said then."""
    if not _THINKING.match(text):
        return "", text
    ends = [found.end() for found in _THOUGHT.finditer(text)]
    return (text[: ends[0]], text[ends[0] :]) if ends else (text, "")


def _fenced(lines: Sequence[str]) -> list[_Piece]:
    """The content of every fence; one that is never closed goes on to the end."""
    pieces: list[_Piece] = []
    first, opening = 0, None
    for i, line in enumerate([*lines, ""]):
        found = _FENCE.fullmatch(line)
        if opening is None:
            first, opening = i, found
        elif i == len(lines) or (found and found[2].startswith(opening[2])):
            # A fence with the name of a language opens another one: this one was never closed.
            is_opening = found is not None and bool(found[3])
            pieces.append(_Piece(first, i if is_opening else i + 1, _dedented(lines[first + 1 : i])))
            first, opening = i, found if is_opening else None
    return pieces


def _dedented(lines: Sequence[str]) -> str:
    return textwrap.dedent("\n".join(lines))


def _chosen(pieces: Sequence[_Piece]) -> list[_Piece]:
    """The last fence that defines ``reward``, after those whose helpers it needs; empty where there is none."""
    at = max((i for i, piece in enumerate(pieces) if _REWARD.search(piece.source)), default=None)
    if at is None:
        return []
    chosen = [pieces[at]]
    for piece in reversed([p for p in pieces if not _REWARD.search(p.source)]):
        source = "\n".join(p.source for p in chosen)
        missing = _names_defined(piece.source) - _names_defined(source)
        # An example of how to call the function is no helper.
        if missing & set(re.findall(r"\w+", source)) and not _CALLS_REWARD.search(piece.source):
            chosen.insert(0, piece)
    return chosen


def _names_defined(source: str) -> set[str]:
    return {found[1] or found[2] for found in _DEFINED.finditer(source)}


def _unfenced(lines: Sequence[str]) -> list[_Piece]:
    """The lines around the last ``def reward(`` that look like code."""
    at = max((i for i, line in enumerate(lines) if _REWARD.match(line)), default=None)
    if at is None:
        return []
    first, end = at, at + 1
    while first > 0 and _CODE_LINE.match(lines[first - 1]):
        first -= 1
    while end < len(lines) and _CODE_LINE.match(lines[end]):
        end += 1
    return [_Piece(first, end, "\n".join(lines[first:end]))]
