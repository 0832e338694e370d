import io

from rich.console import Console

from launch.runs.progress import LiveProgress, PlainProgress, duration, progress


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


METRICS = {
    "rollout/success": 0.25,
    "rollout/env_return": float("nan"),
    "labels/known": 1234.0,
    "labels/queued": 3.0,
    "rewards/env/mean": 0.5,
    "rewards/oni/mean": -0.01,
    "rewards/oni/valid": 0.9,
}


def console(**options):
    return Console(file=io.StringIO(), width=options.pop("width", 120), **options)


def written(where):
    return where.file.getvalue()


def test_plain_lines_come_once_an_interval():
    clock, where = Clock(), console()
    with progress(where, 10.0, total_steps=1000, title="room", clock=clock) as shown:
        assert isinstance(shown, PlainProgress)
        for _ in range(5):
            shown.update(100, METRICS)
        clock.now_s += 10
        shown.update(200, {})
    lines = written(where).splitlines()
    assert lines[0] == (
        "step 100/1,000 (10%) | success 0.250 | labels known 1,234 | labels queued 3 | "
        "reward env +0.5000 | reward oni -0.0100 | left -"
    )
    assert lines[1].startswith("step 200/1,000 (20%) | 10 steps/s | success 0.250 |")
    assert lines[1].endswith("| left 1 min 20 s")
    assert lines[2] == f"room: {lines[1]}"
    assert len(lines) == 3


def test_speed_does_not_count_what_was_done_before_a_resume():
    clock, where = Clock(), console()
    shown = PlainProgress(where, 0.0, total_steps=2000, title="r", clock=clock)
    shown.update(1000, {})
    clock.now_s += 100
    shown.update(1500, {})
    assert "| 5 steps/s | left 1 min 40 s" in written(where)


def test_the_measured_speed_is_preferred():
    where = console()
    PlainProgress(where, 0.0, total_steps=200, title="r", clock=Clock()).update(100, {"time/steps_per_s": 50})
    assert "50 steps/s" in written(where) and "left 2 s" in written(where)


def test_notes_are_printed_as_they_are():
    where = console()
    shown = PlainProgress(where, 10.0, total_steps=1, title="r", clock=Clock())
    shown.note("worker 2 died [exit 9]; " + "x" * 200)
    assert written(where) == "worker 2 died [exit 9]; " + "x" * 200 + "\n"


def test_a_terminal_gets_the_live_panel():
    clock, where = Clock(), console(force_terminal=True, _environ={"TERM": "xterm"})
    with progress(where, 10.0, total_steps=1000, title="room", clock=clock) as shown:
        assert isinstance(shown, LiveProgress)
        shown.update(400, METRICS)
        clock.now_s += 10
        shown.update(500, {})
        shown.note("checkpoint [500] written")
    text = written(where)
    for piece in ("room", "500", "1,000 steps", " steps/s", "50 s", "0.250", "labels known", "reward oni"):
        assert piece in text
    assert "checkpoint [500] written" in text


def test_the_panel_fits_narrow_and_empty():
    for width in (40, 80, 140):
        where = console(width=width, force_terminal=True, _environ={"TERM": "xterm"})
        with LiveProgress(where, 1.0, total_steps=0, title="room", clock=Clock()):
            pass


def test_durations():
    assert [duration(s) for s in (None, 0.4, 59.4, 59.6, 312, 12000, float("inf"))] == [
        "-", "0 s", "59 s", "1 min 00 s", "5 min 12 s", "3 h 20 min", "-",
    ]  # fmt: skip
