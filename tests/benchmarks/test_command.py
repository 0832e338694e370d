"""``python -m tests.benchmarks``: every benchmark has its flags, and bad input is one sentence."""

import importlib

import pytest

from tests.benchmarks.__main__ import BENCHES, COMMANDS, main


@pytest.mark.parametrize("name", BENCHES)
def test_every_benchmark_can_be_run_with_its_defaults(name):
    module, config, _ = BENCHES[name]
    assert callable(importlib.import_module(module).measure)
    getattr(importlib.import_module(module), config)()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    assert main([name, "--help"]) == 0
    assert f"python -m tests.benchmarks {name}" in capsys.readouterr().out


def test_the_help_names_everything(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*BENCHES, *COMMANDS))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("study nothing", "unknown study 'nothing'"),
        ("study --parallel 1", "the study comes first"),
        ("soak --task MiniHack-Rom-5x5-v0", "MiniHack-Room-5x5-v0"),
        ("soak --json /dev/null/out.json", "out.json cannot be written: "),
        ("trian", "unknown benchmark 'trian'; did you mean train"),
        ("checkouts", "other must be the root of a checkout of Yendor, not None"),
        ("checkouts --other .", "other must be the root of a checkout of Yendor, not ."),
        ("results show nothing x", "unknown study 'nothing'"),
        ("results forget", "results forget is none of: list; show STUDY RUN; add STUDY FILE ..."),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(argv, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv.split()) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("python -m tests.benchmarks: ") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
