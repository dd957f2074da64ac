"""What becomes of a job with bad nodes; Slurm is pretended (tests/slurm has a real one)."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import exclusion, slurm_client
from launcher.exclusion import exclude_and_requeue, excluded
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.health_verdict import HealthError


class Slurm:
    """Leaves out node9 already, and refuses the first ``refusals`` changes, as the signal that ends a job does."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.done: list[str] = []

    def requeue(self, job_id: str) -> None:
        """Note it."""
        self.done.append("requeue")

    def exclude(self, job_id: str, nodes: list[str]) -> None:
        """Note it, or refuse."""
        if self.refusals:
            self.refusals -= 1
            raise slurm_client.SlurmError("scontrol failed: exit code -15")
        self.done.append(",".join(nodes))


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """In place of the real one."""
    slurm = Slurm(refusals=1)
    for name in ("requeue", "exclude"):
        monkeypatch.setattr(slurm_client, name, getattr(slurm, name))
    monkeypatch.setattr(slurm_client, "excluded_nodes", lambda _: ["node9"])
    monkeypatch.setattr(exclusion, "PAUSE_S", 0.0)
    return slurm


def test_a_bad_node_is_added_to_those_left_out_and_the_job_waits_again(slurm: Slurm, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    exclude_and_requeue(folder, "7", HealthError("rank 1 on node2: bad", ["node2"]), most=2)
    assert slurm.done == ["requeue", "node9,node2"]
    status = folder.status()
    assert status["state"] == "queued" and "node2 failed the check before training and is left out" in status["cause"]
    assert [(entry["node"], entry["why"]) for entry in excluded(folder, "7")] == [("node2", "rank 1 on node2: bad")]
    assert excluded(folder, "8") == [], "another job looks anew"


def test_after_enough_nodes_the_job_ends(slurm: Slurm, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    exclude_and_requeue(folder, "7", HealthError("bad", ["node2"]), most=1)
    with pytest.raises(HealthError, match=r"bad; left out before: node2 \(health.most_excluded=1\)"):
        exclude_and_requeue(folder, "7", HealthError("bad", ["node3"]), most=1)
    assert slurm.done == ["requeue", "node9,node2"]


def test_without_a_node_to_blame_the_job_ends(slurm: Slurm, tmp_path: Path) -> None:
    with pytest.raises(HealthError, match="^the link is slow$"):
        exclude_and_requeue(RunFolder(tmp_path), "7", HealthError("the link is slow"), most=2)
    assert slurm.done == []


def test_a_slurm_that_refuses_for_good_is_quoted(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusion, "PATIENCE_S", 0.0)
    slurm.refusals = 1000
    with pytest.raises(slurm_client.SlurmError, match="scontrol failed"):
        exclude_and_requeue(RunFolder(tmp_path), "7", HealthError("bad", ["node2"]), most=2)
