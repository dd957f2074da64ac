"""Training on a real two-node Slurm: the same command, ZeRO 1 and 3, a signal and a requeue, a release."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from mmpretrain.run_folder import RunFolder, read_lines
from tests.small_runs import OTHERS, STEPS, command, command_of, keys_by_step, launch, open_release

pytestmark = pytest.mark.slurm


def slurm_command(digits: Path, runs: Path, name: str, *tokens: str) -> list[str]:
    """Two nodes, one rank each; waits for the job's end."""
    return on_slurm(command(digits, runs, name, *tokens))


def on_slurm(local: list[str]) -> list[str]:
    """``local``, submitted instead."""
    position = local.index("--cluster=local")
    return [*local[:position], "--cluster=slurm", "--nodes=2", "--follow", *local[position + 1 :]]


def job_state(job_id: str) -> str:
    """The state that Slurm itself gives for a job."""
    shown = subprocess.run(["scontrol", "show", "job", job_id], capture_output=True, text=True, timeout=20).stdout
    return next(word.partition("=")[2] for word in shown.split() if word.startswith("JobState="))


@pytest.mark.slow
def test_two_nodes(cluster: object, digits: Path, tmp_path: Path) -> None:
    done = launch(slurm_command(digits, tmp_path, "zero1", "engine=zero1"))
    assert done.returncode == 0, done.stdout + done.stderr
    is_complete_and_opens(RunFolder(tmp_path / "zero1"), tmp_path)


def is_complete_and_opens(run: RunFolder, elsewhere: Path) -> None:
    """The run by its status and by Slurm's, its release without this package."""
    assert run.status()["state"] == "completed"
    assert job_state(run.status()["job_id"]) in ("COMPLETED", "COMPLETING")
    opened = open_release(run.release, elsewhere)
    assert opened.returncode == 0, opened.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", OTHERS)
def test_other_methods_on_two_nodes(cluster: object, digits: Path, tmp_path: Path, method: str) -> None:
    """Batch norm and gathered embeddings that cross nodes, a partitioned fusion, critics outside ZeRO."""
    done = launch(on_slurm(command_of(method, digits, tmp_path, method, "engine=zero3")))
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunFolder(tmp_path / method)
    losses = [line["loss"] for line in read_lines(run.metrics) if "loss" in line]
    assert losses[-1] < losses[0]
    is_complete_and_opens(run, tmp_path)


def test_zero_3_on_two_nodes_is_signalled_saves_requeues_and_finishes(
    cluster: object, digits: Path, tmp_path: Path
) -> None:
    # Checkpoints are far apart: only the one taken because of the signal can save the first steps.
    arguments = slurm_command(digits, tmp_path, "signalled", "engine=zero3", "checkpoint.every_steps=1000")
    run = RunFolder(tmp_path / "signalled")
    with subprocess.Popen(arguments, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        end = time.monotonic() + 400  # where other tests keep all cores busy, a start takes minutes
        while not any(line.get("step", 0) >= 3 for line in read_lines(run.metrics)):
            assert time.monotonic() < end and process.poll() is None, "the run never got going"
            time.sleep(0.02)
        subprocess.run(["scancel", "--signal=USR2", run.status()["job_id"]], check=True, env=dict(os.environ))
        output, _ = process.communicate(timeout=480)
    assert process.returncode == 0, output
    is_complete_and_opens(run, tmp_path)
    assert [len(keys) for keys in keys_by_step(run)] == [128] * STEPS
    restarts = subprocess.run(
        ["scontrol", "show", "job", run.status()["job_id"]], capture_output=True, text=True, timeout=20
    ).stdout
    assert "Restarts=1" in restarts
