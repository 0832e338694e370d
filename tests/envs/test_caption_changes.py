import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.caption_changes import CaptionChanges, is_change, without_changes
from envs.captions import canonical
from envs.data import EndStatus, EpisodeSeeds
from envs.seeding import ListedSeeds, TrainingSeeds
from envs.spec import GamesConfig
from envs.tasks import make
from rewards.labels.lexicon import Lexicon

BLSTATS, INVENTORY, NAME = 27, 55, 80
HP, MAX_HP, DEPTH, GOLD, XP_LEVEL = 10, 11, 12, 13, 18
YES, NO = np.array([True]), np.array([False])


class Hero:
    """One game's arrays, set by hand."""

    def __init__(self, **stats):
        self.arrays = {
            "blstats": np.zeros((1, BLSTATS), np.int64),
            "inv_glyphs": np.full((1, INVENTORY), 5976, np.int16),
            "inv_strs": np.zeros((1, INVENTORY, NAME), np.uint8),
        }
        self.now(hp=20, max_hp=20, depth=1, xp_level=1, gold=0)
        self.now(**stats)
        self.teller = CaptionChanges(self.arrays)
        self.teller.begin(0)
        self.over = False
        self.play = self.teller.watched(0, lambda action: self.over)

    def now(self, **stats):
        columns = {"hp": HP, "max_hp": MAX_HP, "depth": DEPTH, "gold": GOLD, "xp_level": XP_LEVEL}
        for name, value in stats.items():
            self.arrays["blstats"][0, columns[name]] = value

    def carries(self, **items):
        """``{"g<glyph>" or "g<glyph>_...": name}``, in order."""
        self.arrays["inv_strs"][:] = 0
        self.arrays["inv_glyphs"][:] = 5976
        for place, (glyph, name) in enumerate(items.items()):
            self.arrays["inv_glyphs"][0, place] = int(glyph.split("_")[0][1:])
            self.arrays["inv_strs"][0, place, : len(name)] = np.frombuffer(name.encode("latin-1"), np.uint8)

    def changes(self, playing=YES, over=NO):
        if playing[0]:  # idle games are not played
            self.over = bool(over[0])
            assert self.play(0) is self.over
        return self.teller.lines(playing, over).get(0, b"").decode("latin-1").split("\n")


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({}, {}, [""]),
        ({}, {"hp": 19}, ["(HP fell slightly)"]),
        ({}, {"hp": 15}, ["(HP fell markedly)"]),
        ({}, {"hp": 10}, ["(HP fell by half)"]),
        ({}, {"hp": 5}, ["(HP fell by half)", "(HP low)"]),
        ({"hp": 5}, {"hp": 4}, ["(HP fell slightly)"]),  # low before: no news
        ({"hp": 42, "max_hp": 70}, {"hp": 9}, ["(HP fell markedly)", "(HP low)"]),  # 9 < 70 / 7
        ({"hp": 10}, {"hp": 11}, [""]),  # regeneration
        ({"hp": 10}, {"hp": 12}, ["(HP rose slightly)"]),
        ({"hp": 10}, {"hp": 15}, ["(HP rose markedly)"]),
        ({"hp": 10}, {"hp": 20}, ["(HP rose by half)"]),
        ({}, {"depth": 2}, ["(deeper)"]),
        ({"depth": 2}, {"depth": 1}, ["(higher up)"]),
        ({}, {"xp_level": 2}, ["(experience level rose)"]),
        ({"xp_level": 2}, {"xp_level": 1}, ["(experience level fell)"]),
        ({}, {"gold": 7}, ["(gold rose)"]),
        ({"gold": 7}, {"gold": 0}, ["(gold fell)"]),
        ({}, {"hp": 19, "gold": 3, "depth": 4}, ["(HP fell slightly)", "(deeper)", "(gold rose)"]),
    ],
)
def test_each_change_has_its_words(before, after, says):
    hero = Hero(**before)
    hero.now(**after)
    assert hero.changes() == says
    assert hero.changes() == [""]  # said once


