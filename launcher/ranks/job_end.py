"""After srun failed, in the job's own script: the run's cause, where no rank could leave one.

``python -m launcher.ranks.job_end RUN_FOLDER``, on the job's first node. Without it a run that nobody
follows stays running.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from submitit import JobEnvironment

from launcher.ranks.failures import conclude
from launcher.slurm import client as slurm_client
from mmpretrain.run_folder import RunFolder


def note_end(folder: RunFolder, job_id: str, slurm_id: str) -> None:
    """Let the status of a run whose ranks are gone say so. Raises DamagedFileError, OSError.

    slurm_id: the number by which Slurm alone knows the job. One that is being requeued or cancelled has not failed.
    """
    try:
        ends = slurm_client.job_state(slurm_id) == "RUNNING"
    except slurm_client.SlurmError:
        ends = True
    if ends:
        conclude(folder.path, job_id, json.loads(folder.plan.read_text())["world_size"])


if __name__ == "__main__":
    note_end(RunFolder(Path(sys.argv[1])), JobEnvironment().job_id, os.environ["SLURM_JOB_ID"])
