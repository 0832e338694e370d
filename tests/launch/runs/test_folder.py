import json
import os
import subprocess
import sys
import textwrap

import pytest

from launch.errors import UserError
from launch.runs import checkpoint
from launch.runs.folder import RunFolder, differences, flatten, next_name, read_config, read_events

CONFIG = json.dumps({"env": {"task": "toy"}, "ppo": {"lr": 0.1}, "total_steps": 100})


def test_create_makes_the_whole_layout(tmp_path):
    with RunFolder.create(tmp_path / "runs", "r1", CONFIG) as run:
        assert run.path == tmp_path / "runs" / "r1"
        assert run.config == json.loads(CONFIG)
        assert {p.name for p in run.path.iterdir() if p.is_dir()} == {
            "checkpoints", "episodes", "eval", "logs",
        }  # fmt: skip
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["r1"]


def test_an_existing_run_is_refused_and_left_as_it_is(tmp_path):
    RunFolder.create(tmp_path, "r1", CONFIG).close()
    with pytest.raises(UserError, match=r"exists already; continue it with --resume .* or choose another"):
        RunFolder.create(tmp_path, "r1", json.dumps({"other": 1}))
    assert read_config(tmp_path / "r1") == json.loads(CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["r1"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(UserError, match="is not a run folder"):
        RunFolder.create(tmp_path, "photos", CONFIG)
    with pytest.raises(UserError, match="is not a run folder"):
        RunFolder.open(tmp_path / "photos")
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b"])
def test_names_that_are_no_names(tmp_path, name):
    with pytest.raises(UserError, match="cannot name a run"):
        RunFolder.create(tmp_path, name, CONFIG)


def test_numbered_names_count_up(tmp_path):
    assert next_name(tmp_path / "none", "room") == "room-001"
    for number in (1, 2):
        with RunFolder.create(tmp_path, None, CONFIG, prefix="room") as run:
            assert run.path.name == f"room-00{number}"
    (tmp_path / "room-041").mkdir()
    (tmp_path / "room-x").mkdir()
    assert next_name(tmp_path, "room") == "room-042"


def test_the_second_owner_is_refused_with_the_first_named(tmp_path):
    with RunFolder.create(tmp_path, "r1", CONFIG) as run:
        for attempt in (lambda: RunFolder.open(run.path), lambda: RunFolder.create(tmp_path, "r1", CONFIG)):
            with pytest.raises(UserError, match=rf"is in use by process {os.getpid()} on .* since \d{{4}}-"):
                attempt()
    RunFolder.open(run.path).close()


def test_the_lock_goes_with_its_process(tmp_path):
    RunFolder.create(tmp_path, "r1", CONFIG).close()
    script = """
        import sys, time
        from pathlib import Path
        from launch.runs.folder import RunFolder
        run = RunFolder.open(Path(sys.argv[1]))
        print("locked", flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "r1")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"process {child.pid} "):
        RunFolder.open(tmp_path / "r1")
    child.kill()
    child.wait()
    RunFolder.open(tmp_path / "r1").close()


def test_check_resume_lists_every_difference(tmp_path):
    other = json.dumps({"env": {"task": "maze"}, "ppo": {"lr": 0.2, "clip": 1}, "total_steps": 100})
    with RunFolder.create(tmp_path, "r1", CONFIG) as run:
        with pytest.raises(UserError) as raised:
            run.check_resume(other)
        text = str(raised.value)
        assert 'env.task: "toy" -> "maze"' in text
        assert "ppo.clip: (absent) -> 1" in text
        assert "ppo.lr: 0.1 -> 0.2" in text
        assert "total_steps" not in text
        assert run.check_resume(CONFIG) == {}


def test_fields_that_may_change_are_accepted_and_noted(tmp_path):
    longer = json.dumps({"env": {"task": "toy"}, "ppo": {"lr": 0.3}, "total_steps": 200})
    with RunFolder.create(tmp_path, "r1", CONFIG) as run:
        with pytest.raises(UserError, match=r"\(ppo.lr: 0.1 -> 0.3\)"):
            run.check_resume(longer, may_change={"total_steps"})
        assert run.check_resume(longer, may_change={"total_steps", "ppo.*"}) == {
            "ppo.lr": (0.1, 0.3),
            "total_steps": (100, 200),
        }
        run.accept_config(longer)
        run.accept_config(longer)
        assert run.config == json.loads(longer)
    assert [e["kind"] for e in read_events(run.path)] == ["config_changed"]
    assert read_events(run.path)[0]["changes"]["total_steps"] == [100, 200]


def test_events_survive_and_a_torn_line_is_cut(tmp_path):
    with RunFolder.create(tmp_path, "r1", CONFIG) as run:
        run.event("started", step=0, command="yendor train", loss=float("nan"), path=tmp_path)
        assert len(read_events(run.path)) == 1  # flushed at once
    with run.events_path.open("a") as file:
        file.write('{"kind": "half')
    assert len(read_events(run.path)) == 1
    with RunFolder.open(run.path) as again:
        again.event("resumed", step=5)
    first, second = read_events(run.path)
    assert (first["kind"], first["step"], first["loss"], first["path"]) == ("started", 0, None, str(tmp_path))
    assert (second["kind"], second["step"]) == ("resumed", 5)
    assert second["time"] >= first["time"]


def test_open_sweeps_unfinished_checkpoints(tmp_path):
    RunFolder.create(tmp_path, "r1", CONFIG).close()
    left = tmp_path / "r1" / "checkpoints" / ".tmp-000000000100"
    left.mkdir()
    (left / "a.safetensors").write_bytes(b"half")
    RunFolder.open(tmp_path / "r1").close()
    assert not left.exists()


def test_a_broken_config_is_named(tmp_path):
    RunFolder.create(tmp_path, "r1", CONFIG).close()
    (tmp_path / "r1" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        RunFolder.open(tmp_path / "r1")


def _of_format_5(tmp_path, monkeypatch):
    """A run folder as it was up to format 5: its configuration says no format, its checkpoint says 5."""
    with RunFolder.create(tmp_path, "old", CONFIG) as run:
        pass
    (run.path / "config.json").write_text(CONFIG)
    with monkeypatch.context() as before:
        before.setattr(checkpoint, "FORMAT", 5)
        checkpoint.save(run.path, 100, {"model": {}}, {"n": 1})
    return run.path


def test_an_older_run_is_refused_in_a_sentence_that_names_who_reads_it(tmp_path, monkeypatch):
    path = _of_format_5(tmp_path, monkeypatch)
    before = sorted(p.name for p in path.rglob("*"))
    for look in (RunFolder.open, read_config):
        with pytest.raises(UserError) as refused:
            look(path)
        assert str(refused.value) == (
            f"run folder {path} has format 5, and this Yendor reads format {checkpoint.FORMAT}: "
            "use commit 376d4e3 (version 0.1.0, unreleased)"
        )
    assert sorted(p.name for p in path.rglob("*")) == before


def test_an_older_checkpoint_is_refused_and_none_before_it_is_tried(tmp_path, monkeypatch):
    path = _of_format_5(tmp_path, monkeypatch)
    with pytest.raises(checkpoint.FormatError, match=r"checkpoint .*000000000100 has format 5, .* use commit 376d4e3"):
        checkpoint.load_latest(path, pytest.fail)


@pytest.mark.parametrize(("number", "reader"), [(2, "older than commit 376d4e3"), (99, "a newer Yendor")])
def test_what_reads_other_formats(number, reader):
    with pytest.raises(checkpoint.FormatError, match=reader):
        checkpoint.check_format("run folder x", number)


def test_flatten_and_differences():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
    assert differences({"a": {"b": 1}}, {"a": {"b": 1}}) == {}
    assert differences({"a": None}, {"a": 0}) == {"a": (None, 0)}