def test_the_pack_is_told_by_kind_and_quantity():
    hero = Hero()
    hero.carries(g10="a +1 long sword (weapon in hand)")
    assert hero.changes() == ["(gained: the +N long sword)"]
    hero.carries(g10="a +1 long sword (weapon in hand)", g20="3 uncursed arrows (in quiver)", g30="a key named Bob")
    assert hero.changes() == ["(gained: N uncursed arrow)", "(gained: the key named _)"]
    hero.carries(g10="a +1 long sword", g20="2 uncursed arrows (in quiver)", g30="a key named Bob")
    assert hero.changes() == ["(gone: N uncursed arrow)"]


@pytest.mark.parametrize(
    "items",
    [
        {"g30": "a potion of water", "g20": "4 arrows"},  # learnt what it is, and letters moved
        {"g20_a": "3 arrows", "g20_b": "an arrow (in quiver)", "g30": "a clear potion"},  # a stack was split
        {"g20": "4 arrows (in quiver)", "g30": "an uncursed clear potion"},
        {"g1": "125 gold pieces", "g20": "4 arrows", "g30": "a clear potion"},  # gold is counted as gold
    ],
)
def test_letters_splits_knowledge_and_coins_change_nothing_in_the_pack(items):
    hero = Hero()
    hero.carries(g20="4 arrows", g30="a clear potion")
    hero.changes()
    hero.carries(**items)
    assert hero.changes() == [""]


def test_a_game_that_ended_leaves_out_what_nethack_has_cleared():
    hero = Hero(hp=9)
    hero.carries(g20="4 arrows")
    hero.changes()
    hero.carries()
    hero.now(hp=3, gold=5)
    assert hero.changes(over=YES) == ["(gold rose)"]


def test_idle_games_and_new_episodes_tell_nothing():
    hero = Hero()
    hero.now(hp=1)
    assert hero.changes(playing=NO) == [""]
    hero.carries(g20="4 arrows")
    hero.now(depth=7, gold=99)
    hero.teller.begin(0)
    assert hero.changes() == [""]


@given(st.text(st.characters(codec="latin-1", exclude_characters="\0\n"), min_size=1, max_size=NAME - 1))
def test_what_is_told_of_any_name_is_canonical_and_known_as_a_change(name):
    hero = Hero()
    hero.carries(g20=name)
    for line in hero.changes():
        assert canonical(canonical(line)) == canonical(line)
    hero.now(hp=1, depth=2, gold=5, xp_level=2)
    for line in hero.changes():
        assert canonical(line) == line and is_change(line)


def test_messages_in_brackets_are_no_changes():
    text = "You see here the key.\n(gained: the key)\n(deeper)"
    assert without_changes(text) == "You see here the key."
    assert without_changes("(deeper)\n(HP low)") == ""
    for message in ("(For instant help press ?)", "(gold rose", "You are (deeper)", "The voice (gained: nothing)."):
        assert not is_change(message) and without_changes(message) == message


KEYS = ("glyphs", "blstats", "message")


def test_the_lexicon_judges_the_message_alone():
    lexicon = Lexicon.packaged()
    assert lexicon.judge("You kill the newt!\n(HP fell by half)") == lexicon.judge("You kill the newt!") == "helpful"
    assert lexicon.judge("(experience level rose)\n(gained: the key)") is None


def test_no_caption_from_play_is_taken_for_a_change():
    captions = Path(__file__).parents[1] / "data" / "captions" / "captions.jsonl"
    texts = [json.loads(line)["text"] for line in captions.read_text(encoding="utf-8").splitlines()]
    assert len(texts) > 2500 and all(without_changes(text) == text == canonical(text) for text in texts)


