from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.labels.retry import CircuitBreaker, Permit


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def breaker(clock: Clock, failures: int = 3, first_s: float = 4.0, longest_s: float = 10.0, jitter: float = 0.0):
    return CircuitBreaker(failures, first_s, longest_s, clock=clock, jitter=lambda: jitter)


def enter(own: CircuitBreaker) -> Permit:
    permit = own.enter()
    assert permit is not None
    return permit


def opened(clock: Clock, **limits) -> CircuitBreaker:
    own = breaker(clock, **limits)
    for _ in range(3):
        own.fail(enter(own))
    assert own.is_open
    return own


def test_failures_in_a_row_open_it_and_a_success_starts_the_count_anew():
    own = breaker(Clock())
    for _ in range(2):
        own.fail(enter(own))
    own.succeed()
    for _ in range(2):
        own.fail(enter(own))
    assert not own.is_open and own.opens == 0
    own.fail(enter(own))
    assert own.is_open and own.opens == 1
    assert own.enter() is None and own.wait_s == 4.0


def test_after_the_cool_down_one_probe_at_a_time():
    clock = Clock()
    own = opened(clock)
    clock.now_s += 3.9
    assert own.enter() is None and own.wait_s == pytest.approx(0.1)
    clock.now_s += 0.1
    probe = enter(own)
    assert own.is_open and own.wait_s is None and own.enter() is None
    own.leave(probe)  # nothing to ask: somebody else may
    enter(own)
    own.succeed()
    assert not own.is_open and own.enter() and own.enter() and own.opens == 1


def test_cool_downs_double_up_to_the_longest_and_begin_anew_after_a_success():
    clock = Clock()
    own = opened(clock)
    waits = []
    for _ in range(4):
        waits.append(own.wait_s)
        clock.now_s += own.wait_s or 0.0
        own.fail(enter(own))
    assert waits == [4.0, 8.0, 10.0, 10.0] and own.opens == 1
    clock.now_s += 10.0
    enter(own)
    own.succeed()
    for _ in range(3):
        own.fail(enter(own))
    assert own.wait_s == 4.0 and own.opens == 2


def test_jitter_shortens_by_up_to_a_half():
    assert opened(Clock(), jitter=0.5).wait_s == 3.0


def test_a_call_from_before_the_outage_says_nothing_by_failing_but_all_by_an_answer():
    clock = Clock()
    own = breaker(clock)
    old = enter(own)
    for _ in range(3):
        own.fail(enter(own))
    assert not own.is_valid(old)
    own.fail(old)
    assert own.wait_s == 4.0, "the cool-down did not grow"
    clock.now_s += 4.0
    enter(own)
    own.fail(old)
    own.leave(old)
    assert own.wait_s is None, "the probe is still under way"
    own.succeed()
    assert not own.is_open


@given(
    steps=st.lists(st.tuples(st.sampled_from(["enter", "answer", "fail", "leave", "wait"]), st.integers(0, 9))),
    failures=st.integers(1, 3),
    jitter=st.floats(0.0, 0.999),
)
def test_whatever_happens(steps, failures, jitter):
    """Permits are never given in a cool-down or beside a probe, and there is always a way back."""
    clock = Clock()
    own = breaker(clock, failures=failures, jitter=jitter)
    out: list[Permit] = []
    for act, number in steps:
        was_open = own.is_open
        if act == "enter":
            wait_s = own.wait_s
            permit = own.enter()
            assert (permit is not None) == (wait_s == 0.0)
            if permit is not None:
                assert own.is_valid(permit)
                out.append(permit)
        elif act == "wait":
            clock.now_s += number / 2
        elif out:
            permit = out.pop(number % len(out))
            valid = own.is_valid(permit)
            if act == "answer":
                own.succeed()
                assert not own.is_open
            else:
                (own.fail if act == "fail" else own.leave)(permit)
                assert was_open <= own.is_open, "only an answer closes it"
                assert valid or own.is_open == was_open
        if not own.is_open:
            assert own.wait_s == 0.0
        assert own.wait_s is None or 0.0 <= own.wait_s <= 10.0
    if own.wait_s is None:  # a probe is out: whoever has it reports back
        own.fail(out.pop(next(i for i, permit in enumerate(out) if own.is_valid(permit))))
    clock.now_s += own.wait_s or 0.0
    assert own.enter() is not None
