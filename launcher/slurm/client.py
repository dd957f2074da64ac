"""Questions to a running Slurm, asked through its own commands. Needs no accounting database."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence

WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}
ACTIVE = WAITING | {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
UNKNOWN = "UNKNOWN"
NODE = "%N|%T|%c|%m|%G|%f"
# Variables by which a shell changes what Slurm's commands answer; how Slurm is reached does not begin so.
DEFAULTS = (
    "SINFO_",
    "SQUEUE_",
    "SACCT_",
    "SCANCEL_",
    "SCONTROL_",
    "SLURM_CLUSTERS",
    "SLURM_TIME_FORMAT",
    "SLURM_BITSTR_LEN",
)
PROBE_S = 10.0  # with a configuration that leads nowhere, Slurm's commands try for about a minute
POLL_S = 3.0  # between two questions about a job that goes on


class SlurmError(RuntimeError):
    """Slurm did not answer, or refused; the message is its own, on one line."""


def responds() -> bool:
    """Whether a Slurm controller answers from here (its commands alone may be installed without a cluster)."""
    try:
        _run("sinfo", "--noheader", "--format=%P", seconds=PROBE_S)
    except SlurmError:
        return False
    return True


def partitions() -> list[str]:
    """Names of the partitions that this user may see; the default one has a ``*`` behind it. Raises SlurmError."""
    return list(dict.fromkeys(_run("sinfo", "--all", "--noheader", "--format=%P").split()))


def node_lines(partition: str, among: str | None = None) -> list[str]:
    """A line for each node: name, state, CPUs, memory in MB, resources and features, with ``|`` between.

    partition: one or several names with commas. among: a list of nodes as Slurm writes it. Raises SlurmError.
    """
    some = [f"--nodes={among}"] if among else []
    lines = _run("sinfo", "--Node", "--noheader", f"--partition={partition}", f"--format={NODE}", *some)
    return list(dict.fromkeys(lines.splitlines()))


def partition_facts(partition: str) -> dict[str, str]:
    """What Slurm knows about one partition, such as ``MaxTime``. Raises SlurmError."""
    words = _run("scontrol", "--all", "show", "partition", partition, "--oneliner").split()  # hidden ones, too
    return dict(word.split("=", 1) for word in words if "=" in word)


def job_facts(job_id: str) -> dict[str, str]:
    """What Slurm knows about one job, such as ``TimeLimit``. Raises SlurmError."""
    words = _run("scontrol", "show", "job", job_id, "--oneliner").split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def job_state(job_id: str) -> str:
    """Slurm's word for the job's state, such as RUNNING; UNKNOWN for a job that Slurm has forgotten.

    Raises SlurmError when no controller answers.
    """
    try:
        state = _run("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T").strip()
    except SlurmError as error:
        if "Invalid job id" not in str(error):
            raise
        state = ""
    return state.splitlines()[0] if state else _accounted_state(job_id)


def living_jobs() -> dict[str, str]:
    """Slurm's word for every job of this user that is not over, by the job's id; of an array for each element by its
    own, ``7_0``. Raises SlurmError."""
    lines = _run("squeue", "--noheader", "--me", "--array", "--format=%i %T", seconds=PROBE_S).splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line.strip())


def array_limit() -> int:
    """How many elements an array may have. Raises SlurmError."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run("scontrol", "show", "config", seconds=PROBE_S), re.MULTILINE)
    return int(found[1]) - 1 if found else 1000


def cancel(job_id: str) -> None:
    """End the job: its processes are asked first, and have Slurm's KillWait to save a checkpoint. Raises SlurmError."""
    _run("scancel", job_id)


def requeue(job_id: str) -> None:
    """Put the running job back into the queue, which ends all of its processes. Raises SlurmError."""
    _run("scontrol", "requeue", job_id)


def excluded_nodes(job_id: str) -> list[str]:
    """What the job leaves out so far, as Slurm writes it (``node3``, ``node[5-7]``). Raises SlurmError."""
    found = re.search(r"\bExcNodeList=(\S+)", _run("scontrol", "show", "job", job_id))
    return [] if found is None or found[1] == "(null)" else [found[1]]


def exclude(job_id: str, nodes: Sequence[str]) -> None:
    """Let a waiting job leave out exactly these nodes. Raises SlurmError, for a running one as well."""
    _run("scontrol", "update", f"JobId={job_id}", f"ExcNodeList={','.join(nodes)}")


def _accounted_state(job_id: str) -> str:
    try:
        lines = _run("sacct", "--allocations", "--noheader", "--parsable2", "-o", "State", "-j", job_id).splitlines()
    except SlurmError:
        return UNKNOWN
    return lines[0].split()[0] if lines and lines[0].strip() else UNKNOWN


def _run(*command: str, seconds: float = 60) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=_environment())
    except FileNotFoundError:
        raise SlurmError(f"{command[0]} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} did not answer within {seconds:.0f} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise SlurmError(f"{command[0]} failed: {lines[-1]}")
    return done.stdout


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(DEFAULTS)}
