"""Files of captions: one JSON object a line (key ``text``), or one plain caption a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.captions import canonical
from envs.files import read_lines, write_atomic
from launch.errors import UserError

PAGE_BREAK = " / "
"""Stands for a newline where a caption must fit on a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GatheredCaption:
    """A caption that came up in play."""

    text: str
    """Canonical."""
    count: int
    """How often it came."""
    tasks: tuple[str, ...]
    """Where, sorted."""
    example: str
    """The first raw message that became this caption."""


def read_gathered(path: Path) -> list[GatheredCaption]:
    """Captions as ``write_gathered`` left them.

    Raises:
        UserError: a line is not such a caption; names the file and the line.
    """
    found = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            found.append(
                GatheredCaption(
                    text=line["text"], count=line["count"], tasks=tuple(line["tasks"]), example=line["example"]
                )
            )
        except (KeyError, TypeError):
            raise UserError(
                f"{path}, line {number} is not a gathered caption: expected text, count, tasks and example"
            ) from None
    return found


def write_gathered(path: Path, captions: Iterable[GatheredCaption]) -> None:
    """Replace a file of captions in one step, the most frequent first."""
    ordered = sorted(captions, key=lambda c: (-c.count, c.text))
    rows = ({"text": c.text, "count": c.count, "tasks": list(c.tasks), "example": c.example} for c in ordered)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_captions(path: Path) -> list[str]:
    """Canonical captions of a ``.jsonl`` file (key ``text``) or a ``.txt`` file (a caption a line).

    In a text file `` / `` separates the pages of a message. Order is kept; a caption that comes again, and a
    blank one, is left out.

    Raises:
        UserError: the file is missing, has another ending, holds no caption, or a line without a text.
    """
    readers = {".jsonl": _jsonl_texts, ".txt": _txt_texts}
    if path.suffix not in readers:
        raise UserError(f"cannot read captions from '{path.name}'; allowed endings are {' and '.join(readers)}")
    texts = dict.fromkeys(canonical(text) for text in readers[path.suffix](path))
    texts.pop("", None)
    if not texts:
        raise UserError(f"{path} holds no captions")
    return list(texts)


def _jsonl_texts(path: Path) -> list[str]:
    texts: list[str] = []
    for number, line in enumerate(_lines(path), start=1):
        if not isinstance(line.get("text"), str):
            raise UserError(f"{path}, line {number} has no text: expected an object with the key 'text'")
        texts.append(line["text"])
    return texts


def _txt_texts(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read captions from {path}: {error}") from None
    return [line.replace(PAGE_BREAK, "\n") for line in lines]


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"there is no file of captions at {path}")
    try:
        return list(read_lines(path))
    except ValueError as error:
        raise UserError(str(error)) from None
