"""What a rank, and the job's script after all of them, make of an end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import JobPaths

from launcher.ranks import job_end
from launcher.ranks.failures import failure_record
from launcher.ranks.job import Job
from mmpretrain.endings import Ending
from mmpretrain.run_folder import RunFolder, State


class Leaving(Job):
    """Code that was written for a process of its own."""

    def train(self) -> None:
        """End the process, as if all were well."""
        sys.exit(0)


def test_code_that_ends_its_process_is_a_failure(tmp_path: Path) -> None:
    rank: Any = None
    with pytest.raises(RuntimeError, match=r"something called sys\.exit\(0\) while the run went on"):
        Leaving(tmp_path)._train(RunFolder(tmp_path), rank)


@pytest.mark.parametrize(
    ("word", "ending"), [("RUNNING", Ending.bad_data), ("PENDING", None), ("COMPLETING", None), ("CANCELLED", None)]
)
def test_only_a_job_that_ends_here_is_called_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, ending: Ending | None
) -> None:
    """One that is requeued or cancelled meanwhile has had its say, or will have it. The script ends with the code."""
    monkeypatch.setattr(job_end.slurm_client, "job_state", lambda _: word)
    folder, logs = RunFolder(tmp_path), tmp_path / "logs"
    folder.update_status(state=State.running, job_id="7")
    folder.plan.write_text('{"world_size": 2}')
    logs.mkdir()
    failure_record(JobPaths(logs, "7", 1)).write_text(
        '{"time": 1, "error": "BadDataError: 3 of 9", "ending": "bad_data"}'
    )
    assert job_end.note_end(folder, "7", "7") is ending
    assert folder.status()["state"] == ("failed" if ending else "running")


def test_ranks_that_never_came_after_a_preemption_have_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is back, its second start fails before rank 0 can say anything, and the status is that of the first."""
    monkeypatch.setattr(job_end.slurm_client, "job_state", lambda _: "RUNNING")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    folder, logs = RunFolder(tmp_path), tmp_path / "logs"
    folder.update_status(state=State.preempted, cause="back in the queue", job_id="7", attempt=1)
    folder.plan.write_text('{"world_size": 1}')
    logs.mkdir()
    JobPaths(logs, "7", 0).stderr.write_text("srun: error: node2: task 0: Exited with exit code 127\n")
    assert job_end.note_end(folder, "7", "7") is Ending.setup
    folder.update_status(state=State.preempted, attempt=2)
    assert job_end.note_end(folder, "7", "7") is None
