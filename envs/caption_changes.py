"""What a step changed, in canonical words: lines that stand under the message of a caption.

A message often leaves out what matters: nothing says that a fall cost half of the hit points. With
``env.captions=changes`` each caption also says what became of hit points, depth, experience level, gold and
pack, one line in brackets for each::

    The jackal bites!
    (HP fell by half)

Numbers become a few words, so that captions stay few, and every line is canonical as it stands
(``envs.captions.canonical`` changes nothing in it). A line compares the state that the action reached with
the state before it, within one episode.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from envs.captions import canonical

_COLUMNS = slice(10, 19)
"""The columns of ``blstats`` that hold what is compared (and some more)."""
_HP, _MAX_HP, _DEPTH, _GOLD, _XP_LEVEL = 0, 1, 2, 3, 8
"""Hit points, most hit points, depth, gold and experience level among them."""

_HP_FALLS = ((0.5, "(HP fell by half)"), (0.25, "(HP fell markedly)"), (0.0, "(HP fell slightly)"))
_HP_RISES = ((0.5, "(HP rose by half)"), (0.25, "(HP rose markedly)"), (0.1, "(HP rose slightly)"))
"""From which share of the most hit points each word is used. A rise below a tenth is mere regeneration: not said."""
_HP_LOW = "(HP low)"
_STANDING: Mapping[int, tuple[str, str]] = {
    _DEPTH: ("(deeper)", "(higher up)"),
    _XP_LEVEL: ("(experience level rose)", "(experience level fell)"),
    _GOLD: ("(gold rose)", "(gold fell)"),
}
"""What is said of a column that rose, and of one that fell."""
_GAINED, _GONE = "gained", "gone"

_FIXED = frozenset({*(words for _, words in (*_HP_FALLS, *_HP_RISES)), _HP_LOW, *chain(*_STANDING.values())})
_PACK_LINE = re.compile(rf"\((?:{_GAINED}|{_GONE}): [^\n]+\)")
_NAME_LENGTH = 80
"""Bytes of an item's name in ``inv_strs``."""
_STATE_OF_ITEM = re.compile(r"(?: \([^()]*\))+$")
"""What an item's name ends with: "(being worn)", "(weapon in hand)", "(N:N)"."""
_QUANTITY = re.compile(r"\d+(?= )")
_COINS = re.compile(r"(?:a|\d+) gold pieces?")
"""Stand in the pack too, and are reported as gold."""


def is_change(line: str) -> bool:
    """Whether a line of a caption states a change, rather than what the game said."""
    return line in _FIXED or _PACK_LINE.fullmatch(line) is not None


def without_changes(text: str) -> str:
    """The message of a caption: its lines that state no change; "" where there are only such."""
    if "(" not in text:
        return text
    return "\n".join(line for line in text.split("\n") if not is_change(line))


