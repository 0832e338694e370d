import gymnasium
import minihack  # noqa: F401  (registers the ids)
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nle import nethack

from envs.data import FinalObs, Rollout
from envs.schema import (
    COLUMNS,
    FIELDS,
    SCHEMA_VERSION,
    SOURCES,
    FeatureTable,
    check_names,
    describe_schema,
    nearest_names,
    rollout_columns,
)
from envs.schema_memory import FAR
from envs.schema_sources import CONDITIONS, MESSAGE_CHARS, STATUS

STONE = nethack.GLYPH_CMAP_OFF
FLOOR, STAIRS_DOWN = STONE + 19, STONE + 24
KEY = nethack.GLYPH_OBJ_OFF + 196
MOVES = ("north", "east", "south", "west")
GAME_COLUMNS = tuple(name for name, field in COLUMNS.items() if not field.from_rollout)


def blank(num_games=2):
    """Buffers of games whose hero stands at (10, 5) in the dark, on level 1."""
    buffers = {
        "glyphs": np.full((num_games, 21, 79), STONE, np.int16),
        "blstats": np.zeros((num_games, 27), np.int64),
        "message": np.zeros((num_games, 256), np.uint8),
        "inv_oclasses": np.full((num_games, 55), nethack.MAXOCLASSES, np.uint8),
        "inv_glyphs": np.full((num_games, 55), nethack.MAX_GLYPH, np.int16),
    }
    buffers["blstats"][:, [STATUS["x"], STATUS["y"], STATUS["depth"], STATUS["dungeon_level"]]] = 10, 5, 1, 1
    buffers["blstats"][:, STATUS["hunger"]] = 1
    buffers["glyphs"][:, 5, 10] = 330
    return buffers


def begun(names, buffers, num_games=2, **options):
    table = FeatureTable(names, num_games, **options)
    table.reset(buffers, np.arange(num_games))
    return table


def step(table, buffers, messages=(b"", b""), actions=(0, 0)):
    columns = table.update(buffers, np.array(actions), list(messages))
    return {name: column.tolist() for name, column in columns.items()}


def put(buffers, name, values):
    buffers["blstats"][:, STATUS[name]] = values


def test_every_field_is_described_and_rendered():
    text = describe_schema()
    assert f"Schema version {SCHEMA_VERSION}" in text
    for field in FIELDS:
        assert field.description.strip()
        assert field.unit.strip()
        read_as = "`action`" if field.group == "action" else f"`{field.group}['{field.name}']`"
        assert sum(line.startswith(f"| {read_as} |") for line in text.splitlines()) == 1
    assert text.isascii()
    names = [field.qualified for field in FIELDS]
    assert len(names) == len(set(names))


def test_every_field_has_one_source():
    offered = [name for source in SOURCES for name in source.offers]
    assert len(offered) == len(set(offered))
    assert set(offered) == set(GAME_COLUMNS)


def test_types_are_as_published():
    table = begun(GAME_COLUMNS, blank(), action_names=MOVES)
    columns = table.update(blank(), np.array([0, 3]), [b"Hello.", b""])
    assert tuple(columns) == GAME_COLUMNS
    kinds = {"int": "i", "bool": "b", "str": "U"}
    for name, column in columns.items():
        assert column.shape == (2,), name
        assert column.dtype.kind == kinds[COLUMNS[name].dtype], name
        assert not column.dtype.hasobject


def test_status_now_and_before():
    buffers = blank()
    put(buffers, "hp", [12, 9])
    table = begun(["obs.hp", "prev_obs.hp", "obs.hunger_word", "obs.burden_word", "prev_obs.turn"], buffers)
    assert set(table.nle_keys) == {"blstats"}
    put(buffers, "hp", [11, 9])
    put(buffers, "hunger", [3, 6])
    put(buffers, "burden", [0, 1])
    put(buffers, "turn", [5, 6])
    assert step(table, buffers) == {
        "obs.hp": [11, 9],
        "prev_obs.hp": [12, 9],
        "obs.hunger_word": ["weak", "starved"],
        "obs.burden_word": ["unencumbered", "burdened"],
        "prev_obs.turn": [0, 0],
    }
    assert step(table, buffers)["prev_obs.turn"] == [5, 6]


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions(name):
    buffers = blank()
    table = begun([f"obs.{name}", "obs.hp"], buffers)
    buffers["blstats"][1, nethack.NLE_BL_CONDITION] = CONDITIONS[name]
    assert step(table, buffers)[f"obs.{name}"] == [False, True]
    buffers["blstats"][1, nethack.NLE_BL_CONDITION] = (1 << 13) - 1 - CONDITIONS[name]
    assert step(table, buffers)[f"obs.{name}"] == [False, False]


