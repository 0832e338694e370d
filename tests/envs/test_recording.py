"""Recorded episodes: nothing is lost, nothing of the game changes, and damaged files are recognised."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.evaluate import evaluate
from agents.policy import RandomPolicy
from envs.captions import caption_id
from envs.data import EndStatus, EpisodeResult, EpisodeSeeds, GamesStep
from envs.protocols import GamesSpec, ObsSpec
from envs.recording import RECORDED_COLUMNS, SCREEN, EpisodeRecord, RecordedGames, make_recorded
from envs.schema import COLUMNS, rollout_columns
from envs.seeding import ListedSeeds, evaluation_seeds
from envs.spec import GamesConfig
from envs.tasks import make

MONSTERS = GamesConfig(task="MiniHack-Room-Monster-15x15-v0", max_episode_steps=40)


def record_of(rewards, *, end_status=EndStatus.TASK_SUCCESSFUL, captions=None, screen=None, **columns):
    """A record of as many steps as there are rewards, of one action."""
    T = len(rewards)
    status = np.zeros(T, np.int8)
    status[-1] = end_status
    return EpisodeRecord(
        task="MiniHack-Room-5x5-v0",
        seeds=EpisodeSeeds(1, 2, 3),
        action_names=("wait",),
        actions=np.zeros(T, np.int64),
        env_reward=np.array(rewards, np.float32),
        end_status=status,
        terminated=status > 0,
        truncated=status < 0,
        columns={name.replace("__", "."): np.array(values) for name, values in columns.items()},
        captions=np.array(captions or [""] * T),
        screen=screen,
    )


def assert_same(one, two):
    for name in EpisodeRecord.__slots__:
        first, second = getattr(one, name), getattr(two, name)
        if name == "columns":
            assert list(first) == list(second)
            for column in first:
                np.testing.assert_array_equal(first[column], second[column])
                assert first[column].dtype.kind == second[column].dtype.kind
        elif isinstance(first, np.ndarray):
            np.testing.assert_array_equal(first, second)
            assert first.dtype.kind == second.dtype.kind
        else:
            assert first == second


@pytest.fixture(scope="module")
def played():
    """Results without records, results with, and the records."""
    seeds = evaluation_seeds(6)
    games = make(MONSTERS, 1, ListedSeeds(seeds))
    policy = RandomPolicy(games.spec)
    games.close()
    plain = list(evaluate(policy, lambda B, source: make(MONSTERS, B, source), seeds, num_games=4))
    records = []
    recorded = list(
        evaluate(policy, lambda B, source: make_recorded(MONSTERS, B, source, records.append), seeds, num_games=4)
    )
    return plain, recorded, records


def test_games_play_the_same_when_they_are_recorded(played):
    plain, recorded, records = played
    assert plain == recorded
    assert [record.seeds for record in records] == [result.seeds for result in recorded]
    assert {record.ending for record in records} >= {"death", "out of time"}
    for record, result in zip(records, recorded, strict=True):
        assert record.task == result.task and record.num_steps == result.num_steps
        assert record.end_status[-1] == result.end_status and not record.end_status[:-1].any()
        assert record.env_reward.sum() == pytest.approx(result.env_return, abs=1e-5)


def test_a_record_holds_every_column_of_the_schema_and_comes_back_from_its_file(played, tmp_path):
    for record in played[2]:
        assert tuple(record.columns) == RECORDED_COLUMNS
        record.save(tmp_path / "episode.npz")
        loaded = EpisodeRecord.load(tmp_path / "episode.npz")
        assert_same(record, loaded)
        columns = rollout_columns(loaded.as_rollout(), COLUMNS)
        assert set(columns) == set(COLUMNS)
        assert all(column.shape == (record.num_steps, 1) for column in columns.values())
        assert columns["info.died"][-1, 0] == (record.ending == "death")
    assert [path.name for path in tmp_path.iterdir()] == ["episode.npz"]


def test_columns_are_those_that_the_same_actions_give_again(played):
    record = max(played[2], key=lambda record: record.num_steps)
    games = make(MONSTERS.replace(features=("obs.hp", "obs.message")), 1, ListedSeeds([record.seeds]))
    try:
        games.reset()
        shown = [games.step(np.array([action])).features for action in record.actions]
    finally:
        games.close()
    for name in ("obs.hp", "obs.message"):
        assert [columns[name][0] for columns in shown] == record.columns[name].tolist()


def test_the_screen_is_that_of_each_step_and_no_list_of_the_dead(played):
    for record in played[2]:
        assert record.screen.shape == (record.num_steps, 24, 80)
        words = [screen.tobytes() for screen in record.screen]
        assert all(b"Agent the" in text for text in words)
        status = [int(text.partition(b"HP:")[2].partition(b"(")[0]) for text in words[:-1]]
        assert status == record.columns["obs.hp"][:-1].tolist()


def test_the_player_sees_the_screen_only_where_it_is_configured():
    for keys, sees in ((("blstats",), False), (("blstats", "tty_chars"), True)):
        config = GamesConfig(task="MiniHack-Room-5x5-v0", obs_keys=keys, max_episode_steps=1)
        games = make_recorded(config, 1, ListedSeeds(evaluation_seeds(1)), lambda record: None)
        try:
            obs = games.reset()
            stepped = games.step(np.array([0]))
        finally:
            games.close()
        assert tuple(games.spec.obs) == tuple(obs) == tuple(stepped.obs) == tuple(stepped.final_obs[0]) == keys
        assert ("tty_chars" in obs) is sees


def test_what_was_running_when_a_state_was_taken_is_not_recorded():
    config = GamesConfig(task="MiniHack-Room-5x5-v0", max_episode_steps=3)
    records = []
    games = make_recorded(config, 1, ListedSeeds(evaluation_seeds(3)), records.append)
    try:
        games.reset()
        games.step(np.array([0]))
        games.load_state_dict(games.state_dict())
        while games.active.any():
            games.step(np.array([0]))
    finally:
        games.close()
    assert [record.seeds for record in records] == evaluation_seeds(3)[1:]
    assert [record.num_steps for record in records] == [3, 3]


class WordyGames:
    """Two games that show columns as wide as NetHack's, and end after ``num_steps``."""

    num_games = 2
    action_mask = None

    def __init__(self, num_steps):
        self.left, self.active, self.seeds = num_steps, np.ones(2, bool), iter(evaluation_seeds(2))
        self.screen = np.full((2, 24, 80), 32, np.uint8)
        screen = ObsSpec(shape=(24, 80), dtype=np.dtype(np.uint8))
        self.spec = GamesSpec(tasks=("a", "a"), obs={SCREEN: screen}, action_names=("x",))

    def reset(self):
        return {SCREEN: self.screen}

    def step(self, actions):
        self.left -= 1
        kinds = {"int": np.int64, "bool": bool, "str": "<U200"}
        features = {name: np.full(2, self.left % 5).astype(kinds[COLUMNS[name].dtype]) for name in RECORDED_COLUMNS}
        ended = np.full(2, self.left == 0)
        self.active[:] = ~ended
        results = {
            b: EpisodeResult(
                task="a", seeds=next(self.seeds), env_return=0.0, num_steps=1, end_status=-1, success=False, game={}
            )
            for b in np.flatnonzero(ended)
        }
        return GamesStep(
            obs={SCREEN: self.screen},
            reward=np.zeros(2, np.float32),
            terminated=np.zeros(2, bool),
            truncated=ended,
            end_status=np.where(ended, EndStatus.ABORTED, 0).astype(np.int8),
            final_obs={b: {SCREEN: self.screen[b]} for b in results},
            finished=results,
            features=features,
            messages=[b"You see here an apple.", b""],
        )