class CaptionChanges:
    """Compares B games with what they were a step before.

    Names of items are 4 KB a game, more than all else that is read of it. Where no observation shows them, all games
    write them into one buffer, which stays in the processor's cache, and each is looked at right after its keys.

    Args:
        arrays: live NetHack arrays ``{key: [B, ...]}``, ``NLE_KEYS`` among them.
    """

    NLE_KEYS = ("blstats", "inv_glyphs")

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._blstats, self._glyphs = (arrays[key] for key in self.NLE_KEYS)
        num_games = len(self._blstats)
        shared = np.zeros((self._glyphs.shape[1], _NAME_LENGTH), np.uint8)
        self.name_rows = list(arrays["inv_strs"]) if "inv_strs" in arrays else [shared] * num_games
        """Where each game must write its ``inv_strs``."""
        self._stats = self._blstats[:, _COLUMNS].copy()
        self._names = [b""] * num_games
        self._packs: list[dict[int, tuple[int, str]]] = [{} for _ in range(num_games)]
        self._other_names: list[int] = []
        """Games whose items have other names than a step before."""

    def begin(self, game: int) -> None:
        """A new episode shows its first state, just now: nothing has changed yet."""
        self._stats[game] = self._blstats[game, _COLUMNS]
        self._names[game] = self.name_rows[game].tobytes()
        self._packs[game] = _pack(self._glyphs[game], self._names[game])

    def watched(self, game: int, play: Callable[[int], bool]) -> Callable[[int], bool]:
        """``play`` of a game, looking at the names of its items right afterwards.

        Args:
            game: which.
            play: plays an action and returns whether NetHack has ended.
        """
        read, names, other_names = self.name_rows[game].tobytes, self._names, self._other_names

        def play_and_look(action: int) -> bool:
            over = play(action)
            found = read()
            if found != names[game] and not over:
                names[game] = found
                other_names.append(game)
            return over

        return play_and_look

    def lines(self, playing: np.ndarray, over: Sequence[bool] | np.ndarray) -> dict[int, bytes]:
        """What one step changed.

        Args:
            playing: bool [B]; nothing is said of the others.
            over: bool [B], True where NetHack has ended with this step. Its ``blstats`` are then the last that it
                showed, from before the final blow, and its pack is empty: hit points and pack are left out (that
                the hero died, the message says).

        Returns:
            ``{game: lines}`` for the games in which something changed, in Latin-1 as messages are.
        """
        stats = self._blstats[:, _COLUMNS]
        other_stats = np.flatnonzero((stats != self._stats).any(1) & playing).tolist()
        lines: dict[int, list[str]] = {}
        for game in other_stats:
            before, after = self._stats[game].tolist(), stats[game].tolist()
            lines[game] = [*([] if over[game] else _hp_lines(before, after)), *_standing_lines(before, after)]
            self._stats[game] = after
        for game in self._other_names:
            pack = _pack(self._glyphs[game], self._names[game])
            lines.setdefault(game, []).extend(_pack_lines(self._packs[game], pack))
            self._packs[game] = pack
        self._other_names.clear()
        return {game: "\n".join(found).encode("latin-1") for game, found in lines.items() if found}


def _hp_lines(before: Sequence[int], after: Sequence[int]) -> Iterator[str]:
    if word := _hp_word((after[_HP] - before[_HP]) / max(before[_MAX_HP], after[_MAX_HP], 1)):
        yield word
    if _is_low(after[_HP], after[_MAX_HP]) and not _is_low(before[_HP], before[_MAX_HP]):
        yield _HP_LOW


def _standing_lines(before: Sequence[int], after: Sequence[int]) -> Iterator[str]:
    for column, (rose, fell) in _STANDING.items():
        if after[column] != before[column]:
            yield rose if after[column] > before[column] else fell


def _hp_word(share: float) -> str:
    """The word for a change by this share of the most hit points; "" for none."""
    for least, words in _HP_FALLS if share < 0 else _HP_RISES:
        if abs(share) >= least and share:
            return words
    return ""


def _is_low(hp: int, max_hp: int) -> bool:
    """NetHack's own idea of a player in danger: below a seventh, or below 6."""
    return hp * 7 < max_hp or hp < 6


def _pack(glyphs: np.ndarray, names: bytes) -> dict[int, tuple[int, str]]:
    """``{glyph: (how many, name of one stack)}`` of the items carried.

    A glyph names the kind of a thing whatever is known of it, so that letters, splits and new knowledge change
    nothing here.
    """
    pack: dict[int, tuple[int, str]] = {}
    for place, glyph in enumerate(glyphs.tolist()):
        start = place * _NAME_LENGTH
        name = names[start : start + _NAME_LENGTH].partition(b"\0")[0].decode("latin-1")
        if not name:
            break  # the items come first
        if _COINS.fullmatch(name):
            continue
        found = _QUANTITY.match(name)
        quantity = int(found[0]) if found else 1
        carried, first = pack.get(glyph, (0, name))
        pack[glyph] = (carried + quantity, first)
    return pack


def _pack_lines(before: Mapping[int, tuple[int, str]], after: Mapping[int, tuple[int, str]]) -> list[str]:
    nothing = (0, "")
    gained = [name for glyph, (n, name) in after.items() if n > before.get(glyph, nothing)[0]]
    gone = [name for glyph, (n, name) in before.items() if n > after.get(glyph, nothing)[0]]
    return [*_named(_GAINED, gained), *_named(_GONE, gone)]


def _named(verb: str, names: Sequence[str]) -> list[str]:
    """One line for each name, sorted: the order in the pack is no news."""
    return sorted({canonical(f"({verb}: {_STATE_OF_ITEM.sub('', name)})") for name in names})
