"""Texts, and numbers put into them: widths are small."""

from __future__ import annotations

import ast
import re

from .names import MAX_TEXT, MAX_WIDTH
from .refusal import Refusal, shown
from .tree import is_text
from .walk import Checks, Walk

SPEC = re.compile(r"(?:[ -~]?[<>=^])?[-+ ]?#?0?(\d{0,4})[,_]?(?:\.(\d{1,4}))?[bcdeEfFgGnosxX%]?", re.ASCII)
PERCENT = re.compile(r"%(?:%|[-+ #0]*(\d{0,4})(?:\.(\d{1,4}))?[sdifgGeExXr])", re.ASCII)
WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(?:\*|\d{3}|\d*\.\*|\d*\.\d{3})", re.ASCII)


def check_text(value: str, node: ast.AST, may_be_format: bool) -> None:
    """Refuse texts that are too long, no text at all, or wide formats where something may use them."""
    if len(value) > MAX_TEXT:
        raise Refusal("E31", f"the text is longer than {MAX_TEXT} characters", node)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise Refusal("E31", "the text holds half a character", node)
    if may_be_format and WIDE_PERCENT.search(value):
        raise Refusal("E30", "the text is a format with a large or changing width", node)


def check_percent(text: str, node: ast.AST) -> None:
    """Refuse what stands left of ``%`` unless it is plain."""
    numbers = [int(number) for found in PERCENT.finditer(text) for number in found.groups() if number]
    if "%" in PERCENT.sub("", text) or any(number > MAX_WIDTH for number in numbers):
        raise Refusal("E30", f"the format {shown(text)} is not plain", node)


def formatted(walk: Walk, node: ast.FormattedValue) -> None:
    """``{x:.2f}``; the format is constant."""
    spec = node.format_spec
    parts = spec.values if isinstance(spec, ast.JoinedStr) else []
    if not all(is_text(part) for part in parts):
        raise Refusal("E30", "the format of an f-string is constant", node.value)
    found = SPEC.fullmatch("".join(str(getattr(part, "value", "")) for part in parts))
    if not found or any(int(number) > MAX_WIDTH for number in found.groups() if number):
        raise Refusal("E30", f"the format of an f-string is plain, and at most {MAX_WIDTH} wide", node.value)
    walk.check(node.value)


FORMATS: Checks = {ast.FormattedValue: formatted}
