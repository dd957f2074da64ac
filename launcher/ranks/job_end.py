"""After srun failed, in the job's own script: the run's cause, where no rank could leave one.

``python -m launcher.ranks.job_end RUN_FOLDER``, on the job's first node. Without it a run that nobody
follows stays running. It exits with the code of the run's ending, 0 if there is none: srun's own is the highest of all
ranks, and so often that of those which were killed after the first one failed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from submitit import JobEnvironment

from launcher.ranks.failures import conclude
from launcher.slurm import client as slurm_client
from mmpretrain.endings import Ending, ending_named
from mmpretrain.run_folder import RunFolder, State


def note_end(folder: RunFolder, job_id: str, slurm_id: str) -> Ending | None:
    """Let the status of a run whose ranks are gone say so, and return how it ended; None where it has not, or nobody
    knows. Raises DamagedFileError, OSError.

    slurm_id: the number by which Slurm alone knows the job. One that is being requeued or cancelled has not failed.
    """
    try:
        ends = slurm_client.job_state(slurm_id) == "RUNNING"
    except slurm_client.SlurmError:
        ends = True
    if ends:
        start = int(os.environ.get("SLURM_RESTART_COUNT", 0)) + 1
        conclude(folder.path, job_id, json.loads(folder.plan.read_text())["world_size"], start)
    status = folder.status()
    known = str(status.get("job_id")) == job_id and status.get("state") == State.failed.value
    return ending_named(status.get("ending")) if known else None


if __name__ == "__main__":
    ending = note_end(RunFolder(Path(sys.argv[1])), JobEnvironment().job_id, os.environ["SLURM_JOB_ID"])
    sys.exit(ending.code if ending else 0)
