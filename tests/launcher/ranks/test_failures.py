"""Which rank's words are the reason for a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from submitit.core.utils import JobPaths, cloudpickle_dump

from launcher.ranks.failures import (
    LOST_PEER,
    conclude,
    exits_file,
    failure_record,
    one_line,
    record_failure,
    root_cause,
)
from launcher.ranks.heartbeats import HEARTBEATS, Beat, write_beat
from mmpretrain.endings import Ending, ending_with
from mmpretrain.run_folder import RunFolder, State

LOST = RuntimeError("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:5152\nmore")


def task(logs: Path, rank: int) -> JobPaths:
    """Files of one rank of job 7."""
    return JobPaths(logs, "7", rank)


def test_an_error_is_one_short_line() -> None:
    assert one_line(ValueError("first\nsecond")) == "ValueError: first"
    assert one_line(KeyError()) == "KeyError: no message"
    assert one_line(RuntimeError("Error(s) in loading X:\n\tsize mismatch")).endswith("X: size mismatch")
    long = one_line(ValueError("x" * 9999 + ": raise data.max_bad_fraction"))
    assert len(long) == 300 and long.endswith("raise data.max_bad_fraction"), "the fix stands at the end"


def test_the_first_error_that_is_not_a_lost_peer_wins(tmp_path: Path) -> None:
    for rank, error in ((2, LOST), (3, OSError("disk full")), (1, ValueError("later"))):
        record_failure(task(tmp_path, rank), error)
    cause = root_cause(tmp_path, "7", 4)
    assert (str(cause), cause.log) == ("rank 3: OSError: disk full", task(tmp_path, 3).stderr)


def test_a_rank_that_fell_silent_explains_lost_peers(tmp_path: Path) -> None:
    record_failure(task(tmp_path, 0), LOST)
    assert str(root_cause(tmp_path, "7", 2)) == "rank 1: ended without an exception (killed, or out of memory?)"
    task(tmp_path, 0).stderr.write_text(
        "srun: error: node1: task 0: Terminated\nslurmstepd: error: *** STEP 7.0 CANCELLED DUE TO JOB REQUEUE ***\n"
        "srun: error: node2: task 1: Out Of Memory\nsrun: error: node1: task 0: Exited with exit code 1\n"
    )
    assert str(root_cause(tmp_path, "7", 2)) == "node2: task 1 ended by Slurm: Out Of Memory"


def test_ranks_that_slurm_ended_because_of_another_are_no_reason(tmp_path: Path) -> None:
    record_failure(task(tmp_path, 0), LOST)
    task(tmp_path, 0).stderr.write_text(
        "srun: error: node1: task 0: Exited with exit code 1\nsrun: error: node2: task 1: Killed\n"
    )
    assert str(root_cause(tmp_path, "7", 2)).startswith("rank 0: RuntimeError")


@pytest.mark.parametrize("text", ["address already in use (EADDRINUSE)", "CUDA out of memory", "no socket library"])
def test_other_errors_of_the_network_are_reasons(text: str) -> None:
    assert not LOST_PEER.search(text)


def test_when_only_lost_peers_are_known_the_first_is_told(tmp_path: Path) -> None:
    record_failure(task(tmp_path, 1), LOST)
    record_failure(task(tmp_path, 0), LOST)
    assert str(root_cause(tmp_path, "7", 2)).startswith("rank 1: RuntimeError: [../gloo")


def test_what_failed_before_our_code_ran_is_read_from_its_result(tmp_path: Path) -> None:
    cloudpickle_dump(
        ("error", "Traceback\n  ...\nModuleNotFoundError: No module named 'torch'\n"), task(tmp_path, 0).result_pickle
    )
    cloudpickle_dump(("success", None), task(tmp_path, 1).result_pickle)
    assert str(root_cause(tmp_path, "7", 2)) == "rank 0: ModuleNotFoundError: No module named 'torch'"


def test_no_reason_at_all(tmp_path: Path) -> None:
    cloudpickle_dump(("success", None), task(tmp_path, 0).result_pickle)
    assert str(root_cause(tmp_path, "7", 1)) == "no rank left a reason"


@pytest.mark.parametrize("rank", [0, 3])
def test_records_are_named_by_job_and_rank(tmp_path: Path, rank: int) -> None:
    assert failure_record(task(tmp_path, rank)) == tmp_path / f"7_{rank}_failure.json"


def test_how_a_silent_rank_ended_is_known_from_its_parent(tmp_path: Path) -> None:
    record_failure(task(tmp_path, 0), LOST)
    noted = exits_file(tmp_path, "7")
    noted.write_text('{"codes": {"1": -9, "0": 1}, "out_of_memory": 0}')
    found = root_cause(tmp_path, "7", 2)
    assert (str(found), found.ending) == ("rank 1: killed by SIGKILL", Ending.lost)
    noted.write_text('{"codes": {"1": -9}, "out_of_memory": 1}')
    assert str(root_cause(tmp_path, "7", 2)).startswith("rank 1: out of memory: the system killed it")
    noted.write_text('{"codes": {"1": 70}}')
    found = root_cause(tmp_path, "7", 2)
    assert (str(found), found.ending) == ("rank 1: ended with exit code 70 and left no reason", Ending.hung)


@pytest.mark.parametrize(("by", "log"), [('{"codes": {"0": -6}}', ""), ("{}", "srun: error: n1: task 0: Aborted\n")])
def test_a_rank_that_nccl_ended_for_waiting_tells_who_hangs(tmp_path: Path, by: str, log: str) -> None:
    """NCCL ends a process that has waited too long; the signs of life say where the one is that it waited for."""
    logs, beats = tmp_path / "logs", tmp_path / HEARTBEATS
    logs.mkdir()
    beats.mkdir()
    said = "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, OpType=ALLREDUCE, Timeout(ms)=540000) ran"
    task(logs, 0).stderr.write_text(f"[E1130 ProcessGroupNCCL.cpp:632] [Rank 0] {said} for 540012 ms\n{log}")
    exits_file(logs, "7").write_text(by)
    for rank, where in enumerate(["train.py:9 in step", "decode.py:3 in slow", "train.py:9 in step"]):
        write_beat(beats, rank, Beat("7-0", 90, f"node{rank}", 42, "step", 8, 20, 500.0, 480.0, where, False))
    cause = root_cause(logs, "7", 3)
    assert cause.ending is Ending.hung
    assert str(cause) == (
        "rank 1 (on node1) hangs for 540 s in phase step after step 8, at decode.py:3 in slow; the others wait at"
        " train.py:9 in step; rank 0 waited 540 s for it in allreduce (NCCL)"
    )


def test_what_a_rank_wrote_into_the_status_is_not_lost_for_its_exit_code(tmp_path: Path) -> None:
    """On a full disk nothing else can be written, and there may be room again when the parent looks."""
    folder, logs = RunFolder(tmp_path), tmp_path / "logs"
    logs.mkdir()
    folder.update_status(job_id="7", state=State.failed, cause="rank 0: the disk is full", ending=Ending.disk_full)
    exits_file(logs, "7").write_text('{"codes": {"0": 74}}')
    conclude(tmp_path, "7", 1)
    assert (folder.status()["cause"], folder.status()["ending"]) == ("rank 0: the disk is full", "disk_full")
    exits_file(logs, "7").unlink()
    task(logs, 0).stderr.write_text("srun: error: node1: task 0: Exited with exit code 74\n")
    cause = root_cause(logs, "7", 1)
    assert cause.ending is Ending.disk_full
    conclude(tmp_path, "7", 1)
    assert folder.status()["cause"] == "rank 0: the disk is full"


@pytest.mark.parametrize(("code", "ending"), [(65, Ending.bad_data), (2, Ending.failed), (75, Ending.failed)])
def test_codes_that_no_rank_ends_with_are_those_of_anybody(code: int, ending: Ending) -> None:
    assert ending_with(code) is ending
