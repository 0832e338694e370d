"""The profile: sums that can be checked by hand, and a trace in the format that viewers read."""

import json

from envs.phases import Phases, Span
from launch.runs import profile
from launch.runs.profile import Profile, table, trace

SPANS = {
    "worker 0": [Span("games", 10.0, 1.0), Span("learn/backward", 11.0, 0.5), Span("learn", 11.0, 2.0)],
    "driver": [Span("wait", 10.0, 1.0), Span("wait", 13.0, 1.0)],
}


def test_the_table_sums_calls_and_leaves_the_rest_visible():
    text = table(SPANS, 1000)
    rows = [line.split() for line in text.splitlines()]
    assert text.startswith("1,000 environment steps in 4.00 s: 250 steps/s")
    assert ["driver", "wait", "2", "2.000", "50.0%", "2000.0"] in rows
    assert ["driver", "(none", "of", "these)", "2.000", "50.0%", "2000.0"] in rows
    # What is within another phase is not counted twice.
    assert ["worker", "0", "backward", "1", "0.500", "12.5%", "500.0"] in rows
    assert ["worker", "0", "(none", "of", "these)", "1.000", "25.0%", "1000.0"] in rows


def test_the_trace_is_complete_events_of_named_processes():
    events = trace(SPANS)["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    assert sorted(names.values()) == ["driver", "worker 0"]
    spans = [(names[e["pid"]], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert ("worker 0", "learn/backward", 1e6, 0.5e6) in spans and ("driver", "wait", 3e6, 1e6) in spans
    assert len(spans) == 5


def test_a_profile_skips_the_first_updates_and_writes_after_enough_of_them(tmp_path):
    recorded = Profile(tmp_path)
    for _ in range(profile.WARM_UP_UPDATES + profile.UPDATES):
        assert not recorded.is_over and not recorded.folder.exists()
        recorded.add([SPANS], 10)
    assert recorded.is_over
    assert f"{10 * profile.UPDATES:,} environment steps" in (recorded.folder / "phases.txt").read_text()
    events = json.loads((recorded.folder / "trace.json").read_text())["traceEvents"]
    assert len(events) == 2 + 5 * profile.UPDATES


def test_a_run_too_short_to_be_profiled_writes_nothing(tmp_path):
    short = Profile(tmp_path)
    short.add([SPANS], 10)
    short.write()
    assert not short.folder.exists()


def test_phases_sum_laps_and_keep_as_many_as_asked():
    phases = Phases()
    phases.spans_left = 2
    for _ in range(3):
        with phases.measure("a"):
            pass
    assert [span.phase for span in phases.take_spans()] == ["a", "a"]
    assert set(phases.take()) == {"a"} and phases.take() == {} and phases.take_spans() == []
