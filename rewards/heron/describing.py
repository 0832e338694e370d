"""Segments in words: what an annotator is told of a stretch of play."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from rewards.heron.factors import Factor, FactorTable
from rewards.heron.segments import Segments

_MAX_MESSAGES = 32
"""Different messages that are told; of more, the first and the last half of as many."""
_NO_TEXT = "(a message that was not kept)"


def describe(segments: Segments, table: FactorTable, texts: Mapping[int, str]) -> list[str]:
    """One text a segment, the same for the same play: its length, its end, its factors, its messages.

    How an episode ended is told by what the factors count, such as ``success``, and by its last messages.

    Args:
        segments: N of them.
        table: the factors that they hold.
        texts: of captions by their id; a page a line.

    Returns:
        N texts. Segments of one text differ in nothing that an annotator could go by.
    """
    captions = np.split(segments.caption_id, segments.offsets[1:])
    return [
        "\n".join(
            [_length(len(heard), ended=ended), *_values(table.factors, values), *_messages(heard.tolist(), texts)]
        )
        for heard, ended, values in zip(captions, segments.ended.tolist(), segments.factors.tolist(), strict=True)
    ]


def _length(steps: int, *, ended: bool) -> str:
    taken = "1 action" if steps == 1 else f"{steps} actions"
    return f"{taken}; the episode {'ended with the last one' if ended else 'went on after them'}."


def _values(factors: Sequence[Factor], values: Sequence[float]) -> list[str]:
    """Four digits each; no zero with a sign."""
    return [
        f"{factor.name}: {value + 0.0:.4g}" + (f" ({factor.description.rstrip('.')})" if factor.description else "")
        for factor, value in zip(factors, values, strict=True)
    ]


def _messages(captions: Sequence[int], texts: Mapping[int, str]) -> list[str]:
    counts = Counter(caption for caption in captions if caption)  # in the order in which they first came
    if not counts:
        return ["Messages: none."]
    lines = [f"{count} x {_one_line(texts.get(caption, _NO_TEXT))}" for caption, count in counts.items()]
    if len(lines) > _MAX_MESSAGES:
        half = _MAX_MESSAGES // 2
        lines = [*lines[:half], f"({len(lines) - 2 * half} other messages)", *lines[-half:]]
    return ["Messages:", *lines]


def _one_line(text: str) -> str:
    return " / ".join(text.split("\n"))