def test_messages():
    buffers = blank()
    buffers["message"][0, :6] = list(b"Hello.")
    names = ["obs.message", "prev_obs.message", "info.same_message", "info.message_count"]
    table = begun(names, buffers)
    assert step(table, buffers, [b"You see 3 arrows.", b""]) == {
        "obs.message": ["You see N arrow.", ""],
        "prev_obs.message": ["Hello.", ""],
        "info.same_message": [False, False],
        "info.message_count": [1, 0],
    }
    after = step(table, buffers, [b"You see 7 arrows.", b"x" * 999])
    assert after["info.same_message"] == [True, False]
    assert after["info.message_count"] == [2, 1]
    assert after["obs.message"] == ["You see N arrow.", "x" * MESSAGE_CHARS]
    table.reset(blank(), np.array([0]))
    again = step(table, buffers, [b"You see 7 arrows.", b"x" * 999])
    assert again["info.message_count"] == [1, 2]
    assert again["prev_obs.message"][0] == ""


def test_action_and_clock():
    table = begun(["action", "info.step_in_episode"], blank(), action_names=MOVES)
    assert table.nle_keys == ()
    first = step(table, blank(), actions=[0, 3])
    assert first == {"action": ["north", "west"], "info.step_in_episode": [0, 0]}
    table.reset(blank(), np.array([1]))
    assert step(table, blank())["info.step_in_episode"] == [1, 0]
    with pytest.raises(ValueError, match="whose actions have names"):
        FeatureTable(["action"], 2)


def test_places():
    buffers = blank()
    table = begun(["info.max_depth", "info.visits_here", "info.tiles_visited"], buffers)
    put(buffers, "x", [11, 10])
    put(buffers, "depth", [3, 1])
    assert list(step(table, buffers).values()) == [[3, 1], [1, 2], [2, 1]]
    put(buffers, "x", 10)
    put(buffers, "depth", 1)
    assert list(step(table, buffers).values()) == [[3, 1], [2, 3], [2, 1]]
    put(buffers, "dungeon_level", 2)  # the same cell of another level is another place
    assert list(step(table, buffers).values()) == [[3, 1], [1, 1], [3, 2]]
    table.reset(buffers, np.array([0]))
    assert list(step(table, buffers).values()) == [[1, 1], [2, 2], [1, 2]]


def test_tiles_are_counted_once_a_level():
    buffers = blank()
    table = begun(["info.new_tiles_seen", "info.tiles_seen", "info.steps_since_new_tile"], buffers)
    buffers["glyphs"][0, 5, 11:14] = FLOOR
    assert list(step(table, buffers).values()) == [[3, 0], [4, 1], [0, 1]]
    buffers["glyphs"][0, 5, 11] = STONE
    assert list(step(table, buffers).values()) == [[0, 0], [4, 1], [1, 2]]
    buffers["glyphs"][0, 5, 11] = FLOOR
    put(buffers, "dungeon_level", [2, 1])
    assert list(step(table, buffers).values()) == [[4, 0], [8, 1], [0, 3]]
    put(buffers, "dungeon_level", [1, 1])
    assert list(step(table, buffers).values()) == [[0, 0], [8, 1], [1, 4]]
    table.reset(buffers, np.array([0]))
    assert list(step(table, buffers).values()) == [[0, 0], [4, 1], [1, 5]]


def test_steps_since_change():
    buffers = blank()
    table = begun(["info.steps_since_change"], buffers)

    def since(messages=(b"", b"")):
        return step(table, buffers, messages)["info.steps_since_change"]

    put(buffers, "turn", 7)
    assert since() == [1, 1]
    buffers["glyphs"][0, 1, 1] = FLOOR
    assert since() == [0, 2]
    put(buffers, "hp", [0, 3])
    assert since() == [1, 0]
    assert since([b"Ouch!", b""]) == [0, 1]
    assert since([b"Ouch!", b""]) == [1, 2]


