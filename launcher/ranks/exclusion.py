"""A node that failed the check before training is left out: Slurm is told so, and the job goes back into the queue."""

from __future__ import annotations

import time
from typing import Any

from launcher.slurm import client as slurm_client
from launcher.slurm.client import SlurmError
from mmpretrain.run_folder import RunFolder, State
from mmpretrain.training.health_verdict import HealthError
from mmpretrain.words import listed

EXCLUDED = "excluded_nodes"  # in status.json
PATIENCE_S = 10.0  # of Slurm's KillWait (30 s by default), in which this process may still speak
PAUSE_S = 0.2


def excluded(folder: RunFolder, job_id: str) -> list[dict[str, Any]]:
    """The nodes that this job leaves out, oldest first: ``node``, ``why``, ``job_id``, ``time``."""
    return [entry for entry in folder.status().get(EXCLUDED) or [] if entry.get("job_id") == job_id]


def notes(folder: RunFolder) -> list[str]:
    """What a plan says of nodes that earlier jobs of the run left out."""
    nodes = dict.fromkeys(entry["node"] for entry in folder.status().get(EXCLUDED) or [])
    if not nodes:
        return []
    return [
        f"left out by earlier jobs of this run: {listed(nodes)}; they are looked at anew (sbatch's `exclude` in the"
        " profile leaves them out from the start)"
    ]


def exclude_and_requeue(folder: RunFolder, job_id: str, error: HealthError, most: int) -> None:
    """Note the bad nodes and start the job again without them; returns when Slurm has taken both.

    most: nodes that a job may leave out. Raises HealthError with what ``error`` says, and why the job ends with it:
    nobody can tell which node it is, there were too many, the job is being cancelled, or Slurm refuses.
    """
    before = excluded(folder, job_id)
    left_out = {entry["node"] for entry in before}
    nodes = [node for node in error.nodes if node not in left_out]
    if not nodes:
        raise _ended(error, "Slurm was told to leave it out, and did not" if error.nodes else "")
    if len(before) + len(nodes) > most:
        told = f"left out before: {listed(entry['node'] for entry in before)}" if before else ""
        raise _ended(error, f"{told} (health.most_excluded={most})".strip())
    try:
        if slurm_client.job_state(job_id) != "RUNNING":  # it would come back to life
            raise _ended(error, "the job is being cancelled")
        _requeue(folder, job_id, nodes, str(error))
    except SlurmError as refusal:
        raise _ended(error, str(refusal)) from error


def _requeue(folder: RunFolder, job_id: str, nodes: list[str], why: str) -> None:
    """The status comes first: being queued again ends this process soon. Raises SlurmError."""
    known = folder.status().get(EXCLUDED) or []
    entries = [{"node": node, "why": why, "job_id": job_id, "time": round(time.time())} for node in nodes]
    cause = f"{listed(nodes)} failed the check before training and is left out; back in the queue: {why}"
    changes: dict[str, Any] = {"state": State.queued, "cause": cause, EXCLUDED: [*known, *entries]}
    already = slurm_client.excluded_nodes(job_id)
    folder.update_status(**changes)
    try:
        slurm_client.requeue(job_id)
    except SlurmError:
        folder.update_status(**{EXCLUDED: known})  # type: ignore[arg-type]
        raise
    _exclude(job_id, [*already, *nodes])


def _ended(error: HealthError, why: str) -> HealthError:
    return HealthError(f"{error}; {why}" if why else str(error), error.nodes)


def _exclude(job_id: str, nodes: list[str]) -> None:
    """Slurm takes this from a job that waits, which ours does from the moment on at which it is requeued, although its
    processes are still there. The signal that ends them ends the first command as well."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return slurm_client.exclude(job_id, nodes)
        except SlurmError:
            if time.monotonic() > end:
                raise
        time.sleep(PAUSE_S)
