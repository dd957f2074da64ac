"""How `make test` deals the tests to pytest's workers (pytest-xdist): a plain `pytest` has one process and needs none.

Slurm's tests mostly wait, runs and ranks compute on several processes, the rest on one: together they keep two cores
busy. A file stays on one worker, and so do all files that share Slurm's cluster; what takes longest comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

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
    """The scheduler of pytest-xdist with our scopes, in our order."""
    from xdist.scheduler import LoadScopeScheduling

    class ByScope(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    config.option.loadscopereorder = False
    return ByScope(config, log)
