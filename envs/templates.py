"""Templates: captions with the names of monsters and things masked, so that near-duplicates share one.

"The newt bites!" and "The jackal bites!" are two captions, since a judge may care who bites, but a model that
learnt the one and is tested on the other was not tested. Whoever splits captions into learnt and held out does it
by template. The names are those of NetHack's own tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import Any

from nle import nethack as _nethack

nethack: Any = _nethack  # an extension module: type checkers cannot see its constants

_KEPT = frozenset({"gold piece", "boulder", "statue", "corpse", "strange object"})
"""Things whose messages are about something else than those of any other thing."""

_OF_CLASS = {
    nethack.POTION_CLASS: "potion",
    nethack.SCROLL_CLASS: "scroll",
    nethack.SPBOOK_CLASS: "spellbook",
    nethack.WAND_CLASS: "wand",
    nethack.RING_CLASS: "ring",
    nethack.AMULET_CLASS: "amulet",
}
"""Classes whose members are common words by themselves ("light", "death"): only "wand of death" is a name."""

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


def _object_names() -> Iterator[str]:
    for number in range(nethack.NUM_OBJECTS):
        entry = nethack.objclass(number)
        noun = _OF_CLASS.get(ord(entry.oc_class))
        name, looks = nethack.OBJ_NAME(entry), nethack.OBJ_DESCR(entry)
        if name:
            yield name if noun is None or noun in name.split() else f"{noun} of {name}"
        if looks and ord(entry.oc_class) == nethack.GEM_CLASS:
            yield from (f"{looks} gem", f"{looks} stone")
        elif looks:
            yield looks if noun is None else f"{looks} {noun}"
    yield from _OF_CLASS.values()


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
    monsters = (nethack.permonst(number).mname for number in range(nethack.NUMMONS))
    singular = {name.lower() for name in (*monsters, *_object_names(), *_GODS)} - _KEPT
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
        caption: a canonical text (:func:`envs.captions.canonical`).
    """
    before = None
    # Every pass that changes anything leaves fewer characters or fewer words that are no mask, so this ends.
    while caption != before:
        before, caption = caption, _coarser(caption)
    return caption
