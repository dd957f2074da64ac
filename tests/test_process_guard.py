"""The marker ``processes`` cannot lie: what is not marked starts no process, and whoever uses ranks is marked."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.process_guard import UnmarkedProcessError
from tests.rank_pool import Ranks


@pytest.mark.parametrize(
    "start",
    [
        lambda: subprocess.run([sys.executable, "-c", ""]),
        lambda: subprocess.run("true", shell=True),
        lambda: multiprocessing.get_context("fork").Process(target=int).start(),
        lambda: multiprocessing.get_context("spawn").Process(target=int).start(),
        lambda: os.fork(),
    ],
)
def test_a_test_without_the_marker_cannot_start_a_process(start: Callable[[], object]) -> None:
    with pytest.raises(UnmarkedProcessError, match=r"without_the_marker.* mark it with @pytest\.mark"):
        start()


def test_a_program_that_is_not_there_may_be_asked_for() -> None:
    with pytest.raises(FileNotFoundError):
        subprocess.run(["a-program-that-nobody-has"])


@pytest.mark.processes
def test_a_marked_test_starts_what_it_likes() -> None:
    assert subprocess.run([sys.executable, "-c", "raise SystemExit(3)"]).returncode == 3


def test_users_of_ranks_are_marked(ranks: Ranks, request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("processes")
