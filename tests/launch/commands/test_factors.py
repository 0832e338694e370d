"""``yendor rewards``: the catalogue, a run's preference tree, and which of two recorded episodes is better."""

import json
from dataclasses import replace

import numpy as np
import pytest

from envs.data import EndStatus, EpisodeSeeds
from envs.recording import EpisodeRecord
from launch import show
from launch.cli import main
from launch.commands import factors as factors_command
from launch.commands.factors import read_report
from launch.config.train_config import TrainConfig
from launch.errors import UserError
from launch.runs.folder import write_config
from rewards.heron.config import PowersOfTenConfig, TreeConfig, WeightedSumConfig
from rewards.heron.factors import CATALOGUE, FactorTable, parse_ranking
from rewards.heron.report import HeronReport, LevelReport, margin

RANKING = ("success", "alive", "new_tiles", "-turns")


def level(name, sign=1, margin=0.0, *, compared, decided, right=None, dead=False):
    right = decided if right is None else right
    return LevelReport(
        name=name,
        sign=sign,
        margin=margin,
        description=f"What {name} is.",
        compared=compared,
        decided=decided,
        ties=compared - decided,
        right=right,
        accuracy=right / decided if decided else None,
        accuracy_low=0.8 if decided else None,
        accuracy_high=0.95 if decided else None,
        independent_pairs=decided // 2,
        dead=dead,
    )


REPORT = HeronReport(
    uses_tree=True,
    mode="bins",
    version=12,
    segments=1500,
    held_out_segments=150,
    levels=(
        level("success", compared=1000, decided=300, right=270),
        level("alive", compared=700, decided=0, dead=True),
        level("new_tiles", margin=2.5, compared=700, decided=400, right=360),
        level("turns", -1, 4.0, compared=300, decided=250),
    ),
    accuracy=0.93,
    tie_share=0.05,
    cycle_share=0.0,
    rank_correlation=0.87,
    judged_accuracy=None,
    sources={"tree": 64_000},
)


def run_folder(folder, heron=None, report=REPORT):
    """A run's folder as training leaves it, as far as rewards are concerned."""
    folder.mkdir()
    config = TrainConfig(preset="keyroom_heron")
    heron = TreeConfig(weight=1.0, ranking=RANKING) if heron is None else heron
    config = config.replace(reward=config.reward.replace(heron=heron))
    write_config(folder, config.model_dump(mode="json"))
    if report is not None:
        (folder / "heron.json").write_text(json.dumps(report.as_json()))
    return folder


def episode(path, *, task="MiniHack-Room-5x5-v0", success=False, new_tiles=(1, 1, 1), turns=1, **columns):
    """A recorded episode of as many steps as ``new_tiles``."""
    T = len(new_tiles)
    status = np.zeros(T, np.int8)
    status[-1] = EndStatus.TASK_SUCCESSFUL if success else EndStatus.ABORTED
    clock = np.arange(T + 1) * turns
    EpisodeRecord(
        task=task,
        seeds=EpisodeSeeds(1, 2, 3),
        action_names=("wait",),
        actions=np.zeros(T, np.int64),
        env_reward=(status > 0).astype(np.float32),
        end_status=status,
        terminated=status > 0,
        truncated=status < 0,
        columns={"obs.turn": clock[1:], "prev_obs.turn": clock[:-1], "info.new_tiles_seen": np.array(new_tiles)}
        | columns,
        captions=np.full(T, ""),
    ).save(path)
    return path


