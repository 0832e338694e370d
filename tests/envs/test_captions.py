from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from envs import captions
from envs.captions import CaptionTracker, canonical, caption_id, template_of

NO_END = np.zeros(2, bool)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("You see here 5 gold pieces.", "You see here N gold piece."),
        ("You see here 1 gold piece.", "You see here N gold piece."),
        ("f - a key named The Master Key of Thievery.", "_ - the key named The Master Key of Thievery."),
        ("$ - 12 gold pieces.", "_ - N gold piece."),
        ("g - an uncursed  +1 dagger (in use).", "_ - the uncursed +N dagger (in use)."),
        ("An owlbear bites!", "The owlbear bites!"),
        ("The owlbear bites!", "The owlbear bites!"),
        ("Hello Agent, welcome to NetHack!", "Hello Player, welcome to NetHack!"),
        ("What do you want to wield? [- abf or ?*] ", "What do you want to wield? [_]"),
        ("Really attack the jackal? [yn] (n)", "Really attack the jackal? [yn] (n)"),
        ("Unknown command 'M-b'.", "Unknown command '_'."),
        ("You see here a scroll labeled ZELGO MER.", "You see here the scroll labeled _."),
        ("You hit the newt.\nYou hit the newt.\n\nIt dies.", "You hit the newt.\nIt dies."),
        ("Welcome to experience level 2.", "Welcome to experience level N."),
        ("There is a gold piece here.", "There is N gold piece here."),
        ("What do you want to call this? ,0./C", "What do you want to call this? _"),
        ("What do you want to write with? [- ab or ?*]", "What do you want to write with? [_]"),
        ("Adjust letter to what [cf-zA-Z]?", "Adjust letter to what [_]?"),
        ("Unknown direction: '^D' (use 'h' or '.').", "Unknown direction: '_' (use 'h' or '.')."),
        ("Can't find dungeon feature '^'.", "Can't find dungeon feature '_'."),
        ("Search for: xyz", "Search for: _"),
        ("What do you want to write in the dust here?", "What do you want to write in the dust here?"),
        ("# ab xy: unknown extended", "# _"),
        ("Still climb? [yn] (n) n", "Still climb? [yn] (n)"),
        ("a dog named Fido barks.", "the dog named _ barks."),
        ("  \n ", ""),
        ("You pass the cross.", "You pass the cross."),
    ],
)
def test_canonical_by_hand(message, expected):
    assert canonical(message) == expected


_WORDS = st.sampled_from(
    [
        "a",
        "an",
        "The",
        "A",
        "N",
        "12",
        "f - ",
        "- ",
        "pieces",
        "gold",
        "Agent",
        "called",
        "named",
        "labeled",
        "FOO",
        "[a ?*]",
        "[b-c]",
        "]",
        "[",
        "--More--",
        "\n",
        "  ",
        "Unknown command '",
        "'.",
        "What do you want to call",
        "? ",
        "# ",
        "[yn] (n) ",
        "The ",
        ".",
        "_",
        "$ - ",
        "\x85",
    ]
)


@given(st.text(max_size=60) | st.lists(_WORDS, max_size=12).map(" ".join) | st.lists(_WORDS).map("".join))
@example("1 - 2 - x")
@example("--Mo--More--re--")
def test_canonical_is_idempotent(text):
    once = canonical(text)
    assert canonical(once) == once
    assert once == once.strip()


@given(st.text(max_size=60) | st.lists(_WORDS, max_size=12).map(" ".join) | st.lists(_WORDS).map("".join))
@example("the gold piece, f - a key called Fred, Search for: x, [yn] (n) n")
@example("Can't find dungeon feature '^'.\n# ab xy: unknown extended")
def test_a_rule_that_is_passed_over_would_have_changed_nothing(text):
    for rule in captions._RULES:
        if not any(needed in text for needed in rule.needs):
            assert rule.pattern.sub(rule.by, text) == text


def test_ids_are_stable_positive_and_zero_only_for_silence():
    assert caption_id("") == 0
    # Fixed for ever: ids are stored with labels and shared between runs.
    assert caption_id("You see here the key.") == 5175164826224319029
    assert all(0 < caption_id(f"caption {i}") < 2**63 for i in range(1000))


def test_counts_within_the_episode_and_restart_after_its_end():
    tracker = CaptionTracker(2)
    wall, kill = caption_id("It's solid stone."), caption_id("You kill the newt!")
    ids, counts = tracker.observe([b"It's solid stone.", b""], NO_END)
    assert ids.tolist() == [wall, 0] and counts.tolist() == [1, 0]
    assert ids.dtype == np.int64 and counts.dtype == np.int32
    ids, counts = tracker.observe([b"It's solid stone.", b"You kill a newt!"], np.array([True, False]))
    assert ids.tolist() == [wall, kill] and counts.tolist() == [2, 1]
    _, counts = tracker.observe([b"It's solid stone.", b"You kill the newt!"], NO_END)
    assert counts.tolist() == [1, 2]


