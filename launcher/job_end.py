"""After srun failed, in the job's own script: the run's cause, where no rank could leave one.

``python -m launcher.job_end RUN_FOLDER``, on the job's first node. Without it a run that nobody follows stays running.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from submitit import JobEnvironment

from launcher.failures import root_cause
from mmpretrain.run_folder import RunFolder, State

OPEN = (State.queued.value, State.running.value)


def note_end(folder: RunFolder, job_id: str) -> None:
    """Let the status of a run whose ranks are gone say so. Raises DamagedFileError, OSError."""
    if folder.status().get("state") not in OPEN:
        return
    ranks = json.loads(folder.plan.read_text())["world_size"]
    cause = root_cause(folder.path / "logs", job_id, ranks)
    # A rank may have noted its own in the meantime, which is the same: both look at all that is known.
    folder.update_status(unless=State.completed, state=State.failed, cause=str(cause))


if __name__ == "__main__":
    note_end(RunFolder(Path(sys.argv[1])), JobEnvironment().job_id)
