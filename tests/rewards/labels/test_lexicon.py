from __future__ import annotations

import pytest

from agents.policy import RandomPolicy
from agents.rollout import GeneratorNoise
from envs.captions import canonical
from envs.seeding import TrainingSeeds
from envs.tasks import GamesConfig, make
from rewards.labels.lexicon import Lexicon, LexiconError, coverage, sentences
from tests.benchmarks.studies.jobs import TEN_TASKS

LEXICON = Lexicon.packaged()

HELPFUL = """
You kill the newt!
You destroy the kobold zombie!
Welcome to experience level 2.
You feel more confident in your weapon skills.
$ - 12 gold pieces.
f - a key named The Master Key of Thievery.
g - an oak wand.
The door opens.
You succeed in unlocking the door.
You succeed in picking the lock.
As you kick the door, it crashes open!
As you kick the door, it shatters to pieces!
You find a hidden door.
You push the boulder into the water.  Now you can cross it!
The boulder fills a pit.
The lava cools and solidifies.
The water freezes.
You start to float in the air!
You float up, out of the pit!
There is a staircase down here.
You descend the stairs.
A trap door opens up under you!
You are now wearing an iron shoes.
You feel better.
This orange is delicious!
You dig a hole through the floor.
You feel that Ishtar is well-pleased.
h - a ring (on left hand).
You miss the newt.  You kill the jackal!
"""

NEUTRAL = """
You see here a key.
You see here an uncursed flint stone.
This door is locked.
WHAMM!!
In what direction?
What do you want to use or apply? [abf or ?*]
Unlock it? [yn] (n)
There is a staircase up here.
The newt misses!
The kitten bites the jackal.
You hit the newt.
You swap places with your kitten.
You hear some noises.
a - a +1 club (weapon in hand).
b - an uncursed +0 leather armor (being worn).
With great effort you move the boulder.
You stop at the edge of the lava.
"""

UNHELPFUL = """
It's solid stone.
It's a wall.
You die...
You burn to a crisp...
The newt bites!
The ice troll hits!
You are hit by a dart.
Never mind.
What a strange direction!
There is nothing here to pick up.
You don't have that object.
Nothing happens.
You cannot eat that!
You try to move the boulder, but in vain.
You fall into the water!  You sink like a rock.
You see no door there.
You can't go down here.
The door closes.
You can't move diagonally out of an intact doorway.
Your kitten is in the way!
You feel that Ishtar is displeased.
Your potion of sickness freezes and shatters!
Unknown command 'M-a'.
You kill the kitten!  You murderer!
You are beginning to feel weak.
You drop a +1 club.
A trap door in the ceiling opens and a rock falls on your head!
"""


@pytest.mark.parametrize(
    ("message", "verdict"),
    [(m, v) for v, block in (("helpful", HELPFUL), ("neutral", NEUTRAL), ("unhelpful", UNHELPFUL))
     for m in block.strip().split("\n")],
)  # fmt: skip
def test_verdicts_that_a_player_would_give(message, verdict):
    assert LEXICON.judge(canonical(message)) == verdict


@pytest.mark.parametrize(
    ("message", "goal", "verdict"),
    [
        ("You kill the newt!", "combat", "helpful"),
        ("You kill the newt!", "gold", "neutral"),
        ("$ - 12 gold pieces.", "gold", "helpful"),
        ("$ - 12 gold pieces.", "stairs", "neutral"),
        ("There is a staircase down here.", "stairs", "helpful"),
        ("There is a staircase down here.", "combat", "neutral"),
        ("You see here 12 gold pieces.", "gold", "helpful"),
        ("You hit the newt.", "combat", "helpful"),
        ("You climb up the stairs.", "stairs", "unhelpful"),
        ("You die...", "gold", "unhelpful"),
    ],
)
def test_goals_have_their_own_columns(message, goal, verdict):
    assert LEXICON.judge(canonical(message), goal) == verdict


def test_what_no_rule_covers_is_not_a_verdict():
    assert LEXICON.judge("Zyxw qwv.") is None
    assert LEXICON.judge("The newt misses! Zyxw qwv.") is None
    assert LEXICON.judge("You kill the newt! Zyxw qwv.") == "helpful"


def test_a_goal_without_a_column_is_refused():
    with pytest.raises(LexiconError, match="needs a language model"):
        LEXICON.judge("Ouch!", "collect potions please")


def test_sentences():
    assert sentences("You kill it! Welcome.\n_ - the key. _ - the wand.") == [
        "You kill it!", "Welcome.", "_ - the key.", "_ - the wand."
    ]  # fmt: skip


def test_every_rule_is_whole():
    assert len(LEXICON.rules) > 150
    assert all(rule.category and rule.why for rule in LEXICON.rules)
    assert len({rule.pattern.pattern for rule in LEXICON.rules}) == len(LEXICON.rules)


def test_coverage_counts_occurrences():
    played = [b"You kill a newt!"] * 3 + [b"", b"Zyxw 5 qwv.", b"Zyxw 6 qwv.", b"It's a wall."]
    found = coverage(played)
    assert (found.occurrences, found.covered) == (6, 4)
    assert found.share == pytest.approx(4 / 6)
    assert found.verdicts == {"helpful": 3, "unhelpful": 1}
    assert found.uncovered == {"Zyxw N qwv.": 2}
    assert coverage([b""]).share == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", "not valid TOML"),
        ("", "has no rules"),
        ("[[category]]\nrules=[{match='a', verdict='good', why='w'}]", "says 'good'"),
        ("[[category]]\nrules=[{match='(', verdict='neutral', why='w'}]", "not a regular expression"),
        ("[[category]]\nrules=[{match='a', verdict='neutral'}]", "lacks 'why'"),
        ("[[category]]\nrules=[{match='a', verdict='neutral', why='w', golld='x'}]", "unknown key 'golld'"),
    ],
)
def test_malformed_files_are_named(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(LexiconError, match=message) as caught:
        Lexicon.read(path)
    assert "mine.toml" in str(caught.value)


def test_a_missing_file_and_the_revision(tmp_path):
    with pytest.raises(LexiconError, match="no lexicon file"):
        Lexicon.read(tmp_path / "absent.toml")
    rule = "[[category]]\nname='c'\nrules=[{match='a', verdict='neutral', why='%s'}]"
    one, two = (Lexicon.parse((rule % why).encode(), "x") for why in "ab")
    assert one.revision != two.revision and len(one.revision) == 16


@pytest.mark.slow
@pytest.mark.parametrize("task", TEN_TASKS)
def test_at_least_four_fifths_of_what_random_play_says_is_judged(task):
    games = make(GamesConfig(task=task, obs_keys=("blstats",)), 8, TrainingSeeds(7, 0, 8))
    policy, noise = RandomPolicy(games.spec), GeneratorNoise(8, 7)
    obs, messages = games.reset(), []
    for _ in range(500):
        step = games.step(policy.act(obs, None, games.action_mask, noise).actions)
        messages += step.messages
    games.close()
    assert coverage(messages).share >= 0.8
