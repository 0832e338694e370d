"""Commands as a person types them: help, bad input, and a small run from end to end."""

import csv
import json
import subprocess
import sys
import time

import pytest

from envs.tasks import specs_of
from launch.cli import COMMANDS, main
from launch.config.presets import PRESETS, preset

TINY = [
    "--rollout.num-workers",
    "0",
    "--rollout.games-per-worker",
    "4",
    "--rollout.num-steps",
    "32",
    "--ppo.minibatch",
    "64",
    "--no-logging.tensorboard",
    "--threads",
    "1",
]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_complete_and_says_what_it_is(name):
    config = preset(name)
    assert config.preset == name
    assert PRESETS[name].__doc__
    specs_of(config.env)


def test_help_answers_at_once_without_heavy_imports():
    code = (
        "import sys; from launch.cli import main; main(['--help']); "
        "heavy = {'torch', 'ray', 'gymnasium', 'minihack', 'nle', 'stable_baselines3', 'openai'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(command.split()[0] in done.stdout for command in COMMANDS)
    assert time.monotonic() - began < 5  # the promise is one second; a loaded machine gets some slack here


def test_parsing_a_training_run_imports_neither_torch_nor_ray():
    code = (
        "import sys; from launch.cli import main; main(['train', 'keyroom', '--device', 'cpu', '--dry-run']); "
        "sys.exit(', '.join({'torch', 'ray', 'stable_baselines3'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("trian room", "unknown command 'trian'; did you mean train?"),
        ("train keyrom", "unknown preset or task 'keyrom'; did you mean keyroom"),
        ("train keyroom --env.task MiniHack-KeyRom-S5-v0", "MiniHack-KeyRoom-S5-v0"),
        ("train keyroom --env.task MiniHack-Boxoban-Hard-v0", "cannot be built"),
        ("train keyroom --ppo.learning-rat 1e-3", "--ppo.learning-rate"),
        ("train keyroom --ppo.clip -1", "ppo.clip"),
        ("train keyroom --ppo.epochs three", "ppo.epochs"),
        ("train keyroom --env.obs-keys glyphs_krop", "unknown observation key 'glyphs_krop'"),
        ("train keyroom --rollout.num-workers 0 --rollout.max-policy-lag 1", "rollout.max_policy_lag"),
        ("train keyroom --placement symetric", "placement"),
        ("train keyroom --placement symmetric --rollout.num-workers 0", "needs rollout.num_workers of at least 1"),
        ("train keyroom --placement symmetric --rollout.max-policy-lag 1", "needs rollout.max_policy_lag 0"),
        ("train keyroom --placement symmetric --ppo.minibatch 511", "multiple of rollout.num_workers 2"),
        ("train keyroom --env.engine nativ", "env.engine"),
        ("bench env --task MiniHack-Rom-5x5-v0", "MiniHack-Room-5x5-v0"),
        ("train keyroom --ppo.minibatch 100000", "ppo.minibatch 100000 is larger than a batch"),
        ("train keyroom --env.features obs.hpp", "obs.hp"),
        ("train keyroom --env.obs-keys glyphs", "the network cannot read 'glyphs'"),
        ("train keyroom --device cuda:9", "device 'cuda:9' is not available"),
        (
            "train room --env.task NetHackScore-v0,NetHackGold-v0 --rollout.games-per-worker 1 --ppo.minibatch 9",
            "too few",
        ),
        ("train --resume nowhere", "nowhere"),
        ("train --total-steps 5", "the preset or the task comes first"),
        ("eval nowhere", "nowhere"),
        ("eval random --tasks MiniHack-Rom-5x5-v0", "MiniHack-Room-5x5-v0"),
        ("eval random --tasks MiniHack-Room-5x5-v0 --seeds nowhere.txt", "nowhere.txt"),
        ("eval random", "--tasks"),
        ("eval random --tasks MiniHack-Room-5x5-v0 --json .", "--json . is a folder"),
        ("eval random --tasks MiniHack-Room-5x5-v0 --json /dev/null/out.json", "out.json cannot be written: "),
        ("bench env --json /dev/null/out.json", "out.json cannot be written: "),
        ("labels lst x", "unknown labels action 'lst'; did you mean list"),
        ("labels list nowhere", "neither a run folder nor a label store"),
        ("train MiniHack-Rom-5x5-v0", "MiniHack-Room-5x5-v0"),
        ("train keyroom --rewards honi", "unknown reward 'honi'; did you mean oni or heron?"),
        ("train keyroom --rewards program", "--rewards program: this reward pays nothing as configured"),
        ("train keyroom --rewards oni --reward.oni.weight 0", "--rewards oni: this reward pays nothing"),
        ("train keyroom --preset room", "unknown flag --preset"),
        ("bench trian", "unknown benchmark 'trian'; did you mean train?"),
        ("eval --episodes 3", "eval needs a run folder, random, or a Stable-Baselines3 model"),
        ("tasks Room Maze", "unexpected argument 'Maze'"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(argv, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv.split()) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("yendor: ") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_dry_run_shows_configuration_and_processes_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "keyroom_oni", "--dry-run", "--rollout.num-workers", "3"]) == 0
    shown = capsys.readouterr().out
    assert '"num_workers": 3' in shown
    assert "3 rollout workers" in shown and "labeller of captions (lexicon)" in shown
    assert list(tmp_path.iterdir()) == []


def test_another_package_called_agents_is_named(tmp_path):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("")
    code = (
        "import sys, launch.cli; sys.modules.pop('agents', None); "
        f"sys.path.insert(0, {str(tmp_path)!r}); sys.exit(launch.cli.main(['tasks']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "is not Yendor's" in done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny finished run."""
    runs = tmp_path_factory.mktemp("runs")
    assert main(["train", "keyroom_oni", "--runs", str(runs), "--name", "tiny", "--total-steps", "512", *TINY]) == 0
    return runs / "tiny"


def test_a_run_cannot_be_made_twice(run, capsys):
    assert main(["train", "keyroom_oni", "--runs", str(run.parent), "--name", "tiny", *TINY]) == 2
    assert "--resume" in capsys.readouterr().err


def test_a_resume_with_another_configuration_shows_the_difference(run, capsys):
    assert main(["train", "--resume", str(run), "--ppo.epochs", "7"]) == 2
    error = capsys.readouterr().err
    assert "ppo.epochs: 3 -> 7" in error


def test_evaluation_is_written_resumed_and_compared(run, tmp_path, capsys):
    seeds = tmp_path / "seeds.txt"
    seeds.write_text("# core,disp,lgen\n1,2,3\n4, 5, 6\n7,8,9\n")
    out = tmp_path / "out.json"
    command = f"eval {run} --seeds {seeds} --workers 0 --json {out}".split()
    assert main(command) == 0
    (answer,) = json.loads(out.read_text())["evaluations"]
    assert [tuple(e["seeds"]) for e in answer["episodes"]] == [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    assert answer["summary"]["episodes"] == 3
    (episode,) = run.glob("eval/MiniHack-KeyRoom-S5-v0/*/4-5-6.json")
    # An episode that is there is not played again: what is written in it is taken.
    edited = json.loads(episode.read_text()) | {"env_return": 123.0}
    episode.write_text(json.dumps(edited))
    assert main(command) == 0
    (again,) = json.loads(out.read_text())["evaluations"]
    assert again["episodes"][1]["env_return"] == 123.0
    # One that is not is played as it would have been.
    episode.unlink()
    assert main(command) == 0
    (mended,) = json.loads(out.read_text())["evaluations"]
    assert mended["episodes"] == answer["episodes"]
    capsys.readouterr()
    assert main(["compare", str(run)]) == 0
    assert "tiny" in capsys.readouterr().out


def test_a_policy_plays_tasks_with_other_actions(run, tmp_path):
    out = tmp_path / "out.json"
    tasks = "MiniHack-Room-5x5-v0,MiniHack-LockedDoor-v0"
    assert main(f"eval {run} --tasks {tasks} --episodes 2 --workers 0 --json {out}".split()) == 0
    assert [e["summary"]["task"] for e in json.loads(out.read_text())["evaluations"]] == tasks.split(",")


def test_labels_are_listed_and_exported(run, tmp_path, capsys):
    assert main(["labels", "list", str(run), "--limit", "5"]) == 0
    assert "lexicon" in capsys.readouterr().out
    assert main(["labels", "export", str(run), str(tmp_path / "labels.csv")]) == 0
    assert main(["labels", "export", str(run), str(tmp_path / "labels.jsonl")]) == 0
    rows = list(csv.DictReader((tmp_path / "labels.csv").open()))
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [line["text"] for line in lines] != []
    assert main(["labels", "export", str(run), str(tmp_path / "labels.xyz")]) == 2


def test_the_report_is_one_file_with_everything_in_it(run):
    assert main(f"eval {run} --episodes 3 --workers 0".split()) == 0
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "MiniHack-KeyRoom-S5-v0" in page and "Not evaluated yet" not in page
    assert 'src="http' not in page and 'href="http' not in page
