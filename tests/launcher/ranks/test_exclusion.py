"""What becomes of a job with bad nodes; Slurm is pretended (tests/slurm has a real one)."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from launcher.ranks import exclusion
from launcher.ranks.exclusion import exclude_and_requeue, excluded, notes
from launcher.slurm import client as slurm_client
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.health_verdict import HealthError


class Slurm:
    """Leaves out node9 already, and refuses the first ``refusals`` changes, as the signal that ends a job does."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.done: list[str] = []
        self.state = "RUNNING"

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
    monkeypatch.setattr(slurm_client, "job_state", lambda _: slurm.state)
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
    with pytest.raises(HealthError, match=r"bad; left out before: node2 \(health\.most_excluded=1\)$"):
        exclude_and_requeue(folder, "7", HealthError("bad", ["node3"]), most=1)
    assert slurm.done == ["requeue", "node9,node2"]


def test_without_a_node_to_blame_the_job_ends(slurm: Slurm, tmp_path: Path) -> None:
    with pytest.raises(HealthError, match=r"^the link is slow$"):
        exclude_and_requeue(RunFolder(tmp_path), "7", HealthError("the link is slow"), most=2)
    assert slurm.done == []


@pytest.mark.parametrize(
    ("state", "refused", "why"),
    [("CANCELLED", "", "the job is being cancelled"), ("RUNNING", "requeue", "disabled"), ("RUNNING", "exclude", "no")],
)
def test_a_job_that_cannot_come_back_ends_with_its_cause(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, refused: str, why: str
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise slurm_client.SlurmError(f"scontrol failed: {why}")

    monkeypatch.setattr(exclusion, "PATIENCE_S", 0.0)
    slurm.state = state
    if refused:
        monkeypatch.setattr(slurm_client, refused, refuse)
    with pytest.raises(HealthError, match=f"^rank 1 on node2: bad; .*{why}"):
        exclude_and_requeue(RunFolder(tmp_path), "7", HealthError("rank 1 on node2: bad", ["node2"]), most=2)
    if refused == "requeue":
        assert excluded(RunFolder(tmp_path), "7") == []


def test_a_node_that_comes_back_ends_the_job(slurm: Slurm, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    exclude_and_requeue(folder, "7", HealthError("bad", ["node2"]), most=2)
    with pytest.raises(HealthError, match="told to leave it out, and did not"):
        exclude_and_requeue(folder, "7", HealthError("bad", ["node2"]), most=2)


def test_the_next_plan_says_what_earlier_jobs_left_out(slurm: Slurm, tmp_path: Path) -> None:
    assert notes(RunFolder(tmp_path)) == []
    exclude_and_requeue(RunFolder(tmp_path), "7", HealthError("bad", ["node2"]), most=2)
    assert "left out by earlier jobs of this run: node2; they are looked at anew" in notes(RunFolder(tmp_path))[0]
