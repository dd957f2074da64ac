"""The marker ``processes`` is checked, not believed: a test without it that starts a process fails.

Tests that use the fixture ``ranks`` get the marker by themselves (conftest.py); others that start processes, loader
workers included, carry it. ``make quick`` leaves the marked ones out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
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
    """While this lasts, starting a process raises UnmarkedProcessError, unless the test is marked.

    A program that is not there may be asked for: nothing starts.
    """
    if any(item.get_closest_marker(name) for name in MAY_START):
        yield
        return

    def refuse(*_: Any) -> NoReturn:
        raise UnmarkedProcessError(f"{item.nodeid} starts a process: mark it with @pytest.mark.processes")

    def open_program(process: subprocess.Popen[Any], program: Any, *rest: Any, **options: Any) -> None:
        first = program if isinstance(program, str | bytes | os.PathLike) else program[0]
        if options.get("shell") or shutil.which(first):
            refuse()
        start(process, program, *rest, **options)

    start = subprocess.Popen.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", open_program)
        patch.setattr(BaseProcess, "start", refuse)
        patch.setattr(os, "fork", refuse)
        yield
