"""How `make test` deals the tests to pytest's workers (pytest-xdist): a plain `pytest` has one process and needs none.

Slurm's tests mostly wait, runs and ranks compute on several processes, the rest on one: together they keep two cores
busy. A file stays on one worker, and so do all files that share Slurm's cluster; what takes longest comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import WorkerController

LONG = ("slurm", "processes")  # markers: files with such tests are begun in this order


def sort_by_length(items: list[pytest.Item]) -> None:
    """Put the files first that take long; the order of tests within a file stays."""
    place = dict.fromkeys((item.path for item in items), len(LONG))
    for item in items:
        found = (rank for rank, name in enumerate(LONG) if item.get_closest_marker(name))
        place[item.path] = min(place[item.path], next(found, len(LONG)))
    items.sort(key=lambda item: place[item.path])


def scope_of(test: str) -> str:
    """What goes to one worker as a whole: the test's file, or everything that needs Slurm."""
    return "tests/slurm" if test.startswith("tests/slurm/") else test.partition("::")[0]


def scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """The scheduler of pytest-xdist with our scopes, in our order, which goes on after a worker crashed.

    Its own deals the crashed test again, up to the limit of restarts, and files that are done as well: a worker with
    nothing to do reports nothing, so that it is dealt nothing more and all wait for ever.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByScope(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

        def remove_node(self, node: WorkerController) -> str | None:
            work = self.assigned_work.pop(node)
            left = {scope: [test for test, done in tests.items() if not done] for scope, tests in work.items()}
            crashed = next((test for tests in left.values() for test in tests), None)
            for scope, tests in left.items():
                if rest := [test for test in tests if test != crashed]:
                    self.workqueue[scope] = dict.fromkeys(rest, False)
            if crashed is not None:
                for other in self.nodes:
                    self._reschedule(other)
            return crashed

        def _reschedule(self, node: WorkerController) -> None:
            super()._reschedule(node)
            # A worker keeps a test back until it knows the next one: with a single one it would wait, too.
            while self.workqueue and not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
                self._assign_work_unit(node)

    config.option.loadscopereorder = False
    return ByScope(config, log)
