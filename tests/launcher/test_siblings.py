"""Local ranks do not wait for one that is gone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from submitit.core.utils import JobPaths

from launcher import siblings
from launcher.failures import record_failure
from launcher.launch import launch
from launcher.siblings import Siblings, watched
from mmpretrain.run_folder import RunFolder
from tests.launcher.toy import ROOT, toy_job, toy_plan


class Ranks(Siblings):
    """Siblings whose living ones are said, not looked for."""

    alive: list[int]

    def _living(self) -> list[int]:
        return self.alive


@pytest.fixture
def two(tmp_path: Path) -> Ranks:
    """Two ranks that live."""
    found = Ranks([JobPaths(tmp_path, "7", rank) for rank in (0, 1)], controller=1)
    found.alive = [101, 102]
    return found


def test_ranks_that_have_yet_to_come_are_not_gone(two: Ranks) -> None:
    two.alive = [101]
    assert not two.one_is_gone()
    two.alive = [101, 102]
    assert not two.one_is_gone()
    two.alive = [101]
    assert two.one_is_gone()


def test_a_rank_with_a_result_is_not_gone(two: Ranks) -> None:
    assert not two.one_is_gone()
    two.tasks[1].result_pickle.write_bytes(b"")
    two.alive = [101]
    assert not two.one_is_gone()


def test_a_rank_that_says_why_it_fails_is_gone(two: Ranks) -> None:
    record_failure(two.tasks[1], ValueError("no"))
    assert two.one_is_gone()


def test_whoever_ends_in_time_is_not_ended(two: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "POLL_S", 0.01)
    monkeypatch.setattr(siblings, "GRACE_S", 0.1)
    gone = threading.Event()
    record_failure(two.tasks[1], ValueError("no"))
    with watched(two, gone.set):
        time.sleep(0.05)
    assert not gone.wait(0.2)
    with watched(two, gone.set):
        assert gone.wait(5)


@pytest.fixture
def short_grace(tmp_path: Path) -> Iterator[Path]:
    """A folder for PYTHONPATH that makes ranks wait for a moment only."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, sys\n"
        "class Short(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'launcher.siblings':\n"
        "            sys.meta_path.remove(self)\n"
        "            import launcher.siblings\n"
        "            launcher.siblings.GRACE_S = launcher.siblings.POLL_S = 0.2\n"
        "            return launcher.siblings.__spec__\n"
        "sys.meta_path.insert(0, Short())\n"
    )
    yield tmp_path


@pytest.mark.processes
def test_nobody_waits_for_a_killed_rank_though_nobody_follows(
    tmp_path: Path, short_grace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rank is killed and the other never notices by itself: it does not compute with it."""
    monkeypatch.setenv("PYTHONPATH", f"{short_grace}:{ROOT}")
    plan = toy_plan(tmp_path / "toy")
    launch(plan, Console(file=sys.stderr), toy_job(plan.run_folder, kill=1, hang=0), follow_it=False)
    folder = RunFolder(plan.run_folder)
    controller = psutil.Process(int(folder.status()["job_id"]))
    controller.wait(60)
    status = folder.status()
    assert status["state"] == "failed" and "rank 1: ended without an exception" in status["cause"]