def test_a_running_episode_takes_little_memory_a_step():
    records = []
    games = RecordedGames(WordyGames(301), frozenset(), records.append)
    games.reset()
    games.step(np.zeros(2, int))
    tracemalloc.start()
    try:
        for _ in range(200):
            games.step(np.zeros(2, int))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 131 numbers of 8 bytes, 28 of one, and references; seven words of up to 800 bytes each would be five times that.
    assert held / 400 < 2_000
    while games.active.any():
        games.step(np.zeros(2, int))
    expected = np.arange(300, -1, -1) % 5
    for record in records:
        assert tuple(record.columns) == RECORDED_COLUMNS
        for name, column in record.columns.items():
            assert column.base is None or column.base.nbytes <= 301 * 8 * len(RECORDED_COLUMNS)
            kind = COLUMNS[name].dtype
            np.testing.assert_array_equal(column, expected.astype({"int": int, "bool": bool, "str": str}[kind]))
    assert len(records) == 2 and set(records[0].captions) == {"You see here the apple."}


def test_as_rollout_counts_captions():
    rollout = record_of([0, 0, 0, 1], captions=["Hi!", "", "Ho!", "Hi!"]).as_rollout()
    hi, ho = caption_id("Hi!"), caption_id("Ho!")
    assert rollout.caption_id[:, 0].tolist() == [hi, 0, ho, hi]
    assert rollout.caption_count[:, 0].tolist() == [1, 0, 1, 2]
    assert rollout.new_captions == {hi: "Hi!", ho: "Ho!"}
    assert rollout.step_in_episode[:, 0].tolist() == [0, 1, 2, 3]
    assert rollout.final_obs.at.tolist() == [[3, 0]]


