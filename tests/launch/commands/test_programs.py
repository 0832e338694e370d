"""``yendor rewards``: reward programs checked, scored, run, and looked at in their archive."""

import json
import subprocess
import sys

import numpy as np
import pytest

from envs.data import EndStatus, EpisodeSeeds
from envs.recording import EpisodeRecord
from launch.cli import main
from launch.commands.programs import curves_of, sparkline
from launch.commands.verdicts import rejection_text
from launch.show import visible
from launch.training.programs import AUDIT_FILE, PROGRAMS_FOLDER
from rewards.auto.archive import Archive, ArchiveEntry
from rewards.auto.audit import AuditLog
from rewards.auto.program import Rejection, sha_of
from rewards.auto.search.proposal import Finding, Verdict

GOOD = """COMPONENTS = {"goal": "sparse", "explore": "dense"}


def reward(obs, prev_obs, action, info):
    return {
        "goal": 1.0 if info["succeeded"] else -1.0 if info["died"] else 0.0,
        "explore": info["new_tiles_seen"],
    }
"""
LOOPING = "def reward(obs, prev_obs, action, info):\n    while obs['hp'] == 13:\n        pass\n    return obs['hp']\n"
BUDGET = ("--composition.dense", "budget", "--composition.dense-weight", "0.1")
FAST = ("--batch-s", "0.3")
PLAIN = "def reward(obs, prev_obs, action, info):\n    return 10 / obs['hp']\n"
CONSTANT = "def reward(obs, prev_obs, action, info):\n    return 1\n"
REFUSED = "def reward(obs, prev_obs, action, info):\n    return '{0.x}'.format(obs)\n"


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def refused(capsys, *argv):
    """The one sentence of a command that refuses; nothing else is printed."""
    assert main(["rewards", *map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("yendor: ")
    return err


def said(capsys, *argv, code=0):
    """What a command prints for people."""
    assert main(["rewards", *map(str, argv)]) == code
    return capsys.readouterr().out


def lines_of(capsys, *argv, code=0):
    """What it prints as JSON, an object a line."""
    return [json.loads(line) for line in said(capsys, *argv, "--json", code=code).splitlines()]


def file_of(folder, source, name="mine.py"):
    (folder / name).write_text(source)
    return folder / name


# ---- list, show, diff

REJECTED = Verdict(
    findings=[
        Finding(test="admission", outcome="pass", reason="it may run"),
        Finding(test="cycle", outcome="fail", reason="going back and forth pays 3.2", line=2),
    ]
)
ACCEPTED = Verdict(findings=[Finding(test="admission", outcome="pass", reason="it may run")])
FITNESS = {
    "selection": {"success": 0.625, "n": 40, "low": 0.47, "high": 0.76},
    "report": {"success": 0.5, "n": 40, "low": 0.35, "high": 0.65},
    "steps": 2_000_000,
    "seeds": [1, 2],
}


@pytest.fixture
def archive(tmp_path):
    archive = Archive(tmp_path / "programs")
    old = archive.put(entry(PLAIN, REJECTED, by="random grammar", prompt="\n".join(f"line {i}" for i in range(40))))
    curves = {"goal": [0.0, None, 1.0], "explore": list(range(20))}
    analysis = {"components": {name: {"curves": {"episode_sum": curve}} for name, curve in curves.items()}}
    archive.put(
        entry(GOOD, ACCEPTED, by="llm big\x1b[31m", parents=(old.sha,), round=2, fitness=FITNESS, analysis=analysis)
    )
    return archive


def entry(source, verdict, **more):
    facts = {"by": "grammar", "task": "MiniHack-KeyRoom-S5-v0", "round": 1, "search": "first"} | more
    return ArchiveEntry(sha=sha_of(source), source=source, verdict=verdict, **facts)


def test_list_shows_descent_verdicts_and_fitness(archive, capsys):
    shown = said(capsys, "list", "--archive", archive.folder)
    old, new = sha_of(PLAIN)[:12], sha_of(GOOD)[:12]
    for text in (
        "2 programs in",
        f"{old}  random grammar, round 1, MiniHack-KeyRoom-S5-v0, first",
        "rejected, cycle: going back and forth pays 3.2",
        "accepted",
        "success 62.5 % (47.0 % to 76.0 %, n = 40); on other seeds 50.0 % (35.0 % to 65.0 %, n = 40)",
    ):
        assert text in shown
    at = {name: line.index(name) for line in shown.splitlines() for name in (old, new) if name in line}
    assert at[new] > at[old]  # hangs from it
    assert "\x1b" not in shown and "\\x1b[31m" in shown
    found = json.loads(said(capsys, "list", "--archive", archive.folder, "--json"))
    assert [(row["sha"], row["accepted"], row["parents"]) for row in found] == [
        (sha_of(PLAIN), False, []),
        (sha_of(GOOD), True, [sha_of(PLAIN)]),
    ]
    assert found[0]["reasons"] == ["cycle: going back and forth pays 3.2"] and found[1]["fitness"] == FITNESS


def test_list_names_what_is_damaged_and_goes_on(archive, capsys):
    (archive.folder / f"{sha_of(PLAIN)}.py").write_text("pass\n")
    assert main(["rewards", "list", "--archive", str(archive.folder)]) == 0
    out, err = capsys.readouterr()
    assert sha_of(GOOD)[:12] in out and sha_of(PLAIN)[:12] not in out
    assert f"{sha_of(PLAIN)}.py has been changed" in err
    assert "there is no archive of programs at" in refused(capsys, "list", "--archive", archive.folder / "no")


def test_show_tells_all_that_is_known(archive, capsys):
    out = said(capsys, "show", sha_of(GOOD)[:6], "--archive", archive.folder)
    for text in (
        sha_of(GOOD),
        f"by llm big\\x1b[31m, from {sha_of(PLAIN)[:12]}",
        "for MiniHack-KeyRoom-S5-v0, round 2 of first",
        'COMPONENTS = {"goal": "sparse", "explore": "dense"}',
        "verdict  accepted",
        "success 62.5 % (47.0 % to 76.0 %, n = 40) on the seeds that selection looks at",
        "2,000,000 steps of training, seeds 1, 2",
        "▁ █",
        "▁▂▂▃▄▅▆▇▇█",
    ):
        assert text in out
    out = said(capsys, "show", sha_of(PLAIN), "--archive", archive.folder)
    assert "going back and forth pays 3.2" in out and "it was not trained with" in out
    assert "line 11" in out and "line 12" not in out and "28 lines more: --prompt" in out
    assert "line 39" in said(capsys, "show", sha_of(PLAIN), "--archive", archive.folder, "--prompt")
    found = json.loads(said(capsys, "show", sha_of(GOOD), "--archive", archive.folder, "--json"))
    assert found["source"] == GOOD and found["verdict"] == ACCEPTED.as_json() and found["fitness"] == FITNESS


def test_show_knows_files_and_runs_apart(archive, tmp_path, capsys):
    known, other = file_of(tmp_path, GOOD), file_of(tmp_path, CONSTANT, "other.py")
    assert "verdict  accepted" in said(capsys, "show", known, "--archive", archive.folder)
    assert "not in the archive" in said(capsys, "show", other, "--archive", archive.folder)
    found = json.loads(said(capsys, "show", other, "--json"))
    assert found == {"sha": sha_of(CONSTANT), "source": CONSTANT}
    assert "is not a run folder" in refused(capsys, "show", tmp_path / "nowhere")
    assert "config.json" in refused(capsys, "show", tmp_path)
    assert "no program abcd in" in refused(capsys, "show", "abcd", "--archive", archive.folder)
    assert "cannot be read: no such file" in refused(capsys, "show", tmp_path / "gone.py")
    assert "needs a run folder, or the SHA or the file of a program" in refused(capsys, "show")
    file_of(tmp_path, "x").write_bytes(b"\xff")
    assert "is not UTF-8" in refused(capsys, "show", tmp_path / "mine.py")


def test_diff_shows_lines_and_outcomes(archive, tmp_path, capsys):
    out = said(capsys, "diff", sha_of(PLAIN), sha_of(GOOD), "--archive", archive.folder)
    assert f"--- {sha_of(PLAIN)[:12]}" in out and "-    return 10 / obs['hp']" in out
    assert '+COMPONENTS = {"goal": "sparse", "explore": "dense"}' in out
    assert "verdict  rejected, cycle: going back and forth pays 3.2 -> accepted" in out
    assert "success  - -> 62.5 % (47.0 % to 76.0 %, n = 40)" in out
    same = said(capsys, "diff", sha_of(GOOD), file_of(tmp_path, GOOD), "--archive", archive.folder)
    assert "the sources are the same" in same and "verdict  accepted, both" in same
    a, b = file_of(tmp_path, PLAIN, "a.py"), file_of(tmp_path, CONSTANT, "b.py")
    assert "verdict" not in said(capsys, "diff", a, b)
    assert "needs two programs" in refused(capsys, "diff", a)


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([0.0, 7.0, None], "▁█ "),
        ([None, None], "  "),
        (range(8), "▁▂▃▄▅▆▇█"),
        (range(100), "▁▂▃▃▄▅▆▆▇█"),
    ],
)
def test_a_curve_as_bars(values, bars):
    assert sparkline(list(values)) == bars


