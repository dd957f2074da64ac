"""The script that starts a Slurm of pretended nodes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.launching.executors import sbatch_script
from launcher.planning.resources import Request, choose
from launcher.slurm import client as slurm_client
from tests.launcher.toy import slurm_plan
from tests.slurm.conftest import SCRIPT, dev_cluster, started


@pytest.fixture(scope="module")
def second_cluster() -> Iterator[dict[str, str]]:
    """A second cluster, of two nodes with two pretended GPUs each: the environment of its clients."""
    yield from started(GPUS="2")


@pytest.fixture
def gpu_cluster(second_cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The second cluster, set for this process while one test runs; its folder."""
    for name, value in second_cluster.items():
        monkeypatch.setenv(name, value)
    return second_cluster["CLUSTER_DIR"]


def lines(*command: str) -> list[str]:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.splitlines()


def test_gpus_are_found_and_asked_for(gpu_cluster: str, tmp_path: Path) -> None:
    resources, notes, problems = choose(Request(nodes=2))
    assert not problems and resources is not None
    assert any(note.startswith("2 GPUs per node") for note in notes), notes
    assert (resources.world_size, resources.gpus_per_node) == (4, 2)
    script = tmp_path / "job.sh"
    plan = slurm_plan(tmp_path / "toy")
    script.write_text(sbatch_script(replace(plan, resources=replace(plan.resources, gpus_per_node=2))))
    assert "#SBATCH --gpus-per-node=2" in script.read_text()
    lines("sbatch", "--test-only", str(script))
    assert lines("srun", "--nodes=1", "--gpus-per-node=2", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES") == ["0,1"]


def test_a_node_can_lose_its_power_and_come_back(gpu_cluster: str) -> None:
    assert lines("srun", "--nodes=2", "hostname") in (["node1", "node2"], ["node2", "node1"])
    assert "node2: process" in dev_cluster("status", folder=gpu_cluster)
    dev_cluster("kill-node", "node2", folder=gpu_cluster)
    assert "node2: process" not in dev_cluster("status", folder=gpu_cluster)
    dev_cluster("start-node", "node2", folder=gpu_cluster)
    deadline = time.monotonic() + 20
    while lines("sinfo", "-h", "-N", "-p", "low", "-t", "idle", "-o", "%N") != ["node1", "node2"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert sorted(lines("srun", "--nodes=2", "hostname")) == ["node1", "node2"]
    assert slurm_client.responds()


def test_a_folder_in_use_is_refused(gpu_cluster: str) -> None:
    with pytest.raises(AssertionError, match="is up already"):
        dev_cluster("start", folder=gpu_cluster)


def without_folder(command: str, path: str) -> subprocess.CompletedProcess[str]:
    """The script with that PATH and no CLUSTER_DIR."""
    environment = {name: value for name, value in os.environ.items() if name != "CLUSTER_DIR"} | {"PATH": path}
    return subprocess.run([SCRIPT, command], env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_install_needs_no_folder_and_survives_a_failing_update(tmp_path: Path) -> None:
    """apt-get is a script that notes its arguments and cannot update."""
    apt = tmp_path / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\n[ "$1" != update ]\n')
    apt.chmod(0o755)
    done = without_folder("install", f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    update, install = (tmp_path / "calls").read_text().splitlines()
    assert update.startswith("update") and install.startswith("install") and "slurmctld" in install
    assert "apt-get update failed" in done.stderr


def test_usage_needs_no_folder_and_the_other_commands_say_so() -> None:
    usage = without_folder("help", os.environ["PATH"])
    assert usage.returncode == 2 and "dev_cluster.sh install" in usage.stdout and usage.stderr == ""
    start = without_folder("start", os.environ["PATH"])
    assert start.returncode == 1 and start.stderr == "dev_cluster: set CLUSTER_DIR to a folder for the cluster\n"