def test_nearby():
    buffers = blank()
    buffers["glyphs"][0, 5, 14] = STAIRS_DOWN
    names = [f"info.stairs_down_{what}" for what in ("distance", "count", "approach")]
    table = begun(names, buffers)
    assert list(step(table, buffers).values()) == [[4, FAR], [1, 0], [0, 0]]
    put(buffers, "x", 12)
    buffers["glyphs"][1, 5, 20] = STAIRS_DOWN
    buffers["glyphs"][:, 5, 12] = 330
    assert list(step(table, buffers).values()) == [[2, 8], [1, 1], [2, 0]]
    put(buffers, "x", 10)
    assert list(step(table, buffers).values()) == [[4, 10], [1, 1], [-2, -2]]
    put(buffers, "x", 12)
    put(buffers, "dungeon_level", [1, 2])
    assert list(step(table, buffers).values()) == [[2, 8], [1, 1], [2, 0]]
    buffers["glyphs"][:, 5, 10:13] = FLOOR, 330, FLOOR
    put(buffers, "x", 11)
    step(table, buffers)
    buffers["glyphs"][:] = STONE  # the blank map at the end of a game tells nothing
    assert list(step(table, buffers).values()) == [[3, 9], [1, 1], [0, 0]]


def test_what_the_hero_stepped_on_is_at_distance_0():
    buffers = blank()
    buffers["glyphs"][0, 5, 11], buffers["glyphs"][1, 5, 11] = STAIRS_DOWN, 3
    names = ["info.stairs_down_distance", "info.stairs_down_approach", "info.monster_distance"]
    table = begun(names, buffers)
    put(buffers, "x", 11)
    buffers["glyphs"][:, 5, 10:12] = FLOOR, 330
    assert list(step(table, buffers).values()) == [[0, FAR], [1, 0], [FAR, FAR]]
    assert list(step(table, buffers).values()) == [[0, FAR], [0, 0], [FAR, FAR]]
    put(buffers, "x", 12)
    buffers["glyphs"][:, 5, 11:13] = STAIRS_DOWN, 330
    assert list(step(table, buffers).values()) == [[1, 1], [-1, 0], [FAR, FAR]]
    put(buffers, "dungeon_level", 2)
    put(buffers, "x", 11)  # what lies there on another level is not known
    buffers["glyphs"][:, 5, 11:13] = 330, FLOOR
    assert list(step(table, buffers).values()) == [[FAR, FAR], [0, 0], [FAR, FAR]]


def test_inventory():
    buffers = blank()
    buffers["inv_oclasses"][:, :2] = nethack.WEAPON_CLASS, nethack.ARMOR_CLASS
    names = ["count", "change", "gear", "tool", "other_item", "jewelry"]
    table = begun([f"info.inventory_{name}" for name in names] + ["info.has_key"], buffers)
    buffers["inv_oclasses"][0, 2:4] = nethack.TOOL_CLASS, nethack.ROCK_CLASS
    buffers["inv_glyphs"][0, 2] = KEY
    assert list(step(table, buffers).values()) == [
        [4, 2], [2, 0], [2, 2], [1, 0], [1, 0], [0, 0], [True, False],
    ]  # fmt: skip
    assert step(table, buffers)["info.inventory_change"] == [0, 0]


def test_columns_survive_a_restart_in_the_same_step():
    rng = np.random.default_rng(0)
    buffers = blank()
    table = begun(GAME_COLUMNS, buffers, action_names=MOVES)
    for _ in range(3):
        buffers = random_buffers(rng, 2)
        columns = table.update(buffers, np.array([0, 1]), [b"a", b"b"])
        before = {name: column.tolist() for name, column in columns.items()}
        table.reset(random_buffers(rng, 2), np.array([0, 1]))
        assert {name: column.tolist() for name, column in columns.items()} == before


