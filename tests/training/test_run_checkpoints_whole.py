"""Whole runs on local processes that lose their disk, or meet one that is full while a checkpoint is written."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mmpretrain.engine.checkpoint_store import CheckpointStore
from mmpretrain.run_folder import RunFolder, read_lines
from tests.small_runs import command, keys_by_step, kill_a_rank, launch, weights

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_run_that_lost_its_folder_goes_on_from_its_copies_bit_for_bit(digits: Path, tmp_path: Path) -> None:
    straight = RunFolder(tmp_path / "straight")
    done = launch(command(digits, tmp_path, "straight", "checkpoint.background=false"))
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunFolder(tmp_path / "runs" / "lost")
    arguments = command(digits, run.path.parent, "lost", f"checkpoint.copy_to={tmp_path / 'store'}")
    with subprocess.Popen(arguments, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
        kill_a_rank(run, 17, lambda ranks: ranks[-1])
    assert process.returncode != 0
    assert CheckpointStore(str(tmp_path / "store"), "lost").steps()[0] in (10, 15)
    shutil.rmtree(run.path)
    again = launch(arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "fetched from" in again.stdout
    assert weights(run) == weights(straight)
    assert keys_by_step(run) == keys_by_step(straight)
    losses = [[line["loss"] for line in read_lines(one.metrics) if "loss" in line] for one in (run, straight)]
    assert losses[0] == losses[1]
    saves = [line for line in read_lines(run.metrics) if "save_stall_s" in line]
    assert saves and all(line["save_stall_s"] > 0 for line in saves) and any("save_s" in line for line in saves)
