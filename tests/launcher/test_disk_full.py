"""A disk that is full while a run writes: one line says so, and the status holds it although nothing new fits."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmpretrain.endings import Ending
from mmpretrain.engine.checkpoint_files import CheckpointError, DiskFullError, is_full
from mmpretrain.run_folder import RunFolder, State
from tests.launcher.test_local_run import importable_toys, ranks_alive, run  # noqa: F401
from tests.launcher.toy import fill, toy_plan


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.processes
def test_the_status_can_be_written_on_a_full_disk(small_disk: Path) -> None:
    folder = RunFolder(small_disk)
    folder.update_status(state=State.running, step=3)
    fill(small_disk / "filling")
    folder.update_status(state=State.failed, cause="the disk is full", ending=Ending.disk_full)
    assert (folder.status()["state"], folder.status()["ending"], folder.status()["step"]) == ("failed", "disk_full", 3)
    assert not list(small_disk.glob(".status.json.*"))
    assert is_full(RuntimeError("unexpected pos 128 vs 64"), small_disk / "checkpoints" / "step-1.tmp")


@pytest.mark.processes
@pytest.mark.usefixtures("importable_toys")
def test_a_run_ends_with_one_line_when_its_disk_is_full(small_disk: Path) -> None:
    plan = toy_plan(small_disk / "toy")
    code, out = run(plan, fill=0)
    status = RunFolder(plan.run_folder).status()
    assert code is Ending.disk_full, out
    assert (status["state"], status["ending"]) == ("failed", "disk_full")
    assert "No space left on device" in status["cause"]
    assert "free some space" in out and not ranks_alive(plan)


def test_a_full_disk_is_told_from_other_errors(tmp_path: Path) -> None:
    assert is_full(OSError(28, "No space left on device"), tmp_path)
    assert is_full(DiskFullError("rank 0 could not write"), tmp_path)
    assert not is_full(PermissionError(13, "Permission denied"), tmp_path)
    assert issubclass(DiskFullError, CheckpointError)
