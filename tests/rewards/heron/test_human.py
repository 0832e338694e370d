"""Preferences of people: files are read strictly, and episodes become segments as play does."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.captions import caption_id
from envs.data import EndStatus, EpisodeSeeds
from envs.features import COLUMNS
from envs.recording import RECORDED_COLUMNS, EpisodeRecord
from rewards.heron.config import JudgesConfig, TreeConfig
from rewards.heron.factors import FactorTable, parse_ranking
from rewards.heron.human import human_pairs, pairs_in_file, read_preferences
from rewards.heron.inputs import ActionInputs, CaptionInputs, ColumnInputs, JoinedInputs

TABLE = FactorTable(parse_ranking(["success", "-turns"]))
ACTIONS = ("north", "wait")
ZEROS = {"int": np.int64, "bool": bool}


def record(T=3, *, task="MiniHack-Room-5x5-v0", seed=1, actions=None, names=ACTIONS, won=True, **columns):
    """An episode of T steps, one game turn each."""
    status = np.zeros(T, np.int8)
    status[-1] = EndStatus.TASK_SUCCESSFUL if won else EndStatus.ABORTED
    held = {
        name: np.full(T, "") if COLUMNS[name].dtype == "str" else np.zeros(T, ZEROS[COLUMNS[name].dtype])
        for name in RECORDED_COLUMNS
    }
    held |= {"obs.turn": np.arange(T) + 1, "prev_obs.turn": np.arange(T)}
    held |= {name.replace("__", "."): np.array(values) for name, values in columns.items()}
    return EpisodeRecord(
        task=task,
        seeds=EpisodeSeeds(seed, 0, 0),
        action_names=names,
        actions=np.array(actions or [0] * T, np.int64),
        env_reward=(status > 0).astype(np.float32),
        end_status=status,
        terminated=status > 0,
        truncated=status < 0,
        columns=held,
        captions=np.array(["Ouch!", *[""] * (T - 1)]),
    )


@pytest.fixture
def folder(tmp_path):
    record(3, seed=1).save(tmp_path / "a.npz")
    record(5, seed=2, won=False, actions=[1] * 5).save(tmp_path / "b.npz")
    record(4, seed=3, task="MiniHack-Room-15x15-v0").save(tmp_path / "other.npz")
    record(3, seed=1).save(tmp_path / "copy.npz")
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:500])
    (tmp_path / "text.npz").write_text("no episode")
    return tmp_path


def write(folder, *lines):
    path = folder / "said.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def said(first="a.npz", second="b.npz", preferred="first", **more):
    return {"first": first, "second": second, "preferred": preferred, **more}


def test_lines_are_read_in_order_and_files_once(folder, monkeypatch):
    read = []
    load = EpisodeRecord.load
    monkeypatch.setattr(EpisodeRecord, "load", lambda path: (read.append(path.name), load(path))[1])
    odd = json.dumps(said("b.npz", "a.npz", "second", by="me\u2028"), ensure_ascii=False)
    path = write(folder, said(), "", odd, said(preferred="equal"))
    found = read_preferences(path)
    assert [preference.target for preference in found] == [1.0, 0.0, 0.5]
    assert [preference.where for preference in found] == [f"{path} line {number}" for number in (1, 3, 4)]
    assert found[0].first is found[1].second and found[0].first.num_steps == 3
    assert sorted(read) == ["a.npz", "b.npz"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON that can be read"),
        ("null", "expected an object with first, second, preferred, not null"),
        ('{"first": "a.npz", "second": "b.npz"}', "'preferred' is missing"),
        ({"second": "b.npz", "preferred": "first"}, "'first' is missing"),
        (said(first=3), "'first' is 3, it must be a string"),
        (said(preferred=["first"]), "'preferred' is .*must be a string"),
        (said(preferred="First"), "preferred is 'First', allowed are first, second, equal"),
        (said(second="absent.npz"), "the episode .*absent.npz cannot be read: No such file"),
        (said(second="."), "cannot be read: Is a directory"),
        (said(second="damaged.npz"), "damaged.npz is not an episode record"),
        (said(second="text.npz"), "text.npz is not an episode record"),
        (said(second="other.npz"), "different tasks, MiniHack-Room-5x5-v0 and MiniHack-Room-15x15-v0"),
        (said(second="a.npz"), "a.npz and a.npz are the same episode"),
        (said(second="copy.npz"), "a.npz and copy.npz are the same episode"),
    ],
)
def test_bad_lines_are_refused_in_one_sentence_with_their_place(folder, line, problem):
    path = write(folder, said(), line)
    with pytest.raises(ValueError, match=problem) as refused:
        read_preferences(path)
    assert str(refused.value).startswith(f"{path} line 2: ") and "\n" not in str(refused.value)


def test_files_that_hold_nothing_are_refused(folder):
    with pytest.raises(ValueError, match=r"absent\.jsonl cannot be read: No such file"):
        read_preferences(folder / "absent.jsonl")
    with pytest.raises(ValueError, match="holds no preference"):
        read_preferences(write(folder, "", "  "))
    (folder / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not text in UTF-8"):
        read_preferences(folder / "binary.jsonl")


@given(st.text(st.characters(codec="utf-8")))
def test_no_line_ends_in_another_error(tmp_path_factory, line):
    path = tmp_path_factory.mktemp("any") / "said.jsonl"
    path.write_bytes(line.encode())
    with pytest.raises(ValueError, match=r"said\.jsonl"):
        read_preferences(path)


def test_whole_episodes_are_read_as_play_is(folder):
    inputs = JoinedInputs([ActionInputs(2), ColumnInputs(("obs.turn",)), CaptionInputs(4)])
    pairs = human_pairs(read_preferences(write(folder, said(), said("b.npz", "a.npz", "equal"))), inputs, TABLE)
    assert pairs.source == "human" and pairs.target.tolist() == [1.0, 0.5]
    assert pairs.first.lengths.tolist() == [3, 5] and pairs.second.lengths.tolist() == [5, 3]
    assert pairs.first.factors.tolist() == [[1, 3], [0, 5]]
    bucket = np.eye(4)[caption_id("Ouch!") % 4].tolist()
    none = [0.0] * 4
    assert pairs.first.inputs[:3].tolist() == [[1, 0, 1, *bucket], [1, 0, 2, *none], [1, 0, 3, *none]]
    assert pairs.first.inputs[3].tolist() == [0, 1, 1, *bucket]
    assert pairs.first.ended.all() and (pairs.first.first_step == 0).all()
    assert pairs.first.caption_id[0] == caption_id("Ouch!")
    ids = pairs.first.episode_id
    assert ids[0] == pairs.second.episode_id[1] != ids[1] == pairs.second.episode_id[0]
    assert (ids > 0).all()


def test_what_factors_cannot_read_is_told_with_the_place(folder):
    divides = FactorTable(parse_ranking(["x = obs.hp / obs.max_hp"]))
    path = write(folder, said())
    with pytest.raises(ValueError, match=r"said.jsonl line 1: factor 'x' is not finite"):
        human_pairs(read_preferences(path), ActionInputs(2), divides)


def config(path, **more):
    return TreeConfig(judges=JudgesConfig(sources=("human",), human=path), **more)


def test_actions_go_by_their_names(folder):
    path = write(folder, said())
    of_more = pairs_in_file(config(path), ("east", "wait", "north"))
    assert of_more.first.inputs[:, :3].tolist() == [[0, 0, 1]] * 3
    assert of_more.second.inputs[:, :3].tolist() == [[0, 1, 0]] * 5
    own = pairs_in_file(config(path), ACTIONS)
    assert own.first.episode_id == of_more.first.episode_id
    with pytest.raises(ValueError, match=r"line 1: an episode was played with the action 'wait', not in this run"):
        pairs_in_file(config(path), ("north",))
    assert pairs_in_file(TreeConfig(), ACTIONS) is None


def test_actions_that_were_not_played_may_be_missing(folder):
    record(2, seed=7, names=("north", "dance", "wait"), actions=[0, 2]).save(folder / "more.npz")
    pairs = pairs_in_file(config(write(folder, said("more.npz"))), ACTIONS)
    assert pairs.first.inputs[:, :2].tolist() == [[1, 0], [0, 1]]
    record(2, seed=7, names=("north", "dance", "wait"), actions=[0, 1]).save(folder / "more.npz")
    with pytest.raises(ValueError, match="played with the action 'dance', not in this run"):
        pairs_in_file(config(write(folder, said("more.npz"))), ACTIONS)


def test_episodes_are_of_the_tasks_that_are_played(folder):
    tasks = ("MiniHack-Room-5x5-v0", "MiniHack-KeyRoom-S5-v0")
    path = write(folder, said())
    assert pairs_in_file(config(path), ACTIONS, tasks).target.tolist() == [1.0]
    with pytest.raises(ValueError, match=r"line 1: .* the task MiniHack-Room-5x5-v0, this run plays MiniHack-KeyRoom-"):
        pairs_in_file(config(path), ACTIONS, tasks[1:])


@pytest.mark.parametrize(
    ("judges", "problem"),
    [
        ({"sources": ["tree", "tree"]}, "names 'tree' twice"),
        ({"sources": ["labeller", "tree"]}, "the tree, which costs nothing, comes before all others"),
        ({"sources": ["human"]}, "judges.human, the file of pairs, goes with 'human'"),
        ({"human": "said.jsonl"}, "judges.human, the file of pairs, goes with 'human'"),
        ({"sources": []}, "at least 1 item"),
        ({"sources": ["people"]}, "'tree', 'labeller' or 'human'"),
        ({"pairs_per_update": 0}, "greater than 0"),
    ],
)
def test_judges_that_do_not_go_together_are_refused(judges, problem):
    with pytest.raises(ValueError, match=problem):
        TreeConfig.model_validate({"judges": judges})


def test_records_hold_nothing_to_encode(tmp_path):
    with pytest.raises(ValueError, match=r"model\.encoder reads observations"):
        config(tmp_path / "said.jsonl", model={"encoder": True})
