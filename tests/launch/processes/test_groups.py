"""One conformance suite over every way to exchange gradients."""

import multiprocessing
import socket

import numpy as np
import pytest

from envs.protocols import Alone
from launch.processes.groups import GlooMeeting, GroupBrokenError, SharedMemoryMeeting


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


MEETINGS = {
    "shared memory": SharedMemoryMeeting,
    "gloo": lambda size: GlooMeeting("127.0.0.1", _free_port()),
}


def _member(invitation, rank, size, work, answers):
    group = invitation.join(rank, size)
    try:
        answers.put((rank, work(group)))
    except GroupBrokenError as error:
        answers.put((rank, str(error)))
    group.close()


def _together(meeting, size, work):
    """What ``work(group)`` gives in each of ``size`` processes."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    members = [
        context.Process(target=_member, args=(meeting.invitation, rank, size, work, answers)) for rank in range(size)
    ]
    for member in members:
        member.start()
    found = dict(answers.get(timeout=60) for _ in members)
    for member in members:
        member.join()
    meeting.close()
    return [found[rank] for rank in range(size)]


def _numbers(rank, num):
    return np.random.default_rng(rank).normal(size=num).astype(np.float32)


def _average_and_gather(group):
    short, long = _numbers(group.rank, 5), _numbers(group.rank, 2_500_000)  # more than one piece
    group.average(short)
    group.average(long)
    flags = group.gather(np.array([group.rank, 7], np.int16))
    table = group.gather(np.full((2, 3), group.rank + 0.5))
    group.average(empty := np.zeros(0, np.float32))
    return short, long, flags, table, empty


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kind", MEETINGS)
def test_all_members_get_the_same_mean_and_everyones_array(kind, size):
    found = _together(MEETINGS[kind](size), size, _average_and_gather)
    for short, long, flags, table, empty in found:
        np.testing.assert_array_equal(short, found[0][0])
        np.testing.assert_array_equal(long, found[0][1])
        np.testing.assert_allclose(short, np.mean([_numbers(r, 5) for r in range(size)], 0), atol=1e-6)
        np.testing.assert_allclose(long, np.mean([_numbers(r, 2_500_000) for r in range(size)], 0), atol=1e-6)
        assert flags.dtype == np.int16 and flags.tolist() == [[r, 7] for r in range(size)]
        assert table.shape == (size, 2, 3) and table[:, 1, 2].tolist() == [r + 0.5 for r in range(size)]
        assert len(empty) == 0


def _average_once_if_first(group):
    if group.rank == 0:
        group.average(np.ones(3, np.float32))
    return "left"


def test_members_that_wait_for_a_dead_one_are_told():
    meeting = SharedMemoryMeeting(2)
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    members = [
        context.Process(target=_member, args=(meeting.invitation, rank, 2, _average_once_if_first, answers))
        for rank in range(2)
    ]
    for member in members:
        member.start()
    assert answers.get(timeout=60) == (1, "left")
    meeting.abort()
    rank, error = answers.get(timeout=60)
    assert rank == 0 and "a member of the group is gone" in error
    for member in members:
        member.join()
    meeting.close()


def test_a_group_of_one_changes_nothing():
    values = _numbers(1, 4)
    Alone().average(values)
    np.testing.assert_array_equal(values, _numbers(1, 4))
    np.testing.assert_array_equal(Alone().gather(values), values[None])
