"""Marks of processes that share them: seen by all, and one at a time."""

from __future__ import annotations

import os
import pickle
import signal
import time

import pytest

from mmpretrain.data.marks import Marks


def forked(work: object) -> int:
    """A process that runs ``work`` and ends."""
    child = os.fork()
    if not child:
        work()  # type: ignore[operator]
        os._exit(0)
    return child


@pytest.mark.processes
def test_what_one_process_marks_the_others_see() -> None:
    marks = Marks(3)
    os.waitpid(forked(lambda: marks.put(1, -5)), 0)
    assert marks.has(1, -5) and marks.has(0, 0) and not marks.has(2, -5)


@pytest.mark.processes
def test_one_at_a_time_works_on_a_thing_and_a_dead_one_does_not_hold_it() -> None:
    marks = Marks(2)
    reading, writing = os.pipe()

    def hold() -> None:
        with marks.alone(0):
            os.write(writing, b"!")
            time.sleep(60)

    child = forked(hold)
    os.read(reading, 1)
    with marks.alone(1):  # another thing is free
        pass
    waiting = forked(lambda: marks.alone(0).__enter__())
    assert os.waitpid(waiting, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.waitpid(waiting, 0)
    with marks.alone(0):
        pass
    os.close(reading)
    os.close(writing)


def test_a_pickled_copy_knows_nothing() -> None:
    marks = Marks(2)
    marks.put(0, 7)
    assert not pickle.loads(pickle.dumps(marks)).has(0, 7)
