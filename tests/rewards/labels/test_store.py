from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.captions import caption_id
from rewards.labels.store import CaptionCollisionError, Label, LabelStore, LabelStoreError, file_system, label_key

ROOT = Path(__file__).parents[3]


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


def test_many_writers_and_readers_share_a_file(tmp_path):
    path = tmp_path / "l.sqlite"
    with LabelStore(path) as one, LabelStore(path) as other, LabelStore(path, read_only=True) as reader:
        assert one.append([label("Ouch!")]) == 1
        assert other.append([label("Ouch!", 0.0), label("Never mind.")]) == 1
        assert [x.text for x in reader.since()[0]] == ["Ouch!", "Never mind."]
        assert one.since(1)[0] == other.since(1)[0] == reader.since(1)[0]
        for change in (
            lambda: reader.append([label("x")]),
            lambda: reader.claim(["k"], "me", 1.0),
            lambda: reader.release(["k"], "me"),
        ):
            with pytest.raises(LabelStoreError, match="read-only"):
                change()
        collide = replace(label("other"), caption_id=caption_id("Never mind."))
        with pytest.raises(CaptionCollisionError):
            one.append([collide])
    with LabelStore(path) as again:
        assert again.count() == 2


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_claim_keeps_others_away_until_its_lease_ends(tmp_path):
    clock, path = Clock(), tmp_path / "l.sqlite"
    with LabelStore(path, clock=clock) as mine, LabelStore(path, clock=clock) as yours:
        assert mine.claim(["a", "b"], "me", 10.0) == {"a", "b"}
        assert yours.claim(["b", "c"], "you", 10.0) == {"c"}
        assert yours.claimed(["a", "b", "c", "d"], besides="you") == {"a", "b"}
        clock.now_s += 6
        assert mine.claim(["a", "c"], "me", 10.0) == {"a"}, "renewed; c is yours"
        clock.now_s += 6
        assert mine.claimed(["c"], besides="me") == set()
        assert yours.claim(["a", "b"], "you", 10.0) == {"b"}, "not renewed: it has ended"
        yours.release(["a", "b"], "you")
        assert mine.claim(["a", "b"], "me", 10.0) == {"a", "b"}, "only one's own can be released"


def test_what_has_a_label_cannot_be_claimed(tmp_path):
    with LabelStore(tmp_path / "l.sqlite") as store:
        ouch, newt = label("Ouch!"), label("You kill the newt!")
        assert store.claim([ouch.key, newt.key], "me", 60.0) == {ouch.key, newt.key}
        store.append([ouch])
        assert store.claimed([ouch.key, newt.key], besides="you") == {newt.key}, "a label ends the claim"
        assert store.claim([ouch.key], "me", 60.0) == store.claim([ouch.key], "you", 60.0) == set()


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["claim", "release", "append", "wait"]),
            st.sampled_from("xyz"),
            st.sets(st.integers(0, 5)),
        ),
        max_size=20,
    )
)
def test_claims_are_exclusive(steps):
    """Against a dictionary: who may ask what, until when."""
    clock, labels = Clock(), {str(i): label(f"caption {i}") for i in range(6)}
    with tempfile.TemporaryDirectory() as folder, LabelStore(Path(folder) / "l.sqlite", clock=clock) as store:
        held: dict[str, tuple[str, float]] = {}
        done: set[str] = set()
        for act, owner, numbers in steps:
            keys = {labels[str(i)].key: labels[str(i)] for i in numbers}
            held = {key: own for key, own in held.items() if own[1] > clock.now_s}
            if act == "claim":
                may = {key for key in keys if key not in done and held.get(key, (owner, 0))[0] == owner}
                assert store.claim(keys, owner, 2.0) == may
                held |= dict.fromkeys(may, (owner, clock.now_s + 2.0))
            elif act == "release":
                store.release(keys, owner)
                held = {key: own for key, own in held.items() if key not in keys or own[0] != owner}
            elif act == "append":
                store.append(keys.values())
                done |= keys.keys()
                held = {key: own for key, own in held.items() if key not in keys}
            else:
                clock.now_s += 1.0
        held = {key: own for key, own in held.items() if own[1] > clock.now_s}
        for owner in "xyz":
            others = {key for key, (name, _) in held.items() if name != owner}
            assert store.claimed([x.key for x in labels.values()], besides=owner) == others


def program(text: str, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), *argv],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_processes_that_make_the_file_and_claim_at_once(tmp_path):
    source = """
        import sys
        from rewards.labels.store import LabelStore

        with LabelStore(sys.argv[1]) as store:
            for i in range(100):
                for key in store.claim([f"{i}a", f"{i}b"], sys.argv[2], 600.0):
                    print(key)
        """
    path = str(tmp_path / "l.sqlite")
    processes = [program(source, path, owner) for owner in ("one", "two", "three")]
    claimed = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(key for keys in claimed for key in keys) == sorted(f"{i}{x}" for i in range(100) for x in "ab")


OLD_SCHEMA = """
CREATE TABLE captions (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;
CREATE TABLE labels (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE,
    caption_id INTEGER NOT NULL REFERENCES captions(id), second_id INTEGER NOT NULL,
    prompt_version TEXT NOT NULL, model TEXT NOT NULL, model_revision TEXT NOT NULL, goal TEXT NOT NULL,
    value REAL, probability REAL, raw_reply TEXT NOT NULL, failed INTEGER NOT NULL, time_s REAL NOT NULL
) STRICT;
INSERT INTO captions VALUES (7, 'Ouch!');
INSERT INTO labels VALUES (1, 'k', 7, 0, 'single-1', 'lexicon', 'r', 'score', 0.0, NULL, 'unhelpful', 0, 5.0);
PRAGMA application_id = 0x59454E44;
PRAGMA user_version = 1;
"""


