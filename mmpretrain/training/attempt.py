"""Which start of which job this process belongs to (no torch here: the launcher's job says it to its ranks)."""

from __future__ import annotations

import os

import psutil

ATTEMPT = "MMPRETRAIN_ATTEMPT"  # the environment variable that holds it


def attempt(job_id: str, cluster: str) -> str:
    """What tells this start of a job from all others, the same in all of its ranks."""
    if cluster == "local":  # the job's number is that of the process that started the ranks, and may come again
        return f"{job_id}-{psutil.Process(os.getppid()).create_time():.3f}"
    return f"{job_id}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"