def test_new_captions_are_sent_once():
    tracker = CaptionTracker(2)
    tracker.observe([b"You kill a newt!", b"You kill the newt!"], NO_END)
    text = "You kill the newt!"
    assert tracker.take_new() == {caption_id(text): text}
    tracker.observe([b"You kill a newt!", b""], NO_END)
    assert tracker.take_new() == {}


def test_small_cache_changes_nothing():
    messages = [[f"You see here {i % 7} key{i % 5}s.".encode(), b"Ouch!"] for i in range(50)]
    large, small = CaptionTracker(2), CaptionTracker(2, cache_size=2)
    for step in messages:
        for a, b in zip(large.observe(step, NO_END), small.observe(step, NO_END), strict=True):
            np.testing.assert_array_equal(a, b)
    assert large.take_new() == small.take_new()


def test_state_continues_counts_and_known_captions():
    tracker = CaptionTracker(2)
    tracker.observe([b"Ouch!", b"You fall asleep."], NO_END)
    tracker.take_new()
    tracker.observe([b"Ouch!", b"You are hungry."], NO_END)
    again = CaptionTracker(2)
    again.load_state_dict(tracker.state_dict())
    for t in (tracker, again):
        _, counts = t.observe([b"Ouch!", b"You fall asleep."], NO_END)
        assert counts.tolist() == [3, 2]
        assert list(t.take_new().values()) == ["You are hungry."]


def test_bad_input_is_refused():
    tracker = CaptionTracker(2)
    with pytest.raises(ValueError, match="1 messages for 2 games"):
        tracker.observe([b"Ouch!"], NO_END)
    tracker.observe([b"Ouch!", b"Ouch!"], NO_END)
    with pytest.raises(ValueError, match="there are 1 games"):
        CaptionTracker(1).load_state_dict(tracker.state_dict())
    with pytest.raises(ValueError, match="version 0"):
        tracker.load_state_dict({**tracker.state_dict(), "caption_version": 0})


def test_observing_is_cheap():
    tracker = CaptionTracker(64)
    messages = [[b"", f"You see here {i} arrows.".encode()][i % 2] for i in range(64)]
    done = np.zeros(64, bool)
    best = np.inf
    for _ in range(200):
        begin = time.perf_counter()
        tracker.observe(messages, done)
        best = min(best, time.perf_counter() - begin)
    # 0.2 us a message on a 2020s core; the bound only catches a lost cache.
    assert best / 64 < 3e-6


# ---- templates


@pytest.mark.parametrize(
    ("caption", "template"),
    [
        ("", ""),
        ("The newt bites!", "_ bites!"),
        ("The giant beetle bites! The newt misses!", "_ bites! _ misses!"),
        ("You kill the hill orc!", "You kill _!"),
        ("You swap places with your little dog.", "You swap places with your _."),
        ("You see here N uncursed dagger.", "You see here _."),
        ("You see here the pair of iron shoes named _.", "You see here _."),
        ("_ - the blessed +N quarterstaff (weapon in hands).", "_ - _."),
        ("_ - N gold piece.", "_ - N gold piece."),
        ("_ - the scroll labeled _.", "_ - _."),
        ("You see here the wand of death.", "You see here _."),
        ("You see here the ruby potion.", "You see here _."),
        ("The kitten picks up the red gem.", "_ picks up _."),
        ("There is the newt corpse here; eat it? [ynq] (n)", "There is _ corpse here; eat it? [ynq] (n)"),
        ("You see several wolves.", "You see several _."),
        ("You see the flash of light.", "You see the flash of light."),
        ('You read: "ad aerarium".', 'You read: "_".'),
        ("You feel that Mitra is displeased.", "You feel that _ is displeased."),
        ("Hello, Player! Welcome to Asidonhopo's lighting store!", "Hello, Player! Welcome to _'s lighting store!"),
        ("The newt's bite! The dog. House!", "_'s bite! _. House!"),
        ("Welcome to experience level N.", "Welcome to experience level N."),
    ],
)
def test_templates_by_hand(caption, template):
    assert template_of(caption) == template


_WORDS = st.sampled_from(
    ["The", "the", "newt", "newts", "dog", "dogs'", "little", "giant", "N", "gold piece", "cursed", "+N", "wand of",
     "light", "ring", "_", "-", "called _", "(being worn)", "Mitra", "corpse", "bites!", "You", "kill", "\n", '"a"',
     ".", "large box", "box", "partly eaten", "Welcome to Xyz's"]
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(_WORDS, max_size=12).map(" ".join))
def test_idempotent_on_anything_made_of_real_words(text):
    template = template_of(canonical(text))
    assert template_of(template) == template


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=40))
def test_any_text_has_a_template(text):
    assert template_of(template_of(text)) == template_of(text)


def test_who_bites_does_not_matter_but_what_happens_does():
    assert template_of("The newt bites!") == template_of("The jackal bites!") != template_of("The jackal misses!")
