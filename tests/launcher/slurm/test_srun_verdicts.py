"""What Slurm's own words say about the end of ranks; lines as Slurm 22.05 to 24.11 write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.ranks.failures import root_cause
from launcher.slurm.srun_verdicts import verdict

LOST = "srun: error: node1: task 0: Exited with exit code 1\n"


def said(folder: Path, log: str, *ranks: str) -> str | None:
    """The verdict on a job's log, where ``ranks`` 1 and on left these logs and no reason."""
    (folder / "7_0_log.err").write_text(log)
    for rank, text in enumerate(ranks, start=1):
        (folder / f"7_{rank}_log.err").write_text(text)
    silent = {rank: folder / f"7_{rank}_log.err" for rank in range(len(ranks) + 1)}
    found = verdict(folder / "7_0_log.err", silent)
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("log", "text"),
    [
        (
            "srun: error: Unable to create step for job 10: Job/step already completing or complete\n",
            "srun could not start the ranks: Unable to create step for job 10: Job/step already completing or complete",
        ),
        (
            "srun: error: Task launch for StepId=5.0 failed on node node2: Invalid job credential\n"
            "srun: error: Application launch failed: Invalid job credential\n"
            "srun: Job step aborted: Waiting up to 7 seconds for job step to finish.\n",
            "srun could not start the ranks: Task launch for StepId=5.0 failed on node node2: Invalid job credential",
        ),
        ("srun: unrecognized option '--foo'\n", "srun could not start the ranks: unrecognized option '--foo'"),
        (
            "srun: error: srun prolog failed rc = 1. Aborting step.\n",
            "srun could not start the ranks: srun prolog failed rc = 1. Aborting step.",
        ),
        (
            "srun: error: Only allocated 2 nodes asked for 3\n",
            "srun could not start the ranks: Only allocated 2 nodes asked for 3",
        ),
        ("srun: error: Node failure on node2\nsrun: error: node2: tasks 4-7: Killed\n", "node node2 was lost"),
        (
            "slurmstepd: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-11-30T03:20:01 DUE TO TIME LIMIT ***\n"
            "srun: error: node1: task 0: Terminated\n",
            "Slurm ended the job: time limit (on node1)",
        ),
        ("srun: error: node1: tasks 1,3: Segmentation fault\n", "node1: tasks 1,3 ended by Slurm: Segmentation fault"),
        ("nothing of Slurm's\n", None),
        ("", None),
    ],
)
def test_the_first_reason_is_told_and_not_what_follows_from_it(tmp_path: Path, log: str, text: str | None) -> None:
    assert said(tmp_path, log) == text


@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed.",
        "slurmstepd: error: Detected 2 oom-kill event(s) in StepId=7.0 cgroup.",
        "slurmstepd: error: Job 7 exceeded memory limit (70000000 > 67108864), being killed",
    ],
)
def test_memory_comes_first_and_says_what_helps(tmp_path: Path, line: str) -> None:
    text = said(tmp_path, f"srun: error: node2: task 1: Out Of Memory\n{line}\n", "")
    assert text is not None and text.startswith("out of memory: node2, task 1: ") and "ask for more (mem)" in text


@pytest.mark.parametrize(
    ("rank", "text"),
    [
        (
            "slurmstepd-node2: error: execve(): /x/python: No such file or directory\n",
            "node2: execve(): /x/python: No such file or directory",
        ),
        (
            "slurmstepd-node2: error: couldn't chdir to `/nope': No such file or directory: going to /tmp instead\n"
            "sh: 1: exec: /x/python: not found\n",
            "node2: exited with exit code 127: sh: 1: exec: /x/python: not found",
        ),
        (
            "slurmstepd: error: run_command: user task_prolog can not be executed (/nope/x) No such file\n",
            "run_command: user task_prolog can not be executed (/nope/x) No such file",
        ),
    ],
)
def test_a_rank_that_never_was_python_is_read_from_its_own_log(tmp_path: Path, rank: str, text: str) -> None:
    (tmp_path / "7_0_failure.json").write_text('{"time": 2, "error": "RuntimeError: Connection closed by peer"}')
    assert said(tmp_path, "srun: error: node2: task 1: Exited with exit code 127\n", rank) == text
    assert str(root_cause(tmp_path, "7", 2)) == f"rank 1: {text}"


def test_what_an_earlier_start_of_the_job_left_is_not_its_reason(tmp_path: Path) -> None:
    before = "attempt 1 of job 7 on node[1-2]\nsrun: error: node1: task 0: Killed\n"
    assert said(tmp_path, f"{before}attempt 2 of job 7 on node[1-2]\n") is None
    now = "attempt 2 of job 7 on node[1-2]\nsrun: error: node2: task 1: Bus error\n"
    assert said(tmp_path, before + now) == "node2: task 1 ended by Slurm: Bus error"


def test_ranks_that_are_ended_for_another_that_spoke_are_no_reason(tmp_path: Path) -> None:
    (tmp_path / "7_0_failure.json").write_text('{"time": 2, "error": "ValueError: wrong"}')
    (tmp_path / "7_0_log.err").write_text(f"{LOST}srun: error: node2: task 1: Killed\n")
    assert verdict(tmp_path / "7_0_log.err", {1: tmp_path / "7_1_log.err"}) is None
    assert str(root_cause(tmp_path, "7", 2)) == "rank 0: ValueError: wrong"
