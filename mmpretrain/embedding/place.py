"""Who a process is among those that share a job, and that it ends with the one that started it (no torch here)."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmpretrain.embedding.jobs import RankedJob


@dataclass(frozen=True)
class Place:
    """Who a process is among ``size``. local_rank: its number on this machine, which chooses its GPU.

    meeting: a file, new at each start and seen by all ranks, at which those find one another that need to talk.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    meeting: str | None = None


def place_of_step(job: RankedJob, environment: Mapping[str, str] = os.environ) -> Place | None:
    """This process among the tasks of an ``srun``; None outside, and where the step has a single task."""
    # Batch scripts have the task variables too, but no step: what runs there runs once.
    if "SLURM_STEP_ID" not in environment or "SLURM_PROCID" not in environment:
        return None
    size = int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or 1)
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    start = "-".join(environment.get(name, "0") for name in names)
    out = Path(job.out).resolve()
    # One step may run several commands, also of the same --out (its splits).
    which = hashlib.sha256(job.to_json().encode()).hexdigest()[:12]
    meeting = str(out.parent / f".{out.name}.meeting-{start}-{which}")
    rank, local = int(environment["SLURM_PROCID"]), int(environment.get("SLURM_LOCALID", 0))
    return Place(rank, size, local, meeting) if size > 1 else None


def end_with_parent() -> None:
    """End this process when its parent does: ranks that outlive a killed command would only be in the way."""

    def watch() -> None:
        # Not through sys.stdin, whose lock Python needs to exit.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