def test_curves_come_from_the_analysis():
    components = {"goal": {"curves": {"mean": [0.1, 0.2], "episode_sum": [1.0, 2.0], "step": [0, 10]}}, "x": {}}
    one = entry(PLAIN, None, analysis={"components": components})
    assert curves_of(one) == {"goal": [1.0, 2.0]}
    components["goal"]["curves"].pop("episode_sum")
    assert curves_of(one) == {"goal": [0.1, 0.2]}


def test_what_others_wrote_cannot_steer_a_terminal():
    assert visible("a\x1b[2J\tb\n\u202ec\x7f é") == "a\\x1b[2J\tb\n\\u202ec\\x7f é"


def test_a_caret_stands_under_the_place():
    rejection = Rejection(code="E22", reason="x", line=3, column=6, source_line="\tif a.b:", hint="y")
    lines = rejection_text("f.py", rejection).plain.splitlines()
    assert lines[2] == "     3 | \tif a.b:" and lines[3] == "       | \t    ^"


# ---- check


def test_check_says_which_files_are_programs_and_why_not(tmp_path, capsys):
    files = [
        file_of(tmp_path, GOOD, "good.py"),
        file_of(tmp_path, REFUSED, "refused.py"),
        file_of(tmp_path, CONSTANT, "constant.py"),
        file_of(tmp_path, "def reward(obs, prev_obs, action, info):\n    return obs['hpp']\n", "field.py"),
    ]
    assert main(["rewards", "check", *map(str, files), "--json"]) == 2
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["file"] for row in found] == [str(file) for file in files]
    assert [row["verdict"] for row in found] == ["accepted", "rejected", "accepted", "rejected"]
    good, refused_one, constant, field = found
    assert (good["code"], good["line"], good["reason"], good["sha"]) == (None, None, "", sha_of(GOOD))
    assert (refused_one["code"], refused_one["line"], refused_one["sha"]) == ("E22", 2, None)
    assert "format" in refused_one["reason"] and refused_one["source_line"] == "    return '{0.x}'.format(obs)"
    doubts = [finding["reason"] for finding in constant["findings"] if finding["outcome"] == "undetermined"]
    assert constant["code"] is None and "it reads nothing of play, so it says the same of all" in doubts[0]
    assert field["code"] == "E40" and "obs['hp']" in field["hint"] + field["reason"]
    assert len({tuple(row) for row in found}) == 1  # the same keys, whatever came of it
    assert "isolation" in err