def refused(capsys, *argv):
    """The one sentence with which a command refuses."""
    assert main(["rewards", *map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("yendor: ") and err.count("\n") == 1
    return err


def answer(capsys, *argv):
    """What a command prints as JSON."""
    assert main(["rewards", *map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# ---- factors


def test_factors_lists_the_whole_catalogue(capsys):
    found = answer(capsys, "factors")
    assert [row["name"] for row in found] == list(CATALOGUE)
    assert found[0]["columns"] == ["info.succeeded"] and found[0]["margin"] == 0
    assert main(["rewards", "factors"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in CATALOGUE)


def test_the_example_in_the_listing_works(tmp_path, monkeypatch):
    (tmp_path / factors_command.EXAMPLE_FILE).write_text(factors_command.EXAMPLE)
    monkeypatch.syspath_prepend(tmp_path)
    factors = parse_ranking(factors_command.ENTRIES)
    assert [f.name for f in factors] == ["success", "kicked", "doors", "turns"]
    messages = np.array([["WHAMM!"], ["The door opens."], [""]])
    assert factors[1].per_step({"obs.message": messages})[:, 0].tolist() == [True, False, False]
    assert (factors[3].sign, factors[3].margin) == (-1, 5)


# ---- show


def test_show_prints_each_level_and_the_totals(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["rewards", "show", str(run_folder(tmp_path / "run"))]) == 0
    shown = capsys.readouterr().out
    for text in (
        "1 success  more is better, any difference counts",
        "decides 300 of 1,000 pairs that reach it (30.0 % of all), passes on 700",
        "the model agrees on 90.0 % (80.0 % to 95.0 %, n = 150)",
        "dead: it tells no two kept segments apart",
        "3 new_tiles  more is better, bins of 2.5",
        "4 turns  less is better, bins of 4",
        "reads obs.turn, prev_obs.turn; sum over the segment",
        "What turns is.",
        "no level decides: 5.0 % of all pairs",
        "mode bins; preferred in a circle: 0.0 % of triples",
        "version 12 of the reward, segments kept 1,500 (held out 150)",
        "pairs judged: 64,000 by tree",
    ):
        assert text in shown
    assert shown.count("dead:") == 1


JUDGED = replace(
    REPORT,
    uses_tree=False,
    levels=(),
    accuracy=None,
    tie_share=None,
    cycle_share=None,
    rank_correlation=None,
    judged_accuracy=0.8,
    sources={"human": 40},
)


def test_of_a_run_without_a_tree_only_what_others_judged_is_shown(tmp_path, capsys):
    run = run_folder(tmp_path / "run", report=JUDGED)
    assert main(["rewards", "show", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "no preference tree: others judge" in shown and "pairs judged: 40 by human" in shown
    assert "the model agrees on 80.0 % of held-out pairs that others have judged" in shown
    assert "random pairs" not in shown and "circle" not in shown and "level" not in shown
    a = episode(tmp_path / "a.npz")
    assert "has no preference tree: its model learns from pairs" in refused(capsys, "compare", a, a, "--run", run)


def test_a_report_is_read_whole_or_not_at_all(tmp_path):
    run = run_folder(tmp_path / "run")
    values = REPORT.as_json()
    (run / "heron.json").write_text(json.dumps(values))
    assert read_report(run) == REPORT
    del values["uses_tree"]
    (run / "heron.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"heron\.json is damaged, or of another version: 'uses_tree'"):
        read_report(run)


@pytest.mark.parametrize(
    ("value", "mode", "said"),
    [
        (2.5, "bins", "bins of 2.5"),
        (2.5, "margin", "more than 2.5 apart"),
        (0.0, "bins", "any difference counts"),
        (None, "margin", "no margin yet"),
    ],
)
def test_a_margin_in_words(value, mode, said):
    assert margin(value, mode) == said


def test_show_prints_json_as_it_was_written(tmp_path, capsys):
    assert answer(capsys, "show", run_folder(tmp_path / "run")) == json.loads(json.dumps(REPORT.as_json()))


def test_show_before_anything_is_known(tmp_path, capsys):
    nothing = replace(
        REPORT,
        version=0,
        levels=tuple(replace(level(f.name, compared=0, decided=0), margin=None) for f in REPORT.levels),
        accuracy=None,
        tie_share=None,
        cycle_share=None,
        rank_correlation=None,
        sources={},
    )
    assert main(["rewards", "show", str(run_folder(tmp_path / "run", report=nothing))]) == 0
    shown = capsys.readouterr().out
    assert "no margin yet" in shown and "not measured yet" in shown and "none yet" in shown


@pytest.mark.parametrize(
    ("heron", "weights"),
    [
        (WeightedSumConfig(weight=1.0, ranking=RANKING, beta=0.5), [1, 0.5, 0.25, 0.125]),
        (PowersOfTenConfig(weight=1.0, ranking=RANKING), [1000, 100, 10, 1]),
    ],
)
def test_show_prints_the_weights_of_a_sum(tmp_path, capsys, heron, weights):
    run = run_folder(tmp_path / "run", heron, report=None)
    found = answer(capsys, "show", run)
    assert [row["weight"] for row in found["levels"]] == weights
    assert [row["sign"] for row in found["levels"]] == [1, 1, 1, -1]
    assert main(["rewards", "show", str(run)]) == 0
    assert show.figure(-weights[-1]) in capsys.readouterr().out


def test_show_refuses_what_is_not_there_or_damaged(tmp_path, capsys):
    assert "is not a run folder" in refused(capsys, "show", tmp_path / "nowhere")
    run = run_folder(tmp_path / "run", report=None)
    assert "has no heron.json yet" in refused(capsys, "show", run)
    for content in ("{", "[]", "{}", json.dumps({"levels": [{}]})):
        (run / "heron.json").write_text(content)
        assert "heron.json is damaged, or of another version" in refused(capsys, "show", run)
    off = run_folder(tmp_path / "off", TreeConfig(weight=0.0))
    assert "no reward over factors: its reward.heron.weight is 0" in refused(capsys, "show", off)
    lost = run_folder(tmp_path / "lost", TreeConfig(weight=1.0, ranking=("x = no_such_module:x",)))
    assert "ranking entry 1: cannot import the module 'no_such_module'" in refused(capsys, "show", lost)


# ---- compare


def test_compare_says_which_level_decides(tmp_path, capsys):
    a = episode(tmp_path / "a.npz", new_tiles=(2, 0, 5), turns=3)  # 7 tiles, 9 turns
    b = episode(tmp_path / "b.npz", new_tiles=(1, 1), turns=4)  # 2 tiles, 8 turns
    found = answer(capsys, "compare", a, b)
    assert (found["better"], found["decided_by"], found["task"]) == ("A", "new_tiles", "MiniHack-Room-5x5-v0")
    assert [(row["name"], row["A"], row["B"], row["better"], row["reached"]) for row in found["levels"]] == [
        ("success", 0, 0, "neither", True),
        ("alive", 0, 0, "neither", True),
        ("new_tiles", 7, 2, "A", True),
        ("turns", 9, 8, "B", False),
    ]
    assert found["episodes"]["B"] == {"file": str(b), "seeds": [1, 2, 3], "steps": 2, "ending": "out of time"}
    assert answer(capsys, "compare", b, a)["better"] == "B"
    assert answer(capsys, "compare", a, a)["decided_by"] is None


def test_compare_with_a_ranking_of_one_s_own(tmp_path, capsys):
    a = episode(tmp_path / "a.npz", new_tiles=(2, 0, 5), turns=3)
    b = episode(tmp_path / "b.npz", new_tiles=(1, 1), turns=4)
    ranking = ("--ranking", "new_tiles@6", "waits = sum(obs.turn - prev_obs.turn)")
    by_bins = answer(capsys, "compare", a, b, *ranking)  # floor(7 / 6) = 1 bin against 0
    assert (by_bins["better"], by_bins["decided_by"], by_bins["mode"]) == ("A", "new_tiles", "bins")
    by_margin = answer(capsys, "compare", a, b, *ranking, "--mode", "margin")  # 5 is within 6; 9 turns against 8
    assert (by_margin["better"], by_margin["decided_by"]) == ("A", "waits")


def test_compare_with_the_margins_of_a_run(tmp_path, capsys):
    run = run_folder(tmp_path / "run")
    a, b = episode(tmp_path / "a.npz", new_tiles=(2, 0)), episode(tmp_path / "b.npz", new_tiles=(1, 0, 0, 0, 0))
    found = answer(capsys, "compare", a, b, "--run", run)  # new_tiles 2 and 1: one bin of 2.5; turns 2 and 5: bins 0, 1
    assert [row["margin"] for row in found["levels"]] == [0, 0, 2.5, 4]
    assert (found["better"], found["decided_by"]) == ("A", "turns")
    assert found["levels"][3]["strength"] == 1


def test_compare_in_words(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    run = run_folder(tmp_path / "run")
    a, b = episode(tmp_path / "a.npz"), episode(tmp_path / "b.npz", success=True, new_tiles=(9,))
    assert main(["rewards", "compare", str(a), str(b), "--run", str(run)]) == 0
    shown = capsys.readouterr().out
    assert f"B  {b}: 1 step, success" in shown
    assert "B is better, decided by success: 1 against 0." in shown
    assert "not reached (B is better)" in shown
    assert "of segments of 16 steps; these are whole episodes" in shown
    assert main(["rewards", "compare", str(a), str(a)]) == 0
    assert "A tie: no factor tells the two apart." in capsys.readouterr().out


def test_a_decision_counts_its_margins_in_words():
    judge = factors_command.Judge(
        FactorTable(parse_ranking(["new_tiles"])),
        factors_command.PreferenceTree([factors_command.Level(name="new_tiles", sign=1, margin=2.0)], "bins"),
    )
    decider = factors_command.deciding(judge.tree.explain(np.array([1.0]), np.array([9.0])))
    said = "B is better, decided by new_tiles: 9 against 1, 4 {} apart."
    assert factors_command._sentence(decider, "bins") == said.format("bins")
    assert factors_command._sentence(decider, "margin") == said.format("margins")


def test_compare_refuses_in_one_sentence(tmp_path, capsys, monkeypatch):
    a = episode(tmp_path / "a.npz")
    other = episode(tmp_path / "other.npz", task="MiniHack-KeyRoom-S5-v0")
    assert "needs two recorded episodes" in refused(capsys, "compare", a)
    assert "only episodes of one task compare" in refused(capsys, "compare", a, other)
    assert "cannot be read: no such file" in refused(capsys, "compare", a, tmp_path / "nowhere.npz")
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(a.read_bytes()[:-50])
    assert "damaged.npz is not an episode record, or it is damaged" in refused(capsys, "compare", a, damaged)
    assert "unknown factor 'succes'; nearest: success" in refused(capsys, "compare", a, a, "--ranking", "succes")
    assert "holds no schema field 'obs.depth'" in refused(capsys, "compare", a, a, "--ranking", "max_depth")
    divides = "x = 1 / (obs.turn - obs.turn)"
    assert "a.npz: factor 'x' is not finite at step 0" in refused(capsys, "compare", a, a, "--ranking", divides)
    failing = tmp_path / "heron_compared_module.py"
    failing.write_text("nonsense")
    monkeypatch.syspath_prepend(tmp_path)
    named = "x = heron_compared_module:x"
    assert "NameError: name 'nonsense' is not defined" in refused(capsys, "compare", a, a, "--ranking", named)
    assert "unknown flag --rankng" in refused(capsys, "compare", a, a, "--rankng", "x")
    run = run_folder(tmp_path / "run")
    assert "not both" in refused(capsys, "compare", a, a, "--run", run, "--ranking", "success")
    assert "is not a run folder" in refused(capsys, "compare", a, a, "--run", tmp_path / "nowhere")
    added = run_folder(tmp_path / "added", WeightedSumConfig(weight=1.0))
    assert "it has no preference tree" in refused(capsys, "compare", a, a, "--run", added)
    new = replace(REPORT, levels=tuple(replace(one, margin=None) for one in REPORT.levels))
    early = run_folder(tmp_path / "early", report=new)
    assert "has taken no margins yet" in refused(capsys, "compare", a, a, "--run", early)
    changed = run_folder(tmp_path / "changed", TreeConfig(weight=1.0, ranking=("success", "gold")))
    assert "is configured for success, gold" in refused(capsys, "compare", a, a, "--run", changed)


# ---- the command


def test_usage_and_unknown_actions(capsys):
    assert main(["rewards", "--help"]) == 0
    assert "usage: yendor rewards ACTION" in capsys.readouterr().out
    assert "did you mean compare or score?" in refused(capsys, "compar", "x")
    assert "rewards show needs a run folder" in refused(capsys, "show")
