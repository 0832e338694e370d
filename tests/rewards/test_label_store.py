from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.captions import caption_id
from rewards.labels.store import CaptionCollisionError, Label, LabelStore, LabelStoreError, label_key

ROOT = Path(__file__).parents[2]


def label(text: str, value: float | None = 1.0, **fields) -> Label:
    asked = {"prompt_version": "p1", "model": "m", "model_revision": "r", "goal": "score"}
    fields = {"probability": None, "raw_reply": str(value), "failed": False, "time_s": 0.5} | fields
    key, ident = label_key(text, **asked), caption_id(text)
    return Label(key=key, caption_id=ident, text=text, value=value, **asked, **fields)


def test_append_get_count_and_first_wins(tmp_path):
    with LabelStore(tmp_path / "new" / "labels.sqlite") as store:
        first = label("You kill the newt!", probability=0.9)
        assert store.append([first, label("Ouch!", 0.0)]) == 2
        assert store.append([label("You kill the newt!", 0.0), label("Never mind.", None)]) == 1
        assert store.count() == 3
        assert store.get([first.key, "absent"]) == {first.key: first}


def test_failures_and_abstentions_are_not_zeros(tmp_path):
    with LabelStore(tmp_path / "l.sqlite") as store:
        rows = [label("x", None, failed=True, raw_reply="maybe?"), label("y", None, raw_reply="unknown")]
        store.append(rows)
    with LabelStore(tmp_path / "l.sqlite", read_only=True) as store:
        assert store.since()[0] == rows


def test_pairs_keep_their_order(tmp_path):
    asked = {"prompt_version": "p1", "model": "m", "model_revision": "r", "goal": "score"}
    assert label_key("a", second_text="b", **asked) != label_key("b", second_text="a", **asked)
    assert label_key("ab", second_text="c", **asked) != label_key("a", second_text="bc", **asked)
    pair = label("a", second_id=caption_id("b"), second_text="b")
    with LabelStore(tmp_path / "l.sqlite") as store:
        store.append([pair])
        assert store.since()[0] == [pair]


@pytest.mark.parametrize("field", ["prompt_version", "model", "model_revision", "goal", "text"])
def test_the_key_depends_on_everything(field):
    asked = {"text": "t", "prompt_version": "p1", "model": "m", "model_revision": "r", "goal": "score"}
    assert label_key(**asked) != label_key(**(asked | {field: "other"}))


def test_nothing_can_be_changed_or_deleted(tmp_path):
    with LabelStore(tmp_path / "l.sqlite") as store:
        store.append([label("Ouch!")])
    with sqlite3.connect(tmp_path / "l.sqlite") as db:
        for statement in ("UPDATE labels SET value = 0", "DELETE FROM labels", "DELETE FROM captions",
                          "UPDATE captions SET text = 'x'"):  # fmt: skip
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)


def test_a_collision_is_an_error_and_stores_nothing(tmp_path):
    with LabelStore(tmp_path / "l.sqlite") as store:
        store.append([label("Ouch!")])
        collide = replace(label("other"), caption_id=caption_id("Ouch!"))
        for batch in ([label("new"), collide], [collide, label("Ouch!")]):
            with pytest.raises(CaptionCollisionError, match="cannot also stand for"):
                store.append(batch)
        assert store.count() == 1


def test_one_writer_many_readers(tmp_path):
    path = tmp_path / "l.sqlite"
    with LabelStore(path) as writer:
        with pytest.raises(LabelStoreError, match=r"l\.sqlite is being written by process \d+"):
            LabelStore(path)
        with LabelStore(path, read_only=True) as reader:
            assert reader.count() == 0
            writer.append([label("Ouch!")])
            assert reader.count() == 1
            with pytest.raises(LabelStoreError, match="read-only"):
                reader.append([label("x")])
    with LabelStore(path) as again:
        assert again.count() == 1