def test_check_for_people(tmp_path, capsys):
    out = said(capsys, "check", file_of(tmp_path, REFUSED), "--min-isolation", "process", code=2)
    assert f"{tmp_path / 'mine.py'}, line 2: rejected before any of it ran" in out
    lines = out.splitlines()
    at = lines.index("     2 |     return '{0.x}'.format(obs)")
    assert lines[at + 1].startswith("       | ") and lines[at + 1].endswith("^")
    assert "why: attributes lead" in out and "instead: " in out and "more: yendor rewards codes E22" in out
    out = said(capsys, "check", file_of(tmp_path, GOOD), "--engine", "cpython")
    assert "accepted" in out and "goal (sparse), explore (dense)" in out and "pass         deterministic" in out


def test_check_of_a_program_that_shipped_play_says_nothing_about(tmp_path, capsys):
    source = "def reward(obs, prev_obs, action, info):\n    return 1.0 if 'never said' in obs['message'] else 0.0\n"
    (found,) = lines_of(capsys, "check", file_of(tmp_path, source))
    assert found["verdict"] == "accepted"
    assert [(f["test"], f["outcome"]) for f in found["findings"] if "shipped play" in f["reason"]] == [
        ("constant", "undetermined")
    ]
    played = played_in(tmp_path / "own.npz", [3] * 300)
    (found,) = lines_of(capsys, "check", tmp_path / "mine.py", "--episodes", played, code=2)
    assert found["code"] == "constant"


