"""A node that failed the check before training is left out: Slurm is told so, and the job goes back into the queue."""

from __future__ import annotations

import time
from typing import Any

from launcher import slurm_client
from launcher.slurm_client import SlurmError
from mmpretrain.run_folder import RunFolder, State
from mmpretrain.training.health_verdict import HealthError
from mmpretrain.words import listed

EXCLUDED = "excluded_nodes"  # in status.json
PATIENCE_S = 10.0  # of Slurm's KillWait (30 s by default), in which this process may still speak
PAUSE_S = 0.2


def excluded(folder: RunFolder, job_id: str) -> list[dict[str, Any]]:
    """The nodes that this job leaves out, oldest first: ``node``, ``why``, ``job_id``, ``time``."""
    return [entry for entry in folder.status().get(EXCLUDED) or [] if entry.get("job_id") == job_id]


def exclude_and_requeue(folder: RunFolder, job_id: str, error: HealthError, most: int) -> None:
    """Note the bad nodes and start the job again without them; returns when Slurm has taken both.

    most: nodes that a job may leave out. Raises ``error`` itself where nobody can tell which node it is, or when there
    were too many, and SlurmError when Slurm refuses.
    """
    before = excluded(folder, job_id)
    nodes = [node for node in error.nodes if node not in {entry["node"] for entry in before}]
    if not nodes:
        raise error
    if len(before) + len(nodes) > most:
        left_out = f"; left out before: {listed(entry['node'] for entry in before)}" if before else ""
        raise HealthError(f"{error}{left_out} (health.most_excluded={most})", error.nodes) from error
    entries = [{"node": node, "why": str(error), "job_id": job_id, "time": round(time.time())} for node in nodes]
    cause = f"{listed(nodes)} failed the check before training and is left out; back in the queue: {error}"
    known = folder.status().get(EXCLUDED) or []
    changes: dict[str, Any] = {"state": State.queued, "cause": cause, EXCLUDED: [*known, *entries]}
    folder.update_status(**changes)
    already = slurm_client.excluded_nodes(job_id)
    slurm_client.requeue(job_id)
    _exclude(job_id, [*already, *nodes])


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
