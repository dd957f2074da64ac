"""The marker ``processes`` is checked, not believed: a test without it that starts a process fails.

Tests that use the fixture ``ranks`` get the marker by themselves (conftest.py); others that start processes, loader
workers included, carry it. ``make quick`` leaves the marked ones out.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import pytest

MAY_START = ("processes", "slurm")  # markers


class UnmarkedProcessError(AssertionError):
    """A test started a process and does not say so; the message says what to add."""


def mark_users_of_ranks(items: list[pytest.Item]) -> None:
    """Give the marker ``processes`` to every test that uses the fixture ``ranks``, directly or through others."""
    for item in items:
        if "ranks" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.processes)


@contextmanager
def guarded(item: pytest.Item) -> Iterator[None]:
    """While this lasts, starting a process raises UnmarkedProcessError, unless the test is marked."""
    if any(item.get_closest_marker(name) for name in MAY_START):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for place, name in ((subprocess.Popen, "__init__"), (BaseProcess, "start"), (os, "fork")):
            patch.setattr(place, name, _refusal(item.nodeid))
        yield


def _refusal(test: str) -> Callable[..., NoReturn]:
    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise UnmarkedProcessError(f"{test} starts a process {arguments}: mark it with @pytest.mark.processes")

    return refuse
