"""Why a job failed: every rank that raises leaves a record, and the earliest telling one is the cause.

When one rank fails, the others fail after it because their peer is gone; submitit would show rank 0's trace.
"""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from submitit.core.utils import JobPaths, pickle_load

from launcher.setup_lines import setup_failure
from launcher.srun_verdicts import someone_exited, verdict
from mmpretrain.engine.checkpoint_files import replace_text
from mmpretrain.words import shortened

# How a rank notices that another one is gone.
LOST_PEER = re.compile(
    r"connection (was |likely )*(closed|reset|refused)|broken pipe|timed out|timeout|failed to recv|"
    r"remote process exited|network error|nccl(Remote|System)Error",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Cause:
    """One line about what went wrong, the rank that says it, and where to read more."""

    text: str
    log: Path
    rank: int | None = None

    def __str__(self) -> str:
        return self.text if self.rank is None else f"rank {self.rank}: {self.text}"


def failure_record(paths: JobPaths) -> Path:
    """The file in which a rank notes its failure."""
    return paths.folder / f"{paths.job_id}_{paths.task_id}_failure.json"


def record_failure(paths: JobPaths, error: Exception) -> None:
    """Note an exception before the process ends, so before any other rank can notice."""
    entry = {"time": time.time(), "host": socket.gethostname(), "error": one_line(error)}
    replace_text(failure_record(paths), json.dumps(entry))


def one_line(error: BaseException) -> str:
    """An exception as a person would say it: its first line, shortened in its middle, for the fix stands at the end."""
    lines = str(error).strip().splitlines() or ["no message"]
    # A first line such as "Error(s) in loading state_dict for X:" only announces.
    said = " ".join(lines) if lines[0].rstrip().endswith(":") else lines[0]
    return shortened(f"{type(error).__name__}: {said}")


def root_cause(logs: Path, job_id: str, ranks: int) -> Cause:
    """The most telling reason that the ranks of a failed job left behind."""
    tasks = [JobPaths(logs, job_id, rank) for rank in range(ranks)]
    if failed := setup_failure(tasks[0].stderr):
        return Cause(failed, tasks[0].stderr)
    told = sorted(filter(None, map(_told, tasks)), key=lambda pair: pair[0])
    causes = [cause for _, cause in told]
    telling = [cause for cause in causes if not LOST_PEER.search(cause.text)]
    return (telling or _silent(tasks, causes) or causes or [Cause("no rank left a reason", logs)])[0]


def _told(task: JobPaths) -> tuple[float, Cause] | None:
    """When and why a rank failed, in its own words; None for a rank that raised nothing."""
    record, result = failure_record(task), task.result_pickle
    if record.exists():
        entry = json.loads(record.read_text())
        return entry["time"], Cause(entry["error"], task.stderr, task.task_id)
    outcome, trace = pickle_load(result) if result.exists() else ("unknown", "")
    if outcome != "error":
        return None
    return result.stat().st_mtime, Cause(shortened(trace.strip().splitlines()[-1]), task.stderr, task.task_id)


def _silent(tasks: list[JobPaths], causes: list[Cause]) -> list[Cause]:
    """What is known about ranks that ended and left no record; srun's verdict where there is one."""
    spoken = {cause.rank for cause in causes}
    silent = [task for task in tasks if task.task_id not in spoken and not task.result_pickle.exists()]
    if not silent:
        return []
    if found := verdict(tasks[0].stderr, {task.task_id: task.stderr for task in silent}):
        return [Cause(found.text, found.log, found.rank)]
    if someone_exited(tasks[0].stderr):
        return []  # the first one to end had its say, and the silent ones were ended because of it
    return [Cause("ended without an exception (killed, or out of memory?)", silent[0].stderr, silent[0].task_id)]
