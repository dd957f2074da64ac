"""Where runs go and how many ranks they get, where no Slurm answers and no GPU is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.planning import resources
from launcher.planning.resources import Cluster, Purpose, Request, Resources, choose
from launcher.slurm import profiles


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Slurm's commands are not on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))


def chosen(**request: Any) -> tuple[Resources, list[str]]:
    """Resources and notes of a request without problems."""
    found, notes, problems = choose(Request(**request))
    assert not problems and found is not None
    return found, notes


def test_a_run_is_local_with_two_ranks() -> None:
    found, notes = chosen()
    assert (found.cluster, found.world_size, found.gpus_per_node, notes) == (Cluster.local, 2, 0, [])


def test_a_real_run_for_several_nodes_says_that_it_stays_here() -> None:
    found, notes = chosen(nodes=4, gpus_per_node=3)
    assert (found.cluster, found.nodes, found.world_size) == (Cluster.local, 1, 3)
    assert notes == [
        "no Slurm answers here: instead of 4 nodes, 3 local ranks run on this machine; the global batch stays the same"
    ]


def test_a_dry_run_for_several_nodes_shows_slurm() -> None:
    found, notes = chosen(nodes=4, purpose=Purpose.show)
    assert (found.cluster, found.nodes, found.world_size, found.gpus_per_node) == (Cluster.slurm, 4, 4, 0)
    assert "no GPUs are asked for" in notes[0]


def test_the_profile_decides_about_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    (tmp_path / "big.yaml").write_text("gpus_per_node: 8\n")
    (tmp_path / "cpu.yaml").write_text("gpus_per_node: 0\n")
    found, notes = chosen(cluster="big", nodes=2, purpose=Purpose.show)
    assert (found.world_size, found.gpus_per_node, found.profile_name, notes) == (16, 8, "big", [])
    found, _ = chosen(cluster="big", nodes=2, gpus_per_node=4, purpose=Purpose.show)
    assert (found.world_size, found.gpus_per_node) == (8, 4)
    found, _ = chosen(cluster="cpu", gpus_per_node=4, purpose=Purpose.show)
    assert (found.world_size, found.gpus_per_node) == (4, 0)


def test_a_real_run_needs_the_cluster_it_names() -> None:
    found, _, problems = choose(Request(cluster="slurm"))
    assert found is None and "--cluster slurm: no Slurm answers here" in problems[0]


def test_local_gpus_bound_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two visible GPUs of four."""
    monkeypatch.setattr(resources, "local_gpus", lambda: (("2", "3"), []))
    found, _ = chosen()
    assert (found.world_size, found.gpus_per_node, found.visible_gpus) == (2, 2, ("2", "3"))
    found, _ = chosen(gpus_per_node=1)
    assert found.visible_gpus == ("2",)
    none, _, problems = choose(Request(gpus_per_node=3))
    assert none is None and "this machine has 2 GPUs" in problems[0]


def test_hidden_gpus_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert resources.local_gpus() == ((), [])


def test_impossible_numbers_come_together() -> None:
    _, _, problems = choose(Request(nodes=0, gpus_per_node=0, cluster="nowhere"))
    assert len(problems) == 3


@pytest.mark.processes
def test_a_driver_that_hangs_means_no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia/gpus").is_dir():
        pytest.skip("nvidia-smi is not asked where the driver lists its GPUs")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(resources, "NVIDIA_SMI_S", 0.2)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    found, notes = chosen()
    assert (found.gpus_per_node, notes) == (0, ["nvidia-smi did not answer within 0.2 s: no GPUs are used"])
