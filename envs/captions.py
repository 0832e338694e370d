"""Captions: game messages in a canonical form, named by a stable 64-bit id.

Two messages that differ only in what no judge should care about ("You see here 5 gold pieces." and
"You see here 1 gold piece.") are one caption, so one label serves both. The canonical form stays
legible English, because people, rules and language models read it:

* every ``--More--`` page is kept, one line each, repeated pages once, blanks collapsed, case kept;
* numbers become ``N`` ("5 gold pieces" -> "N gold piece"; counted stackable nouns lose their plural);
* the articles a, an, the become ``the`` (``The`` at the start of a sentence);
* what names one thing of one game is masked by ``_``: inventory letters ("f - a key" -> "_ - the
  key"), the letters offered by a prompt, the keys of an unknown command, scroll labels, given names
  and whatever the player typed at a prompt;
* the player's own name ("Agent" in NLE) becomes ``Player``.

``CAPTION_VERSION`` names this set of rules; it rises whenever a message may get another caption.

A template (``template_of``) is coarser: the names of monsters and things are masked too, by NetHack's own tables. "The
newt bites!" and "The jackal bites!" are two captions, since a judge may care who bites, but a model that has learned
one and is tested on the other is not tested: captions are split into learned and held out by template.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from envs.protocols import State

CAPTION_VERSION = 1

_STACKABLE = (
    "piece|zorkmid|arrow|dagger|dart|spear|javelin|shuriken|bolt|boomerang|knife|rock|boulder|gem|stone|"
    "potion|scroll|spellbook|wand|ring|amulet|apple|orange|pear|melon|banana|carrot|ration|wafer|egg|tin|"
    "tripe|corpse|candle|key|statue|coin|turn|point|time|charge|page|day|glob|clove"
)

_TYPED_AT = (
    "(?:What do you want to (?:call|name|write|engrave|add)|For what do you wish|"
    "What (?:monster|type of monster|class of monsters) do you want to)"
)


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    by: str
    needs: tuple[str, ...] = ("",)
    """Where the pattern matches, one of these is in the text; looking for them is far cheaper."""


_RULES: tuple[_Rule, ...] = (
    _Rule(re.compile(r"--More--"), " ", ("--More--",)),
    _Rule(
        re.compile(r"(Unknown (?:command|direction:)|Can't find dungeon feature) '[^\n]*?'(?=\.|\s|$)"),
        r"\1 '_'",
        ("Unknown ", "Can't find "),
    ),
    # The letters that a prompt offers: "[- abf or ?*]", "[bf-zA-Z]".
    _Rule(re.compile(r"\[[^\]\n]*(?:\?\*|\w-\w)[^\]\n]*\]"), "[_]", ("[",)),
    _Rule(re.compile(r"\blabeled [A-Z]+(?: [A-Z]+)*"), "labeled _", ("labeled ",)),
    # What the player typed, or answered, at a prompt.
    _Rule(re.compile(rf"^({_TYPED_AT}[^?\n]*\?(?: \[[^\]\n]*\])?) +(?!\[)\S.*", re.MULTILINE), r"\1 _", ("?",)),
    _Rule(re.compile(r"^(#|Search for:) .*", re.MULTILINE), r"\1 _", ("# ", "Search for: ")),
    _Rule(re.compile(r"(\[[a-z]+\] \([a-z]\)) +[a-z](?!\S)"), r"\1", ("] (",)),
    _Rule(re.compile(r"\b(called|named) (?!The )[^\s.,!?;:()\[\]]+"), r"\1 _", ("called ", "named ")),
    _Rule(re.compile(r"(?<!\S)[A-Za-z0-9$#*] - (?=\S)"), "_ - ", (" - ",)),
    _Rule(re.compile(r"\bAgent\b"), "Player", ("Agent",)),
    _Rule(re.compile(r"\d+"), "N"),
    _Rule(re.compile(rf"\b(N (?:[a-z]+ )?(?:{_STACKABLE}))e?s\b"), r"\1", ("N ",)),
    _Rule(re.compile(r"\b(?:An?|The)\b"), "The", ("A", "The")),
    _Rule(re.compile(r"\b(?:an?|the)\b"), "the", ("a", "the")),
    _Rule(re.compile(r"\bthe gold piece\b"), "N gold piece", ("the gold piece",)),
)


def canonical(text: str) -> str:
    """The canonical text of a message; idempotent, and "" for a blank message.

    Args:
        text: the message, ``--More--`` pages separated by newlines.
    """
    before = None
    # One pass settles real messages; odd ones ("1 - 2 - x") need another. Each pass that changes
    # anything shortens the text or removes a character that no rule writes, so this ends.
    while text != before:
        before = text
        for rule in _RULES:
            for needed in rule.needs:
                if needed in text:
                    text = rule.pattern.sub(rule.by, text)
                    break
        lines = (" ".join(_printable(line).split()) for line in text.split("\n"))
        text = "\n".join(dict.fromkeys(line for line in lines if line))
    return text


@lru_cache(maxsize=1 << 12)
def canonical_of_raw(message: bytes) -> str:
    """The canonical text of a raw message; remembered, since captions and schema both ask for every new one."""
    return canonical(message.decode("latin-1"))


def _printable(line: str) -> str:
    return line if line.isprintable() else "".join(c if c.isprintable() else " " for c in line)


def caption_id(text: str) -> int:
    """Stable id of a caption: 63 bits of its BLAKE2b hash, in [1, 2**63); 0 for no message.

    Args:
        text: a canonical text (:func:`canonical`).
    """
    if not text:
        return 0
    digest = blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") & 0x7FFF_FFFF_FFFF_FFFF) or 1


class CaptionTracker:
    """Names the messages of B games and counts them within each running episode.

    Args:
        num_games: B.
        cache_size: raw messages whose caption is remembered; the cache starts afresh when full.
    """

    def __init__(self, num_games: int, cache_size: int = 1 << 16) -> None:
        self._counts: list[dict[int, int]] = [{} for _ in range(num_games)]
        self._cache_size = cache_size
        self._cache: dict[bytes, int] = {b"": 0}
        self._sent: set[int] = {0}
        self._new: dict[int, str] = {}

    def observe(self, messages: list[bytes], done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take in the messages that one step of every game resulted in.

        Args:
            messages: B raw messages, pages joined by newlines; ``b""`` for none.
            done: bool [B], True where the step ended the episode: its message still counts in that
                episode, and counts start afresh after it.

        Returns:
            Caption ids int64 [B] and counts int32 [B] (occurrences in the running episode, this one
            included; 0 where there is no message).

        Raises:
            ValueError: there is not one message a game.
        """
        if len(messages) != len(self._counts):
            raise ValueError(f"{len(messages)} messages for {len(self._counts)} games: expected one a game")
        cache = self._cache
        ids: list[int] = []
        occurrences: list[int] = []
        for message, counts in zip(messages, self._counts, strict=True):
            ident = cache.get(message)
            if ident is None:
                ident = self._meet(message)
            ids.append(ident)
            if ident:
                count = counts[ident] = counts.get(ident, 0) + 1
                occurrences.append(count)
            else:
                occurrences.append(0)
        if done.any():
            for game in np.flatnonzero(done):
                self._counts[game] = {}
        return np.array(ids, np.int64), np.array(occurrences, np.int32)

    def _meet(self, message: bytes) -> int:
        text = canonical_of_raw(message)
        ident = caption_id(text)
        if len(self._cache) >= self._cache_size:
            self._cache.clear()
        self._cache[message] = ident
        if ident not in self._sent:
            self._sent.add(ident)
            self._new[ident] = text
        return ident

    def take_new(self) -> dict[int, str]:
        """``{caption_id: text}`` of captions first seen since the last call; each is given once."""
        new, self._new = self._new, {}
        return new

    def state_dict(self) -> State:
        """Counts of the running episodes, ids already sent, and texts not yet taken."""
        rows = [(game, *item) for game, counts in enumerate(self._counts) for item in counts.items()]
        table = np.array(rows, np.int64).reshape(-1, 3)
        return {
            "caption_version": CAPTION_VERSION,
            "count_game": table[:, 0].astype(np.int32),
            "count_id": table[:, 1].copy(),
            "count": table[:, 2].astype(np.int32),
            "sent": np.array(sorted(self._sent), np.int64),
            "new": list(self._new.values()),
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``.

        Raises:
            ValueError: the state was saved under other caption rules, or for more games.
        """
        if state["caption_version"] != CAPTION_VERSION:
            raise ValueError(
                f"caption state has version {state['caption_version']}, this program writes {CAPTION_VERSION}"
            )
        games = np.asarray(state["count_game"])
        if len(games) and games.max() >= len(self._counts):
            raise ValueError(f"caption state counts game {games.max()}, but there are {len(self._counts)} games")
        self._counts = [{} for _ in self._counts]
        for game, ident, count in zip(games, state["count_id"], state["count"], strict=True):
            self._counts[int(game)][int(ident)] = int(count)
        self._sent = {int(ident) for ident in state["sent"]}
        self._new = {caption_id(text): text for text in state["new"]}


# ---- templates

_KEPT = frozenset({"gold piece", "boulder", "statue", "corpse", "strange object"})
"""Things whose messages are about something else than those of any other thing."""

_GODS = (
    "Quetzalcoatl", "Camaxtli", "Huhetotl", "Mitra", "Crom", "Anu", "Ishtar", "Anshar", "Athena", "Hermes", "Poseidon",
    "Lugh", "Brigit", "Manannan Mac Lir", "Shan Lai Ching", "Chih Sung-tzu", "Huan Ti", "Issek", "Mog", "Kos",
    "Mercury", "Venus", "Mars", "Amaterasu Omikami", "Raijin", "Susanowo", "Blind Io", "Offler", "Tyr", "Odin", "Loki",
    "Ptah", "Thoth", "Anhur", "Moloch",
)  # fmt: skip

_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_QUOTED = re.compile(r'"[^"\n]*"')
_SHOPKEEPER = re.compile(r"(?<=[Ww]elcome to |e again to )[A-Z]\S*?(?='s )")
_STATES = re.compile(
    r"\b(?:(?:un)?cursed|blessed|(?:very |thoroughly )?(?:rusty|rusted|corroded|burnt|rotted)|rustproof|fireproof|"
    r"corrodeproof|rotproof|fixed|greased|poisoned|diluted|partly (?:eaten|used)|peaceful|tame|saddled|invisible|"
    r"pair of|set of) (?=\S)"
)
_ENCHANTMENT = re.compile(r"(?<!\S)[+-]N (?=\S)")
_REMARK = re.compile(r"(?<=_) \([^()\n]*\)")
_COUNTED = re.compile(r"\b(?:The|the|N) (?=_)")
_SURNAME = re.compile(r"(?<=_) (?:called|named|labeled) _")


def _object_names(nethack: Any) -> Iterator[str]:
    # Members of these classes are common words by themselves ("light", "death"): only "wand of death" is a name.
    nouns = {
        nethack.POTION_CLASS: "potion",
        nethack.SCROLL_CLASS: "scroll",
        nethack.SPBOOK_CLASS: "spellbook",
        nethack.WAND_CLASS: "wand",
        nethack.RING_CLASS: "ring",
        nethack.AMULET_CLASS: "amulet",
    }
    for number in range(nethack.NUM_OBJECTS):
        entry = nethack.objclass(number)
        noun = nouns.get(ord(entry.oc_class))
        name, looks = nethack.OBJ_NAME(entry), nethack.OBJ_DESCR(entry)
        if name:
            yield name if noun is None or noun in name.split() else f"{noun} of {name}"
        if looks and ord(entry.oc_class) == nethack.GEM_CLASS:
            yield from (f"{looks} gem", f"{looks} stone")
        elif looks:
            yield looks if noun is None else f"{looks} {noun}"
    yield from nouns.values()


def _plural(name: str) -> Iterator[str]:
    """Plurals by rule; the few words that go another way stay a template of their own."""
    head, of, tail = name.partition(" of ")
    yield f"{head}s{of}{tail}"
    if head.endswith(("s", "x", "z", "h")):
        yield f"{head}es{of}{tail}"
    if head.endswith("y"):
        yield f"{head[:-1]}ies{of}{tail}"
    if head.endswith("f"):
        yield f"{head[:-1]}ves{of}{tail}"
    if head.endswith("man"):
        yield f"{head[:-3]}men{of}{tail}"


@cache
def _names() -> dict[str, tuple[tuple[str, ...], ...]]:
    """``{first word: names that begin with it, as words, longest first}``, in lower case."""
    nethack: Any = importlib.import_module("nle.nethack")  # here, because captions are read where no game is played
    monsters = (nethack.permonst(number).mname for number in range(nethack.NUMMONS))
    singular = {name.lower() for name in (*monsters, *_object_names(nethack), *_GODS)} - _KEPT
    found: dict[str, set[tuple[str, ...]]] = {}
    for name in (*singular, *(many for one in singular for many in _plural(one))):
        words = tuple(_WORD.findall(name))
        if words:
            found.setdefault(words[0], set()).add(words)
    return {first: tuple(sorted(names, key=lambda n: (-len(n), n))) for first, names in found.items()}


def _longest(words: list[str], at: int, names: Iterable[tuple[str, ...]]) -> int:
    """Words of the longest name that begins at a place; 0 for none."""
    return next((len(name) for name in names if tuple(words[at : at + len(name)]) == name), 0)


def _mask_names(text: str) -> str:
    names = _names()
    spans = [match.span() for match in _WORD.finditer(text)]
    words = [text[start:end].lower().removesuffix("'s").rstrip("'-") for start, end in spans]
    pieces: list[str] = []
    done = at = 0
    while at < len(words):
        length = _longest(words, at, names.get(words[at], ()))
        start = spans[at][0]
        end = spans[at + length - 1][0] + len(words[at + length - 1]) if length else start
        # The words of a name stand side by side: "dog. House" is not a "dog house".
        if length and not re.search(r"[^A-Za-z' -]", text[start:end]):
            pieces += (text[done:start], "_")
            done = end
            at += length
        else:
            at += 1
    return "".join((*pieces, text[done:]))


def _coarser(text: str) -> str:
    text = _QUOTED.sub('"_"', text)
    text = _SHOPKEEPER.sub("_", text)
    text = _ENCHANTMENT.sub("", _STATES.sub("", text))
    text = _mask_names(text)
    text = _SURNAME.sub("", text)
    return _COUNTED.sub("", _REMARK.sub("", text))


@lru_cache(maxsize=1 << 15)
def template_of(caption: str) -> str:
    """The template of a canonical caption; idempotent, and "" for "".

    Masked by ``_``: monsters, things (not gold, boulders, statues, corpses), gods, shopkeepers, and what stands in
    quotation marks. Dropped: articles and counts before a mask, and how a thing is (cursed, rusty, in use).

    Args:
        caption: a canonical text (:func:`canonical`).
    """
    before = None
    # Every pass that changes anything leaves fewer characters or fewer words that are no mask, so this ends.
    while caption != before:
        before, caption = caption, _coarser(caption)
    return caption
