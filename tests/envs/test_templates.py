import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.captions import canonical
from envs.templates import template_of


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
