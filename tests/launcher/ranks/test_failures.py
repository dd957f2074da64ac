"""Which rank's words are the reason for a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from submitit.core.utils import JobPaths, cloudpickle_dump

from launcher.ranks.failures import LOST_PEER, exits_file, failure_record, one_line, record_failure, root_cause
from mmpretrain.endings import Ending

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
