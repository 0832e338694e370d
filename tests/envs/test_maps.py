"""The compiled passes over maps give what those in numpy give; what each is for is tested with its users."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import maps
from envs.glyphs import COLS, NEAREST_CLASSES, NUM_GLYPHS, ROWS, SCENERY, STONE, rows_of_glyphs

needs_compiled = pytest.mark.skipif(maps.nearest is maps.nearest_in_numpy, reason="envs._maps was not built")
FAR, NUM_FIELDS, NOT_COMPARED = 99, 6, 5
PLACE = (0, 1, 2, 3)
ROWS_OF_ALL = rows_of_glyphs(NEAREST_CLASSES)

seeds = st.integers(0, 2**32 - 1)
densities = st.sampled_from([0.0, 0.002, 0.05, 1.0])


def random_maps(rng, density, num_games=3):
    """[B, 21, 79] like those of games: with a spare cell between one and the next."""
    padded = np.zeros((num_games, ROWS * COLS + 1), np.int16)
    anything = rng.integers(0, NUM_GLYPHS, (num_games, ROWS * COLS))
    scenery = rng.choice([STONE, STONE + 1, STONE + 11, STONE + 19, STONE + 22], anything.shape)
    padded[:, :-1] = np.where(rng.random(anything.shape) < density, anything, scenery)
    glyphs = padded[:, :-1].reshape(num_games, ROWS, COLS)
    assert np.shares_memory(glyphs, padded)
    return glyphs


def random_status(rng, num_games=3):
    status = rng.integers(0, 2, (NUM_FIELDS, num_games))
    status[0] += rng.integers(0, COLS - 1, num_games)
    status[1] += rng.integers(0, ROWS - 1, num_games)
    return status


def both(name, arrays, *outputs):
    """Call the two functions with their own copies of the outputs, and compare these."""
    theirs, ours = [o.copy() for o in outputs], [o.copy() for o in outputs]
    getattr(maps, f"{name}_in_numpy")(*arrays, *theirs)
    getattr(maps, name)(*arrays, *ours)
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(a, b)
    return ours


@needs_compiled
@settings(max_examples=60, deadline=None)
@given(seeds, densities, st.sets(st.sampled_from(NEAREST_CLASSES), min_size=1))
def test_nearest(seed, density, names):
    rng = np.random.default_rng(seed)
    status = random_status(rng)
    key, count = np.zeros((3, len(names)), np.int32), np.zeros((3, len(names)), np.int64)
    rows = rows_of_glyphs(sorted(names))
    both("nearest", (random_maps(rng, density), status[0], status[1], rows, SCENERY), key, count)


@needs_compiled
@settings(max_examples=30, deadline=None)
@given(seeds, densities, densities)
def test_mark_seen(seed, density, seen_density):
    rng = np.random.default_rng(seed)
    glyphs = random_maps(rng, density)
    glyphs[:, :, 40:] = STONE
    seen = rng.random(glyphs.shape) < seen_density
    again, _ = both("mark_seen", (glyphs, STONE), seen, np.zeros(3, np.int64))
    _, fresh = both("mark_seen", (glyphs, STONE), again, np.zeros(3, np.int64))
    assert fresh.tolist() == [0, 0, 0]


@needs_compiled
@settings(max_examples=30, deadline=None)
@given(seeds)
def test_differ(seed):
    rng = np.random.default_rng(seed)
    glyphs, status = random_maps(rng, 0.05, 4), random_status(rng, 4)
    glyphs_before, status_before = glyphs.copy(), status.copy()
    glyphs_before[0, rng.integers(ROWS), rng.integers(COLS)] += 1
    status_before[rng.integers(NOT_COMPARED), 1] += 1
    status_before[NOT_COMPARED, 2] += 1
    arrays = (glyphs, glyphs_before, status, status_before, NOT_COMPARED)
    (changed,) = both("differ", arrays, np.zeros(4, bool))
    assert changed.tolist() == [True, True, False, False]


@needs_compiled
@settings(max_examples=60, deadline=None)
@given(seeds, densities, st.sets(st.sampled_from(NEAREST_CLASSES), min_size=1))
def test_nearby(seed, density, names):
    rng = np.random.default_rng(seed)
    rows = rows_of_glyphs(sorted(names))
    underfoot = np.where(rng.random(NUM_GLYPHS) < 0.5, rows, maps.NO_ROW).astype(np.uint8)
    glyphs, glyphs_before = random_maps(rng, density), random_maps(rng, density)
    status, status_before = random_status(rng), random_status(rng)
    moved = rng.random(3) < 0.5
    status_before[:, ~moved] = status[:, ~moved]
    shape = (3, len(names))
    distance, count = rng.choice([0, 3, FAR], shape), rng.integers(0, 9, shape)
    under = np.where(rng.random(3) < 0.5, rng.integers(0, len(names), 3), maps.NO_ROW).astype(np.uint8)
    theirs, ours = under.copy(), under.copy()
    steps = []
    for nearby, lies_under in ((maps.nearby_in_numpy, theirs), (maps.nearby, ours)):
        out = [np.zeros(shape, np.int64) for _ in range(3)]
        places = (glyphs, glyphs_before, status, status_before, PLACE)
        nearby(*places, rows, underfoot, SCENERY, FAR, lies_under, distance, count, *out)
        steps.append([lies_under, *out])
    for a, b in zip(*steps, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("nearest", [maps.nearest_in_numpy, maps.nearest])
def test_a_glyph_out_of_range_is_refused(nearest):
    glyphs = np.full((1, ROWS, COLS), NUM_GLYPHS, np.int16)
    at = np.zeros(1, np.int64)
    key, count = np.zeros((1, 21), np.int32), np.zeros((1, 21), np.int64)
    with pytest.raises(IndexError):
        nearest(glyphs, at, at, ROWS_OF_ALL, SCENERY, key, count)


@needs_compiled
def test_arrays_of_the_wrong_kind_are_refused():
    glyphs = np.full((2, ROWS, COLS), STONE, np.int16)
    seen, fresh = np.zeros((2, ROWS, COLS), bool), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match=r"glyphs has 3 axes of 4-byte items, expected 3 axes of 2-byte items"):
        maps.mark_seen(glyphs.astype(np.int32), STONE, seen, fresh)
    with pytest.raises(ValueError, match="glyphs is not contiguous within a game"):
        maps.mark_seen(glyphs[:, :, ::2], STONE, seen, fresh)
    with pytest.raises(ValueError, match=r"seen holds 1 games of 1659 items, expected 2 of 1659"):
        maps.mark_seen(glyphs, STONE, seen[:1], fresh)
    fresh.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        maps.mark_seen(glyphs, STONE, seen, fresh)


@needs_compiled
def test_a_hero_outside_of_the_map_is_refused():
    glyphs = np.full((1, ROWS, COLS), STONE, np.int16)
    status = np.zeros((4, 1), np.int64)
    status[0] = COLS
    table = np.zeros((1, 21), np.int64)
    with pytest.raises(IndexError, match="outside the map"):
        maps.nearby(
            glyphs, glyphs, status, status, PLACE, ROWS_OF_ALL, ROWS_OF_ALL, SCENERY, FAR,
            np.zeros(1, np.uint8), table, table, table.copy(), table.copy(), table.copy(),
        )  # fmt: skip
