import gymnasium
import minihack  # noqa: F401  (registers the ids)
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nle import nethack

from envs.glyphs import (
    CLASS_MEANINGS,
    CLASS_OF_GLYPH,
    GLYPH_CLASSES,
    NEAREST_CLASSES,
    NUM_GLYPHS,
    MapSummary,
    item_class,
)

STONE = nethack.GLYPH_CMAP_OFF


def cmap(symbol):
    return STONE + symbol


def thing(name):
    (number,) = (i for i in range(nethack.NUM_OBJECTS) if nethack.OBJ_NAME(nethack.objclass(i)) == name)
    return nethack.GLYPH_OBJ_OFF + number


def class_of(glyph):
    return GLYPH_CLASSES[CLASS_OF_GLYPH[glyph]]


def slow_summary(glyphs, hero_x, hero_y):
    """The same numbers, one cell at a time."""
    table = np.zeros((len(NEAREST_CLASSES), 4), np.float32)
    for row, name in enumerate(NEAREST_CLASSES):
        found = []
        for y in range(21):
            for x in range(79):
                if (x, y) != (hero_x, hero_y) and class_of(int(glyphs[y, x])) == name:
                    found.append((max(abs(x - hero_x), abs(y - hero_y)), y, x))
        if found:
            _, y, x = min(found)
            dx, dy = x - hero_x, y - hero_y
            table[row] = 1, np.clip(dx / 10, -1, 1), np.clip(dy / 10, -1, 1), np.log1p(len(found)) / 4
    return table


def test_every_glyph_has_a_class_and_every_class_a_meaning():
    assert NUM_GLYPHS == 5977
    assert CLASS_OF_GLYPH.shape == (NUM_GLYPHS,)
    assert set(CLASS_OF_GLYPH.tolist()) == set(range(len(GLYPH_CLASSES)))
    assert set(CLASS_MEANINGS) == set(GLYPH_CLASSES)
    with pytest.raises(ValueError, match="read-only"):
        CLASS_OF_GLYPH[0] = 1


@pytest.mark.parametrize(
    ("glyph", "name"),
    [
        (STONE, "unseen"),
        (nethack.MAX_GLYPH, "unseen"),
        (cmap(1), "wall"),
        (cmap(17), "wall"),
        (cmap(18), "wall"),
        (cmap(12), "doorway"),
        (cmap(13), "doorway"),
        (cmap(15), "closed_door"),
        (cmap(19), "floor"),
        (cmap(20), "floor"),
        (cmap(21), "floor"),
        (cmap(33), "floor"),
        (cmap(23), "stairs_up"),
        (cmap(24), "stairs_down"),
        (cmap(31), "fixture"),
        (cmap(32), "water"),
        (cmap(34), "lava"),
        (cmap(42), "trap"),
        (cmap(64), "trap"),
        (0, "monster"),
        (nethack.GLYPH_PET_OFF + 5, "pet"),
        (nethack.GLYPH_INVISIBLE, "monster"),
        (nethack.GLYPH_DETECT_OFF, "monster"),
        (nethack.GLYPH_RIDDEN_OFF, "monster"),
        (nethack.GLYPH_BODY_OFF + 3, "corpse"),
        (nethack.GLYPH_SWALLOW_OFF, "monster"),
        (nethack.GLYPH_WARNING_OFF, "monster"),
        (nethack.GLYPH_STATUE_OFF, "statue"),
        (nethack.GLYPH_EXPLODE_OFF, "floor"),
        (nethack.GLYPH_ZAP_OFF, "floor"),
        (thing("boulder"), "boulder"),
        (thing("statue"), "statue"),
        (thing("corpse"), "corpse"),
        (thing("gold piece"), "gold"),
        (thing("skeleton key"), "tool"),
        (thing("frost horn"), "tool"),
        (thing("death"), "wand"),
        (thing("apple"), "food"),
        (thing("long sword"), "gear"),
        (thing("plate mail"), "gear"),
        (thing("free action"), "jewelry"),
        (thing("amulet of ESP"), "jewelry"),
        (thing("novel"), "scroll"),
        (thing("booze"), "potion"),
        (thing("diamond"), "other_item"),
        (thing("strange object"), "other_item"),
    ],
)
def test_class_of_glyph(glyph, name):
    assert class_of(glyph) == name


