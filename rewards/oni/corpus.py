"""Captions that a model knows, and what each is worth now, as rows in the order in which they came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from envs.captions import template_of
from envs.protocols import State
from rewards.oni.caption_model import Values


class Corpus:
    """Texts of captions, and what is computed from each of them once.

    Args:
        encode: text -> int64 [M], what a network reads of it.
        fold: text -> the member that leaves it out.
    """

    def __init__(self, encode: Callable[[str], np.ndarray], fold: Callable[[str], int]) -> None:
        self.encode, self._fold = encode, fold
        self._clear()

    def _clear(self) -> None:
        self.ids: list[int] = []
        self.texts: list[str] = []
        self.encoded: list[np.ndarray] = []
        self.folds: list[int] = []
        self.templates: list[int] = []
        """Number of each caption's template."""
        self._rows: dict[int, int] = {}
        self._template_numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ident: int, text: str) -> int:
        """The row of a caption; a new one where it was not known."""
        row = self._rows.get(ident)
        if row is None:
            row = self._rows[ident] = len(self.ids)
            self.ids.append(ident)
            self.texts.append(text)
            self.encoded.append(self.encode(text))
            self.folds.append(self._fold(text))
            self.templates.append(self._template_numbers.setdefault(template_of(text), len(self._template_numbers)))
        return row

    def row(self, ident: int) -> int | None:
        """The row of a caption, None where it is not known."""
        return self._rows.get(ident)

    def encodings(self, rows: Iterable[int]) -> list[np.ndarray]:
        """What a network reads of the captions of these rows."""
        return [self.encoded[row] for row in rows]

    def state_dict(self) -> State:
        """Ids and texts; the rest is computed from them."""
        return {"ids": np.array(self.ids, np.int64), "texts": list(self.texts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._clear()
        for ident, text in zip(state["ids"], state["texts"], strict=True):
            self.add(int(ident), text)


class CurrentValues:
    """Value of each row of a corpus, and which of them nobody took yet."""

    def __init__(self) -> None:
        self._value = np.zeros(0, np.float32)
        self._known = np.zeros(0, bool)
        self._news = np.zeros(0, bool)

    def put(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Values [N] of rows [N]; what does not change is no news."""
        self._grow(int(rows.max(initial=-1)) + 1)
        new = values.astype(np.float32)
        changed = ~self._known[rows] | (self._value[rows] != new)
        self._value[rows] = new
        self._known[rows] = True
        self._news[rows] |= changed

    def _grow(self, size: int) -> None:
        extra = max(size - len(self._value), 0)
        self._value = np.pad(self._value, (0, extra))
        self._known = np.pad(self._known, (0, extra))
        self._news = np.pad(self._news, (0, extra))

    def get(self, row: int) -> float | None:
        """The value of a row, None where it has none."""
        return float(self._value[row]) if row < len(self._known) and self._known[row] else None

    def take(self, ids: list[int]) -> Values:
        """(id, value) of what is new since the last call; ``ids`` names the rows."""
        rows = np.flatnonzero(self._news)
        self._news[rows] = False
        return [(ids[row], value) for row, value in zip(rows.tolist(), self._value[rows].tolist(), strict=True)]

    @property
    def known(self) -> np.ndarray:
        """float32: the values of all rows that have one."""
        return self._value[self._known]

    def state_dict(self) -> State:
        """Values, which are known, which are news."""
        return {"value": self._value.copy(), "known": self._known.copy(), "news": self._news.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._value = np.array(state["value"], np.float32)
        self._known = np.array(state["known"], bool)
        self._news = np.array(state["news"], bool)
