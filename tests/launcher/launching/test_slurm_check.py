"""A job that a cluster's own rules changed is said to be other than the plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.launching.slurm_check import changed_by_slurm, differences
from launcher.slurm import client as slurm_client
from tests.launcher.toy import slurm_plan

FACTS = {
    "TimeLimit": "00:05:00",
    "Partition": "low",
    "NumNodes": "2-2",
    "NumTasks": "4",
    "Requeue": "1",
    "QOS": "(null)",
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"NumNodes": "2", "Account": "theirs"}, []),
        ({"Partition": "mid,low"}, []),
        ({"TimeLimit": "00:01:00"}, ["Slurm has TimeLimit=00:01:00 where the plan has 00:05:00"]),
        (
            {"Requeue": "0", "Partition": "high"},
            ["Partition=high where the plan has low,mid", "Requeue=0 where"],
        ),
    ],
)
def test_only_what_the_plan_says_is_compared(tmp_path: Path, changed: dict[str, str], said: list[str]) -> None:
    found = differences(slurm_plan(tmp_path / "toy", partition="low,mid"), {**FACTS, **changed})
    assert len(found) == len(said) and all(word in text for word, text in zip(said, found, strict=True))


def test_days_are_written_as_slurm_does(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", time_limit_min=1501)
    assert differences(plan, {**FACTS, "TimeLimit": "1-01:01:00"}) == []


def test_a_slurm_that_does_not_answer_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_: str) -> dict[str, str]:
        raise slurm_client.SlurmError("no")

    monkeypatch.setattr(slurm_client, "job_facts", refuses)
    assert changed_by_slurm(slurm_plan(tmp_path / "toy"), "7") == []