def test_the_table_agrees_with_the_predicates_of_nle():
    glyphs = np.arange(nethack.MAX_GLYPH, dtype=np.int32)
    in_class = {name: CLASS_OF_GLYPH[:-1] == i for i, name in enumerate(GLYPH_CLASSES)}
    np.testing.assert_array_equal(in_class["pet"], nethack.glyph_is_pet(glyphs))
    differs = np.flatnonzero(in_class["trap"] != nethack.glyph_is_trap(glyphs))
    assert differs.tolist() == [cmap(65)]  # a beam, not a trap: the predicate reaches one too far
    assert in_class["statue"][nethack.glyph_is_statue(glyphs)].all()
    assert in_class["corpse"][nethack.glyph_is_body(glyphs)].all()
    monsters = nethack.glyph_is_monster(glyphs) & ~nethack.glyph_is_pet(glyphs)
    assert in_class["monster"][monsters].all()


def test_item_class():
    assert item_class(nethack.WAND_CLASS) == "wand"
    assert item_class(nethack.GEM_CLASS) == "other_item"


def test_hand_computed_summary():
    glyphs = np.full((1, 21, 79), cmap(19), np.int16)
    glyphs[0, 5, 10] = 0  # the hero's own cell looks like a monster
    glyphs[0, 3, 12] = cmap(24)
    glyphs[0, 5, 60] = cmap(34)
    glyphs[0, 7, 9] = cmap(34)
    glyphs[0, 7, 8] = cmap(34)
    glyphs[0, 3, 8] = cmap(34)
    summary = MapSummary(4)
    out = np.full((1, *summary.shape), np.nan, summary.dtype)
    summary.fill(glyphs, np.array([10]), np.array([5]), out)
    by_name = dict(zip(summary.names, out[0].tolist(), strict=True))
    assert by_name["monster"] == [0, 0, 0, 0]
    assert by_name["stairs_down"] == pytest.approx([1, 0.2, -0.2, np.log(2) / 4])
    # Three lava cells lie 2 moves away: the upper row wins; the one 50 columns away only counts.
    assert by_name["lava"] == pytest.approx([1, -0.2, -0.2, np.log(5) / 4])
    key, count = summary.nearest(glyphs, np.array([10]), np.array([5]))
    lava = summary.names.index("lava")
    assert summary.distance(key)[0, lava] == 2
    assert summary.distance(key)[0, summary.names.index("pet")] == -1
    assert count[0, lava] == 4


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.001, 0.05, 1.0]))
def test_random_maps_equal_the_slow_reference(seed, density):
    rng = np.random.default_rng(seed)
    shape = (2, 21, 79)
    glyphs = np.where(rng.random(shape) < density, rng.integers(0, NUM_GLYPHS, shape), STONE).astype(np.int16)
    x, y = rng.integers(0, 79, 2), rng.integers(0, 21, 2)
    summary = MapSummary(2)
    out = np.full((2, *summary.shape), np.nan, np.float32)
    summary.fill(glyphs, x, y, out)
    for game in range(2):
        np.testing.assert_allclose(out[game], slow_summary(glyphs[game], x[game], y[game]), rtol=1e-6)


@pytest.mark.parametrize("task", ["MiniHack-River-Narrow-v0", "NetHackScore-v0"])
def test_real_games_equal_the_slow_reference(task):
    env = gymnasium.make(task, observation_keys=("glyphs", "blstats", "message"))
    rng = np.random.default_rng(0)
    obs, _ = env.reset()
    maps = []
    for step in range(60):
        if step % 15 == 0:
            maps.append((obs["glyphs"].copy(), obs["blstats"][:2].copy()))
        obs, _, terminated, truncated, _ = env.step(int(rng.integers(8)))
        if terminated or truncated:
            obs, _ = env.reset()
    env.close()
    glyphs = np.stack([g for g, _ in maps])
    at = np.stack([xy for _, xy in maps])
    summary = MapSummary(len(maps))
    out = np.zeros((len(maps), *summary.shape), np.float32)
    summary.fill(glyphs, at[:, 0], at[:, 1], out)
    for game, (x, y) in enumerate(at):
        np.testing.assert_allclose(out[game], slow_summary(glyphs[game], x, y), rtol=1e-6)
    assert out[:, :, 0].any()


def test_a_summary_serves_fewer_games_and_a_slice_of_a_larger_array():
    rng = np.random.default_rng(0)
    wide = rng.integers(0, NUM_GLYPHS, (3, 2, 21, 79)).astype(np.int16)
    summary = MapSummary(8)
    x, y = np.array([1, 2, 3]), np.array([4, 5, 6])
    a, b = np.zeros((2, 3, *summary.shape), np.float32)
    summary.fill(wide[:, 1], x, y, a)
    summary.fill(np.ascontiguousarray(wide[:, 1]), x, y, b)
    np.testing.assert_array_equal(a, b)