def random_buffers(rng, num_games):
    buffers = blank(num_games)
    buffers["glyphs"][:, 3:6, 8:14] = rng.choice([STONE, FLOOR, STAIRS_DOWN, KEY, 5], (num_games, 3, 6))
    buffers["blstats"][:] = rng.integers(0, 5, (num_games, 27))
    put(buffers, "x", rng.integers(8, 14, num_games))
    put(buffers, "y", rng.integers(3, 6, num_games))
    buffers["inv_oclasses"][:] = rng.integers(1, 19, (num_games, 55))
    return buffers


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sets(st.sampled_from(GAME_COLUMNS), min_size=1, max_size=8))
def test_a_game_does_not_depend_on_its_neighbours_or_on_other_columns(seed, names):
    """Columns of three games together equal those of each alone, whatever else is asked for."""
    rng = np.random.default_rng(seed)
    names = sorted(names)
    together = FeatureTable(GAME_COLUMNS, 3, MOVES)
    alone = [FeatureTable(names, 1, MOVES) for _ in range(3)]
    moments = [random_buffers(rng, 3) for _ in range(12)]
    says = rng.choice(np.array([b"", b"Ouch!", b"You hit the newt."]), (12, 3)).tolist()

    def part(buffers, game):
        return {key: array[game : game + 1] for key, array in buffers.items()}

    together.reset(moments[0], np.arange(3))
    for game, table in enumerate(alone):
        table.reset(part(moments[0], game), np.arange(1))
    for t in range(1, 12):
        actions = rng.integers(0, 4, 3)
        columns = together.update(moments[t], actions, says[t])
        ended = np.flatnonzero(rng.random(3) < 0.2)
        for game, table in enumerate(alone):
            own = table.update(part(moments[t], game), actions[game : game + 1], says[t][game : game + 1])
            assert list(own) == names
            for name in names:
                assert own[name][0] == columns[name][game], name
            if game in ended:
                table.reset(part(moments[t - 1], game), np.arange(1))
        if len(ended):
            together.reset(moments[t - 1], ended)


def test_real_game():
    keys = ("glyphs", "blstats", "message", "inv_oclasses", "inv_glyphs")
    env = gymnasium.make("MiniHack-KeyRoom-S5-v0", observation_keys=keys)
    obs, _ = env.reset()
    table = FeatureTable(GAME_COLUMNS, 1, action_names=[str(a) for a in env.unwrapped.actions])
    assert set(table.nle_keys) == set(keys)
    table.reset({k: v[None] for k, v in obs.items()}, np.array([0]))
    rng = np.random.default_rng(3)
    seen = int((obs["glyphs"] != STONE).sum())
    for t in range(40):
        action = rng.integers(env.action_space.n)
        obs, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            break
        message = obs["message"].tobytes().partition(b"\0")[0]
        now = table.update({k: v[None] for k, v in obs.items()}, np.array([action]), [message])
        seen += int(now["info.new_tiles_seen"][0])
        assert now["info.tiles_seen"][0] == seen
        assert now["obs.x"][0] == obs["blstats"][0]
        assert now["info.step_in_episode"][0] == t
        assert 0 <= now["info.tool_distance"][0] <= FAR
        assert now["obs.hunger_word"][0] == "not hungry"
    env.close()


def test_unknown_names_say_the_nearest():
    with pytest.raises(ValueError, match=r"unknown schema field 'obs.hpp'; nearest: obs.hp"):
        FeatureTable(["obs.hpp"], 1)
    assert nearest_names("hp")[0] in {"obs.hp", "prev_obs.hp"}
    assert nearest_names("info.new_tile_seen")[0] == "info.new_tiles_seen"
    assert nearest_names("prev_obs.maxhp")[0] == "prev_obs.max_hp"
    assert len(nearest_names("zzzzzzzz")) == 3
    with pytest.raises(ValueError, match="prev_info"):
        check_names(["prev_info.max_depth"])


def test_columns_from_the_rollout():
    shape = (2, 2)
    rollout = Rollout(
        obs={},
        actions=np.zeros(shape, int),
        env_reward=np.array([[0, 1], [0, 0]], np.float32),
        terminated=np.array([[True, True], [False, True]]),
        truncated=np.array([[False, False], [True, False]]),
        end_status=np.array([[1, 2], [-1, 2]], np.int8),
        final_obs=FinalObs(at=np.zeros((4, 2), np.int64), obs={}),
        policy_version=np.zeros(shape, np.int64),
        episode_id=np.zeros(shape, np.int64),
        step_in_episode=np.zeros(shape, np.int32),
        features={"obs.hp": np.ones(shape, np.int64)},
    )
    names = ["info.succeeded", "obs.hp", "info.died", "info.timed_out"]
    assert FeatureTable(names, 2).names == ("obs.hp",)
    columns = rollout_columns(rollout, names)
    assert list(columns) == names
    assert columns["info.succeeded"].tolist() == [[False, True], [False, False]]
    assert columns["info.died"].tolist() == [[True, False], [False, True]]
    assert columns["info.timed_out"].tolist() == [[False, False], [True, False]]
    with pytest.raises(ValueError, match=r"holds no schema field 'obs.gold'"):
        rollout_columns(rollout, ["obs.gold"])


def test_nothing_asked_costs_nothing():
    table = FeatureTable([], 2)
    assert table.nle_keys == ()
    table.reset({}, np.arange(2))
    assert table.update({}, np.zeros(2, int), [b"", b""]) == {}