def test_check_of_a_program_that_does_not_end(tmp_path, capsys):
    files = file_of(tmp_path, LOOPING, "a.py"), file_of(tmp_path, GOOD, "b.py")
    found = lines_of(capsys, "check", *files, *FAST, code=2)
    assert [(row["verdict"], row["code"]) for row in found] == [("rejected", "timeout"), ("accepted", None)]


def test_check_refuses_bad_input(tmp_path, capsys):
    good = file_of(tmp_path, GOOD)
    assert "gone.py cannot be read: no such file" in refused(capsys, "check", good, tmp_path / "gone.py")
    assert "needs the file of a program" in refused(capsys, "check", "--json")
    assert "engine cannot be 'lua'" in refused(capsys, "check", good, "--engine", "lua")
    (tmp_path / "folder.py").mkdir()
    assert "cannot be read: is a directory" in refused(capsys, "check", tmp_path / "folder.py")
    assert "not an episode record" in refused(capsys, "check", good, "--episodes", good)


def test_codes_are_explained(capsys):
    assert "attribute" in said(capsys, "codes", "E22") and "E40" in said(capsys, "codes")
    assert "unknown code 'E2'" in refused(capsys, "codes", "E2")


# ---- score


def played_in(path, hit_points, *, screen=False, success=True):
    """A recorded episode in which a tile is new at every second step."""
    T = len(hit_points)
    status = np.zeros(T, np.int8)
    status[-1] = EndStatus.TASK_SUCCESSFUL if success else EndStatus.ABORTED
    screens = np.full((T, 24, 80), ord(" "), np.uint8)
    screens[:, 0, :3] = np.frombuffer(b"@.|", np.uint8)
    screens[:, 1, 0] = ord("0") + np.arange(T) % 10
    EpisodeRecord(
        task="MiniHack-Room-5x5-v0",
        seeds=EpisodeSeeds(1, 2, 3),
        action_names=("wait", "north"),
        actions=np.arange(T) % 2,
        env_reward=(status > 0).astype(np.float32),
        end_status=status,
        terminated=status > 0,
        truncated=status < 0,
        columns={
            "obs.hp": np.array(hit_points, np.int64),
            "obs.message": np.array(["Hello."] * T),
            "info.new_tiles_seen": np.arange(T) % 2 * 3,
        },
        captions=np.array([f"said {t}" for t in range(T)]),
        screen=screens if screen else None,
    ).save(path)
    return path