def test_a_file_of_version_1_is_read_as_it_is_and_upgraded_to_write(tmp_path):
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLD_SCHEMA)
    before = path.read_bytes()
    with LabelStore(path, read_only=True) as reader:
        old = reader.since()[0]
    assert [(x.text, x.value, x.time_s) for x in old] == [("Ouch!", 0.0, 5.0)]
    assert path.read_bytes() == before
    with LabelStore(path) as store:
        assert store.since()[0] == old
        assert store.claim(["k", "new"], "me", 1.0) == {"new"}
        assert store.spent("a run") == 0
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)


def test_a_file_of_version_2_is_upgraded(tmp_path):
    path = tmp_path / "old.sqlite"
    with LabelStore(path) as store:
        store.append([label("Ouch!")], run="a run")
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DROP TABLE spent; PRAGMA user_version = 2;")
    with LabelStore(path, read_only=True) as reader:
        assert reader.count() == 1
        with pytest.raises(LabelStoreError, match="cannot be read: no such table: spent"):
            reader.spent("a run")
    with LabelStore(path) as store:
        assert store.append([label("Ouch!", 0.0)], run="another") == 0
        assert [store.spent(run) for run in ("a run", "another")] == [0, 1]


def test_a_network_file_system_is_refused_for_writing(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    home = tmp_path.resolve()
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {home}/far\\040away nfs4 rw,vers=4.2 0 0\n")
    monkeypatch.setattr("rewards.labels.store._MOUNTS", mounts)
    with pytest.raises(LabelStoreError, match=r"is on a network file system \(nfs4\).*use a path on a local disk"):
        LabelStore(tmp_path / "far away" / "runs" / "l.sqlite")
    assert not (tmp_path / "far away").exists()
    LabelStore(tmp_path / "near" / "l.sqlite").close()


def test_the_file_system_is_that_of_the_nearest_mount():
    mounts = "a / ext4 rw 0 0\nb /home nfs rw 0 0\nc /home/me ext4 rw 0 0\nd /home/me xfs rw 0 0\n"
    found = [file_system(Path(x), mounts) for x in ("/tmp", "/home/you/runs", "/homes", "/home/me/runs")]
    assert found == ["ext4", "nfs", "ext4", "xfs"]
    assert file_system(Path("/tmp"), "") == ""


def test_unusable_files_are_named(tmp_path):
    with pytest.raises(LabelStoreError, match=r"no label store at .*absent"):
        LabelStore(tmp_path / "absent", read_only=True)
    (tmp_path / "text").write_text("not a database, and long enough to be looked at " * 10)
    with pytest.raises(LabelStoreError, match="text cannot be opened"):
        LabelStore(tmp_path / "text")
    with pytest.raises(LabelStoreError, match=r"label store .*text/l.sqlite cannot be opened: "):
        LabelStore(tmp_path / "text" / "l.sqlite")
    with sqlite3.connect(tmp_path / "foreign") as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(LabelStoreError, match="foreign is a database, but not a label store"):
        LabelStore(tmp_path / "foreign")
    LabelStore(tmp_path / "old").close()
    with sqlite3.connect(tmp_path / "old") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LabelStoreError, match="old has schema version 99"):
        LabelStore(tmp_path / "old")
    # A refused opening leaves nothing locked.
    with sqlite3.connect(tmp_path / "old") as db:
        db.execute("PRAGMA user_version = 3")
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


def test_damage_that_comes_later_is_said(tmp_path):
    with LabelStore(tmp_path / "l.sqlite") as store:
        with closing(sqlite3.connect(tmp_path / "l.sqlite")) as db:
            db.executescript("DROP TABLE claims; DROP TABLE labels;")
        for read in (store.count, store.since, lambda: store.get(["k"]), lambda: store.claimed(["k"], besides="me")):
            with pytest.raises(LabelStoreError, match=r"label store .*l\.sqlite cannot be read: no such table"):
                read()


def test_each_run_has_its_own_account(tmp_path):
    with LabelStore(tmp_path / "l.sqlite") as store:
        store.append([label("Ouch!"), label("You hit it.")], run="a")
        store.append([label("Ouch!"), label("You miss.")], run="a")
        store.append([label("Ouch!")], run="b")
        store.append([label("Never mind.")])
        assert [store.spent(run) for run in ("a", "b", "c")] == [3, 1, 0]


def test_an_abstention_has_no_probability_also_in_old_rows(tmp_path):
    with LabelStore(tmp_path / "l.sqlite") as store:
        store.append([label("x", None, probability=0.3), label("y", 0.0, probability=0.3)])
        assert [row.probability for row in store.since()[0]] == [None, 0.3]


def test_kill_loses_no_acknowledged_label(tmp_path):
    path = tmp_path / "l.sqlite"
    source = """
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
    process = program(source, str(path))
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < 100:
        acknowledged = int(process.stdout.readline())
    process.kill()
    rest = process.stdout.read().split()
    process.communicate()
    acknowledged = int(rest[-1]) if rest else acknowledged
    with LabelStore(path) as store:
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