@pytest.mark.parametrize(
    ("end_status", "reward", "ending"),
    [(2, 1, "success"), (2, 0, "failure"), (1, 0, "death"), (-1, 0, "out of time"), (0, 0, "unfinished")],
)
def test_an_episode_s_ending_in_words(end_status, reward, ending):
    assert record_of([reward], end_status=end_status).ending == ending


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.integers(-(2**62), 2**62), st.booleans(), texts, texts), min_size=1, max_size=9),
    with_columns=st.booleans(),
    with_screen=st.booleans(),
)
def test_any_record_survives_its_file(tmp_path, rows, with_columns, with_screen):
    numbers, flags, words, captions = (list(column) for column in zip(*rows, strict=True))
    columns = {"obs__hp": numbers, "info__has_key": flags, "obs__message": words} if with_columns else {}
    screen = np.full((len(rows), 24, 80), 65, np.uint8) if with_screen else None
    record = record_of([0.5] * len(rows), captions=captions, screen=screen, **columns)
    record.save(tmp_path / "episode.npz")
    loaded = EpisodeRecord.load(tmp_path / "episode.npz")
    assert {name: column.tolist() for name, column in loaded.columns.items()} == {
        name: column.tolist() for name, column in record.columns.items()
    }
    assert loaded.captions.tolist() == record.captions.tolist()
    assert (loaded.screen is None) == (record.screen is None)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="at least one step"):
        record_of([0]).__class__(**{**_fields(record_of([0])), "actions": np.zeros(0, np.int64)})
    with pytest.raises(ValueError, match=r"columns\[obs.hp\] has shape \(1,\), expected \(2,\)"):
        record_of([0, 0], obs__hp=[1])
    with pytest.raises(ValueError, match=r"screen has shape \(1, 24, 80\)"):
        record_of([0, 0], screen=np.zeros((1, 24, 80), np.uint8))
    with pytest.raises(ValueError, match=r"actions must be in 0\.\.0"):
        record_of([0]).__class__(**{**_fields(record_of([0])), "actions": np.array([1])})


def _fields(record):
    return {name: getattr(record, name) for name in EpisodeRecord.__slots__}


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_is_one_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "episode.npz"
    record = record_of([0, 0, 1], captions=["a", "b", "a"], obs__hp=[3, 2, 1])
    record.save(path)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damages = {"cut": whole[:at], "flip": whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :], "tail": whole[at:]}
    path.write_bytes(damages[data.draw(st.sampled_from(sorted(damages)))])
    try:
        loaded = EpisodeRecord.load(path)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert_same(record, loaded)


def _written(path, **changes):
    arrays = record_of([0, 1])._arrays() | changes
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": np.int64(99)}, "of format 99, not 1"),
        ({"schema_version": np.int64(0)}, "of schema version 0, not"),
        ({"texts": None}, "holds no 'texts'"),
        ({"actions": np.zeros(5, np.int64)}, "not an episode record"),
        ({"captions": np.array([7, 7])}, "not an episode record"),
        ({"seeds": np.zeros(1, np.int64)}, "not an episode record"),
        ({"task": np.array([object()])}, "not an episode record"),
    ],
)
def test_foreign_arrays_are_one_sentence(tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        EpisodeRecord.load(_written(tmp_path / "foreign.npz", **changes))


def test_foreign_files_are_one_sentence(tmp_path):
    path = tmp_path / "foreign.npz"
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    for content in (b"", b"hello", array.getvalue()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not an episode record, or it is damaged"):
            EpisodeRecord.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="not an episode record"):
        EpisodeRecord.load(path)
    with pytest.raises(FileNotFoundError):
        EpisodeRecord.load(tmp_path / "nowhere.npz")
