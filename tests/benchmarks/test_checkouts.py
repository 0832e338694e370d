"""Two checkouts compared: ratios by hand, and a checkout with scripted answers."""

import json

import pytest

from launch.errors import RunError
from tests.benchmarks import checkouts
from tests.benchmarks.checkouts import CheckoutsBench, command_of, run_bench, speeds_of, summarise, table


@pytest.fixture
def other(tmp_path):
    """A checkout whose ``yendor bench train`` writes its arguments' number of steps per second."""
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "__init__.py").write_text("")
    (tmp_path / "launch" / "cli.py").write_text(
        "import json, sys\n"
        "if '--seed=13' in sys.argv:\n"
        "    sys.exit('no such seed')\n"
        "out = sys.argv[sys.argv.index('--json') + 1]\n"
        "open(out, 'w').write(json.dumps({'summary': {'systems': {'yendor': {'median': 200.0}}}}))\n"
    )
    return tmp_path


def test_ratios_are_taken_round_by_round():
    found = {"this": [{"yendor": 300.0}, {"yendor": 100.0}], "other": [{"yendor": 100.0}, {"yendor": 200.0}]}
    summary = summarise(found, "yendor")
    assert summary["ratios"] == [3.0, 0.5] and summary["ratio_median"] == 1.75
    assert table({"yendor": summary}).splitlines()[1].split() == ["yendor", "200", "150", "1.750", "0.500-3.000"]


def test_a_checkout_is_measured_by_its_own_code(other):
    assert run_bench(other, CheckoutsBench()) == {"yendor": 200.0}
    with pytest.raises(RunError, match="bench train failed: no such seed"):
        run_bench(other, CheckoutsBench(seed=13))


def test_older_checkouts_are_asked_in_their_words(other):
    assert "--systems=yendor" in command_of(other, CheckoutsBench())
    (other / "launch" / "bench").mkdir()
    (other / "launch" / "bench" / "train.py").write_text("")
    assert "--contenders=yendor" in command_of(other, CheckoutsBench(flags=("ppo.epochs=3",)))
    assert speeds_of({"summary": {"contenders": {"yendor": {"median": 7.0}}}}) == {"yendor": 7.0}


def test_checkouts_take_turns_and_swap_their_order(other, monkeypatch, capsys):
    monkeypatch.setattr(checkouts, "_THIS", other)
    shown, results = checkouts.measure(CheckoutsBench(other=other, rounds=2))
    assert "1.000" in shown
    assert results["measurements"] == {"this": [{"yendor": 200.0}] * 2, "other": [{"yendor": 200.0}] * 2}
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["this", "other", "other", "this"]
    json.dumps(results)