def test_every_grade_is_of_a_caption_from_play_and_on_the_scale():
    folder = Path(__file__).parents[1] / "data" / "captions"
    rows = [json.loads(line) for line in (folder / "grades.jsonl").read_text(encoding="utf-8").splitlines()]
    listed = [line.split("\t")[1] for line in (folder / "to_grade.txt").read_text(encoding="utf-8").splitlines()]
    known = {json.loads(line)["text"] for line in (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()}
    assert [row["text"].replace("\n", " / ") for row in rows] == listed and len(set(listed)) == 360
    assert {row["text"] for row in rows} <= known and {row["grade"] for row in rows} == {-2, -1, 0, 1, 2}


def _games(task, num_games, captions, seeds=None, obs_keys=KEYS):
    config = GamesConfig(task=task, obs_keys=obs_keys, captions=captions)
    return make(config, num_games, seeds or TrainingSeeds(3, 0, num_games))


@pytest.mark.parametrize("task", ["MiniHack-Room-Ultimate-15x15-v0", "NetHackScore-v0"])
def test_the_games_stay_the_same_and_messages_only_get_lines(task):
    plain, rich = (_games(task, 4, captions) for captions in ("message", "changes"))
    plain.reset(), rich.reset()
    rng, lines_seen = np.random.default_rng(0), set()
    for _ in range(400):
        actions = rng.integers(0, plain.spec.num_actions, 4)
        a, b = plain.step(actions), rich.step(actions)
        assert all(np.array_equal(a.obs[key], b.obs[key]) for key in a.obs) and np.array_equal(a.reward, b.reward)
        for short, long in zip(a.messages, b.messages, strict=True):
            lines = long.decode("latin-1").split("\n")
            assert long.startswith(short)
            added = [line for line in lines if is_change(line)]
            assert short.decode("latin-1") == "\n".join(line for line in lines if not is_change(line))
            lines_seen.update(added)
    assert "(HP fell slightly)" in lines_seen
    plain.close(), rich.close()


def test_a_death_and_the_next_episode_say_nothing_of_hit_points():
    games = _games("MiniHack-Room-Ultimate-15x15-v0", 4, "changes")
    games.reset()
    rng, deaths = np.random.default_rng(0), 0
    for _ in range(3000):
        step = games.step(rng.integers(0, 8, 4))
        for b in step.finished:
            if step.finished[b].end_status == EndStatus.DEATH:
                deaths += 1
                assert b"(HP" not in step.messages[b] and b"(gone: " not in step.messages[b]
        if deaths > 2:
            break
    assert deaths > 2
    games.close()


def test_changes_alone_make_a_message_and_the_key_is_told():
    seeds = [EpisodeSeeds(seed, 2, 3) for seed in range(40)]
    games = _games("MiniHack-KeyRoom-S5-v0", 8, "changes", ListedSeeds(seeds))
    games.reset()
    rng, lines_seen = np.random.default_rng(0), set()
    while games.active.any() and not lines_seen:
        step = games.step(rng.integers(0, games.spec.num_actions, 8))
        lines_seen |= {line for m in step.messages for line in m.split(b"\n") if line.startswith(b"(gained")}
    assert lines_seen == {b"(gained: the key named The Master Key of Thievery)"}
    games.close()


def test_a_policy_that_sees_the_names_of_items_changes_nothing():
    shared, seen = (_games("NetHackScore-v0", 3, "changes", obs_keys=keys) for keys in (KEYS, (*KEYS, "inv_strs")))
    shared.reset(), seen.reset()
    rng, lines_seen = np.random.default_rng(1), 0
    for _ in range(300):
        actions = rng.integers(0, shared.spec.num_actions, 3)
        a, b = shared.step(actions), seen.step(actions)
        assert a.messages == b.messages
        lines_seen += sum(b"\n(gained" in message or b"\n(gone" in message for message in a.messages)
    assert lines_seen > 0 and b.obs["inv_strs"].any(axis=(1, 2)).all()
    shared.close(), seen.close()


def test_a_restored_vector_tells_what_the_first_one_would_have_told():
    first, second = (_games("NetHackScore-v0", 3, "changes") for _ in range(2))
    first.reset()
    rng = np.random.default_rng(5)
    plays = rng.integers(0, first.spec.num_actions, (300, 3))
    for actions in plays[:150]:
        first.step(actions)
    second.load_state_dict(first.state_dict())
    for actions in plays[150:]:
        assert first.step(actions).messages == second.step(actions).messages
    first.close(), second.close()