def test_unusable_files_are_named(tmp_path):
    with pytest.raises(LabelStoreError, match=r"no label store at .*absent"):
        LabelStore(tmp_path / "absent", read_only=True)
    (tmp_path / "text").write_text("not a database, and long enough to be looked at " * 10)
    with pytest.raises(LabelStoreError, match="text cannot be opened"):
        LabelStore(tmp_path / "text")
    with sqlite3.connect(tmp_path / "foreign") as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(LabelStoreError, match="foreign is a database, but not a label store"):
        LabelStore(tmp_path / "foreign")
    LabelStore(tmp_path / "old").close()
    with sqlite3.connect(tmp_path / "old") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LabelStoreError, match="old has schema version 99"):
        LabelStore(tmp_path / "old")
    # A refused opening gives the lock back.
    with sqlite3.connect(tmp_path / "old") as db:
        db.execute("PRAGMA user_version = 1")
    LabelStore(tmp_path / "old").close()


def test_damage_is_found_at_start(tmp_path):
    path = tmp_path / "l.sqlite"
    with LabelStore(path) as store:
        store.append([label(f"caption {i}") for i in range(500)])
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 6] = b"\xff" * (4096 * 3)
    path.write_bytes(data)
    with pytest.raises(LabelStoreError, match=r"l\.sqlite (is damaged|cannot be opened)"):
        LabelStore(path)


def test_snapshot_is_a_store(tmp_path):
    with LabelStore(tmp_path / "l.sqlite") as store:
        store.append([label("Ouch!")])
        store.snapshot(tmp_path / "copy.sqlite")
        store.append([label("later")])
        with pytest.raises(LabelStoreError, match="the file exists"):
            store.snapshot(tmp_path / "copy.sqlite")
    with LabelStore(tmp_path / "copy.sqlite") as copy:
        assert [x.text for x in copy.since()[0]] == ["Ouch!"]


def test_kill_loses_no_acknowledged_label(tmp_path):
    path = tmp_path / "l.sqlite"
    program = textwrap.dedent(
        """
        import sys
        from envs.captions import caption_id
        from rewards.labels.store import Label, LabelStore

        def label(text):
            return Label(
                key=text, caption_id=caption_id(text), text=text, prompt_version="p1", model="m",
                model_revision="r", goal="score", value=1.0, probability=None, raw_reply="helpful",
                failed=False, time_s=0.0,
            )

        store = LabelStore(sys.argv[1])
        i = 0
        while True:
            store.append([label(f"caption {j}") for j in range(i, i + 5)])
            i += 5
            print(i, flush=True)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < 100:
        acknowledged = int(process.stdout.readline())
    process.kill()
    rest = process.stdout.read().split()
    process.wait()
    acknowledged = int(rest[-1]) if rest else acknowledged
    with LabelStore(path) as store:  # the dead owner's lock is gone
        assert store.count() >= acknowledged
        assert {x.text for x in store.since()[0]} >= {f"caption {i}" for i in range(acknowledged)}


_ANSWERS = st.tuples(st.integers(0, 9), st.sampled_from([0.0, 1.0, None]))


@settings(max_examples=25, deadline=None)
@given(
    batches=st.lists(st.lists(_ANSWERS, max_size=6), max_size=6),
    page=st.integers(1, 4),
)
def test_first_wins_and_pages_are_complete(batches, page):
    with tempfile.TemporaryDirectory() as folder, LabelStore(Path(folder) / "l.sqlite") as store:
        expected: dict[str, float | None] = {}
        read: list[Label] = []
        cursor = 0
        for batch in batches:
            new = store.append([label(f"caption {i}", value) for i, value in batch])
            before = len(expected)
            for i, value in batch:
                expected.setdefault(f"caption {i}", value)
            assert new == len(expected) - before
            found, cursor = store.since(cursor, page)
            read += found
        while found := store.since(cursor, page)[0]:
            cursor = store.since(cursor, page)[1]
            read += found
        assert [(x.text, x.value) for x in read] == list(expected.items())
