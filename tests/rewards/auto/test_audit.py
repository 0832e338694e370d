"""The audit log: what it holds, what it refuses, and how it goes on after a crash."""

import json
import os

import pytest

from rewards.auto.audit import MAX_SOURCE, MAX_TEXT, AuditLog, read


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def filled(path, num=4):
    log = AuditLog(path)
    for i in range(num):
        log.append("admitted", program=f"{i:064x}", step=i)
    return log


def steps(path):
    return [line["step"] for line in read(path)]


def test_every_line_is_an_object_with_its_time_and_kind(path):
    filled(path)
    stated = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert read(path) == stated
    assert [(line["kind"], line["step"]) for line in stated] == [("admitted", i) for i in range(4)]
    assert sorted(line["time"] for line in stated) == [line["time"] for line in stated]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_goes_on_where_it_was_whoever_wrote_it(path):
    first = filled(path, 2)
    AuditLog(path).append("quarantined", step=2, why="timeout")
    first.append("admitted", step=3)
    assert steps(path) == [0, 1, 2, 3]


def test_control_characters_are_escaped_and_long_texts_cut(path):
    log = AuditLog(path)
    log.append(
        "rejected", why="\x1b[2J\n\u202e\x7f\x9b\ud800", note="ä" * 3000, source="x" * 10_000, worst=float("nan")
    )
    log.append("rejected", why={"deep": ["y" * 5000]}, source="x" * 20_000)
    content = path.read_bytes()
    assert all(0x20 <= byte < 0x7F for byte in content.replace(b"\n", b"")) and content.count(b"\n") == 2
    first, second = read(path)
    assert first["why"] == "\x1b[2J\n\u202e\x7f\x9b\ud800" and first["worst"] == "nan"
    assert first["note"] == "ä" * (MAX_TEXT // 2) + f" ... ({6000 - MAX_TEXT} bytes cut)"
    assert first["source"] == "x" * 10_000
    assert second["source"].startswith("x" * MAX_SOURCE + " ...")
    assert second["why"]["deep"][0].startswith("y" * MAX_TEXT + " ...")


def test_names_of_the_log_itself_and_unknown_types_are_refused(path):
    log = filled(path, 1)
    with pytest.raises(ValueError, match="written by the log itself"):
        log.append("admitted", time=0)
    with pytest.raises(TypeError):
        log.append("admitted", program=object())
    log.append("admitted", step=1)
    assert steps(path) == [0, 1]


def test_a_torn_line_is_left_out_and_cut_off_wherever_it_was_torn(path):
    filled(path, 3)
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for end in range(start + 1, len(whole), 7):
        path.write_bytes(whole[:end])
        assert steps(path) == [0, 1] and path.read_bytes() == whole[:end]  # nothing is repaired by looking
        AuditLog(path).append("admitted", step=9)
        assert steps(path) == [0, 1, 9]
        assert path.read_bytes().startswith(whole[:start])


@pytest.mark.parametrize(("line", "why"), [(b"no line\n", "is not JSON"), (b"[1]\n", "is not a JSON object")])
def test_a_line_of_somebody_else_is_named(path, line, why):
    filled(path, 1)
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(ValueError, match=f"line 2 {why}"):
        read(path)


def test_a_full_disk_leaves_a_torn_line_that_is_cut_off(path, monkeypatch):
    log = filled(path, 1)
    real, written = os.write, []

    def write(descriptor, data):
        if written:
            raise OSError(28, "No space left on device")
        written.append(real(descriptor, bytes(data)[:20]))
        return written[0]

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        log.append("admitted", step=1)
    monkeypatch.undo()
    assert steps(path) == [0]
    log.append("admitted", step=2)
    assert steps(path) == [0, 2]