def test_score_shows_raw_and_composed_values_of_each_step(tmp_path, capsys):
    program = file_of(tmp_path, GOOD)
    episode = played_in(tmp_path / "a.npz", [5, 5, 5, 5, 5], screen=True)
    found = json.loads(said(capsys, "score", program, *BUDGET, "--episodes", episode, "--json"))
    assert found["program"] == sha_of(GOOD)
    (scored,) = found["episodes"]
    assert [step["raw"]["explore"] for step in scored["steps"]] == [0, 3, 0, 3, 0]
    assert [step["paid"]["explore"] for step in scored["steps"]] == pytest.approx([0, 0.1, 0, 0.1, 0])
    assert [step["total"] for step in scored["steps"]] == pytest.approx([0, 0.1, 0, 0.1, 1])
    assert (scored["steps"][1]["action"], scored["steps"][1]["caption"]) == ("north", "said 1")
    assert scored["totals"]["raw"] == {"goal": 1.0, "explore": 6.0} and scored["totals"]["total"] == pytest.approx(1.2)
    assert (scored["ending"], scored["seeds"], scored["totals"]["without_answer"]) == ("success", [1, 2, 3], 0)


def test_score_for_people_shows_screens_of_steps_that_pay(tmp_path, capsys):
    program = file_of(tmp_path, GOOD)
    episode = played_in(tmp_path / "a.npz", [5, 5, 5, 5, 5], screen=True)
    assert main(["rewards", "score", str(program), *BUDGET, "--episodes", str(episode)]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("reward programs: monty") and "isolation" in err and err.count("\n") == 1
    assert "3 (0.1)" in out and "said 3" in out and "1 (1)" in out and "6 (0.2)" in out
    assert "step 1 pays 0.1: explore 0.1\n@.|\n1\n" in out and "step 4 pays 1: goal 1" in out
    assert "step 2 pays" not in out
    assert "step 2 pays 0\n" in said(capsys, "score", program, *BUDGET, "--episodes", episode, "--screens")
    assert "@.|" not in said(capsys, "score", program, *BUDGET, "--episodes", episode, "--table-only")
    clipped = said(capsys, "score", program, *BUDGET[:2], "--episodes", episode, "--composition.dense-weight", "0.25")
    assert "3 (0.25)" in clipped


def test_score_shows_steps_without_an_answer(tmp_path, capsys):
    program, episode = file_of(tmp_path, PLAIN), played_in(tmp_path / "a.npz", [5, 0, 2], success=False)
    out = said(capsys, "score", program, "--episodes", episode)
    assert "no answer: ZeroDivisionError" in out and "1 steps without an answer" in out
    found = json.loads(said(capsys, "score", program, "--episodes", episode, "--json"))
    assert [step["valid"] for step in found["episodes"][0]["steps"]] == [True, False, True]


def test_score_refuses_bad_input(archive, tmp_path, capsys):
    program, episode = file_of(tmp_path, GOOD), played_in(tmp_path / "a.npz", [5])
    assert "needs --episodes" in refused(capsys, "score", program)
    assert "b.npz cannot be read: no such file" in refused(
        capsys, "score", program, "--episodes", episode, tmp_path / "b.npz"
    )
    assert "no program beef in" in refused(capsys, "score", "beef", "--archive", archive.folder, "--episodes", episode)
    depth = file_of(tmp_path, "def reward(obs, prev_obs, action, info):\n    return obs['depth']\n", "depth.py")
    assert main(["rewards", "score", str(depth), "--episodes", str(episode)]) == 2
    assert "holds no schema field 'obs.depth'" in capsys.readouterr().err
    assert lines_of(capsys, "score", file_of(tmp_path, REFUSED), "--episodes", episode, code=2)[0]["code"] == "E22"


# ---- run


def transitions(folder, *lines):
    path = folder / "transitions.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("engine", ["monty", "cpython"])
def test_run_answers_each_line(tmp_path, capsys, engine):
    lines = transitions(tmp_path, {"obs": {"hp": 5}}, {"obs": {"hp": 0}}, {"obs": {}}, {"obs": {"hp": 4}})
    found = lines_of(capsys, "run", file_of(tmp_path, PLAIN), "--transitions", lines, "--engine", engine)
    assert all(list(row) == ["value", "parts", "valid", "why"] for row in found)
    assert [(row["value"], row["parts"], row["valid"]) for row in found] == [
        (2.0, {"reward": 2.0}, True),
        (0.0, {}, False),
        (0.0, {}, False),
        (2.5, {"reward": 2.5}, True),
    ]
    assert "ZeroDivisionError" in found[1]["why"] and found[0]["why"] == ""
    assert found[2]["why"] == "the transition has no obs['hp']"


FIELDS_BY_NAME = """KEYS = ("hp", "gold")


def reward(obs, prev_obs, action, info):
    gained = sum(obs[key] - prev_obs[key] for key in KEYS if key in obs)
    return gained + (0.5 if info.get("steps_since_new_tile", 0) > 3 else 0.0)
"""


def test_run_needs_only_the_fields_that_are_read(tmp_path, capsys):
    full = {"obs": {"hp": 5, "gold": 7}, "prev_obs": {"hp": 3, "gold": 1}, "action": "north"}
    info = {"steps_since_new_tile": 9}
    few = {"obs": {"hp": 5}, "prev_obs": {"hp": 3}, "info": info}
    lacking = {"obs": {"hp": 5, "gold": 7}, "prev_obs": {"hp": 3}, "info": info}
    lines = transitions(tmp_path, full, few, lacking, full | {"info": info})
    found = lines_of(capsys, "run", file_of(tmp_path, FIELDS_BY_NAME), "--transitions", lines)
    assert [row["value"] for row in found] == [8.0, 2.5, 0.0, 8.5]
    assert [row["why"] for row in found] == ["", "", "the transition has no prev_obs['gold']", ""]
    by_action = file_of(tmp_path, "def reward(obs, prev_obs, action, info):\n    return 1 if action else 0\n")
    found = lines_of(capsys, "run", by_action, "--transitions", transitions(tmp_path, full, few))
    assert [row["why"] for row in found] == ["", "the transition has no action"]


def test_run_adds_components_up(archive, tmp_path, capsys):
    info = {"succeeded": True, "died": False, "new_tiles_seen": 4}
    lines = transitions(tmp_path, {"info": info}, {"info": info | {"succeeded": False}})
    argv = ("run", sha_of(GOOD)[:8], "--archive", archive.folder, "--transitions", lines)
    found = lines_of(capsys, *argv)
    assert [(row["value"], row["parts"]) for row in found] == [
        (5.0, {"goal": 1.0, "explore": 4.0}),
        (4.0, {"goal": 0.0, "explore": 4.0}),
    ]
    assert "explore" in said(capsys, *argv)


EARLY = """def reward(obs, prev_obs, action, info):
    if info["died"]:
        return {"terminal": -1.0}
    return {"step": obs["hp"] * 0.5}
"""


def test_run_shows_the_parts_that_a_line_has(tmp_path, capsys):
    rows = [
        {"obs": {"hp": hp}, "prev_obs": None, "info": {"died": died}} for hp, died in ((4, 0), (4, True), (0, False))
    ]
    lines = transitions(tmp_path, *rows, "", " ")
    found = lines_of(capsys, "run", file_of(tmp_path, EARLY), "--transitions", lines)
    assert [row["parts"] for row in found] == [{"step": 2.0}, {"terminal": -1.0}, {"step": 0.0}]


def test_run_lets_one_bad_line_fail_alone(tmp_path, capsys):
    lines = transitions(tmp_path, *({"obs": {"hp": hp}} for hp in (1, 2, 13, 4)))
    found = lines_of(capsys, "run", file_of(tmp_path, LOOPING), "--transitions", lines, *FAST)
    assert [row["valid"] for row in found] == [True, True, False, True]
    assert [row["value"] for row in found] == [1.0, 2.0, 0.0, 4.0]
    assert found[2]["why"].startswith("timeout: ")


def test_run_with_nothing_to_run_on(tmp_path, capsys):
    program = file_of(tmp_path, PLAIN)
    assert "holds no transitions" in refused(capsys, "run", program, "--transitions", transitions(tmp_path))
    assert lines_of(capsys, "run", program, "--transitions", transitions(tmp_path, {}))[0]["valid"] is False


def test_run_refuses_bad_input(tmp_path, capsys):
    program = file_of(tmp_path, PLAIN)
    assert "needs --transitions FILE" in refused(capsys, "run", program)
    assert "cannot be read: no such file" in refused(capsys, "run", program, "--transitions", tmp_path / "no")
    assert "cannot be read: is a directory" in refused(capsys, "run", program, "--transitions", tmp_path)
    for command in ("run", "check"):
        more = ("--transitions", transitions(tmp_path, {})) if command == "run" else ()
        assert "cannot be read: is a directory" in refused(capsys, command, tmp_path, *more)
        assert "cannot be read: no such file" in refused(capsys, command, tmp_path / "no", *more)
        assert "is no SHA" in refused(capsys, command, "x" * 5000, *more)
    lines = transitions(tmp_path, {"obs": {"hp": 5}}, {"obs": {"hp": "5"}})
    assert "line 2: obs.hp is" in refused(capsys, "run", program, "--transitions", lines, "--json")
    found = lines_of(capsys, "run", file_of(tmp_path, REFUSED), "--transitions", lines, code=2)
    assert [(row["verdict"], row["code"], row["line"]) for row in found] == [("rejected", "E22", 2)]
    assert "E22: " in said(capsys, "run", tmp_path / "mine.py", "--transitions", lines, code=2)


# ---- audit


@pytest.fixture
def audited(tmp_path):
    path = tmp_path / "run" / PROGRAMS_FOLDER / AUDIT_FILE
    path.parent.mkdir(parents=True)
    log = AuditLog(path)
    log.append("activated", run="r1", program="a" * 64, fallbacks=["b" * 64], isolation="full")
    log.append("quarantined", run="r1", program="a" * 64, step=640, why="too slow\x1b[2J", fallback="b" * 64)
    return path


def test_audit_prints_what_was_done(audited, tmp_path, capsys):
    out = said(capsys, "audit", tmp_path / "run")
    first, second = out.splitlines()
    assert f"activated: run r1, program {'a' * 12}, fallbacks {'b' * 12}, isolation full" in first
    assert "quarantined: " in second and "step 640, why too slow\\x1b[2J, fallback bbbbbbbbbbbb" in second
    assert "\x1b" not in out
    found = json.loads(said(capsys, "audit", tmp_path / "run", "--json"))
    assert found["file"] == str(audited)
    assert [line["kind"] for line in found["lines"]] == ["activated", "quarantined"]


def test_audit_leaves_out_what_a_crash_cut_short_and_names_what_is_no_line(audited, tmp_path, capsys):
    whole = audited.read_text()
    audited.write_text(whole[:-9])
    out = said(capsys, "audit", tmp_path / "run")
    assert "activated" in out and "quarantined" not in out
    audited.write_text(whole + "no line\n")
    assert f"{audited}, line 3 is not JSON" in refused(capsys, "audit", tmp_path / "run")


def test_audit_refuses_bad_input(tmp_path, capsys):
    assert "there is no audit log of reward programs at" in refused(capsys, "audit", tmp_path)
    assert "needs a run folder" in refused(capsys, "audit", "--json")


def test_help_and_checks_import_no_torch():
    code = (
        "import sys; from launch.cli import main; main(['rewards', '--help']); assert 'numpy' not in sys.modules;"
        "import launch.commands.verdicts, launch.commands.answers, rewards.auto.search.critic;"
        "print([name for name in ('torch', 'ray', 'vllm', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_json_may_stand_before_the_files(tmp_path, capsys):
    (tmp_path / "bad.py").write_text("import os\n")
    assert main(["rewards", "check", "--json", str(tmp_path / "bad.py")]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "E15"
    assert main(["rewards", "check", "--json"]) == 2
    assert "needs" in capsys.readouterr().err
