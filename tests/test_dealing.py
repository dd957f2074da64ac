"""The tests of a worker that crashed are dealt to others, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from tests.dealing import scheduler


class Worker:
    """What the scheduler sees of a worker of pytest-xdist: the tests that it was sent, and whether it is to end."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, numbers: list[int]) -> None:
        """Take tests."""
        self.sent += numbers

    def shutdown(self) -> None:
        """End after what was sent."""
        self.shutting_down = True


def for_one_worker(files: Mapping[str, int]) -> tuple[Any, list[str]]:
    """The scheduler, and so many tests in each file."""
    pytest.importorskip("xdist")
    config: Any = SimpleNamespace(option=SimpleNamespace(), getvalue=lambda name: ["popen"])
    return scheduler(config, None), [
        f"tests/{file}.py::test_{number}" for file, count in files.items() for number in range(count)
    ]


def join(made: Any, worker: Worker, tests: list[str]) -> Worker:
    """What happens when a worker has collected the tests."""
    made.add_node(worker)
    made.add_node_collection(worker, tests)
    if made.collection_is_completed:
        made.schedule()
    return worker


def test_a_crashed_test_is_not_dealt_again_and_its_file_goes_on() -> None:
    made, tests = for_one_worker({"a": 3, "b": 3, "c": 1, "d": 1})
    first = join(made, Worker(), tests)
    for number in range(4):  # file a is done, and one of b
        made.mark_test_complete(first, number)
    assert made.remove_node(first) == tests[4]
    second = join(made, Worker(), tests)
    assert len(second.sent) == 2, "never a single test"
    for number in second.sent:  # which grows
        made.mark_test_complete(second, number)
    assert sorted(second.sent) == [5, 6, 7] and second.shutting_down and made.tests_finished


def test_a_worker_that_ends_in_order_leaves_nothing() -> None:
    made, tests = for_one_worker({"a": 2})
    worker = join(made, Worker(), tests)
    for number in worker.sent:
        made.mark_test_complete(worker, number)
    assert made.remove_node(worker) is None and not made.workqueue
    with pytest.raises(KeyError):  # which pytest-xdist expects of one that it knows no more
        made.remove_node(worker)
