"""Why a job failed: every rank that raises leaves a record, and the earliest telling one is the cause.

When one rank fails, the others fail after it because their peer is gone; submitit would show rank 0's trace.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit.core.utils import JobPaths, pickle_load

from launcher.ranks.heartbeats import HEARTBEATS, last_beats
from launcher.ranks.heartbeats import verdict as hangs
from launcher.slurm.setup_lines import setup_failure
from launcher.slurm.srun_verdicts import last_line, newest, someone_exited, verdict
from mmpretrain.endings import Ending, ending_named, ending_of, ending_with
from mmpretrain.files import replace_text
from mmpretrain.run_folder import RunFolder, State
from mmpretrain.words import shortened

# How a rank notices that another one is gone.
LOST_PEER = re.compile(
    r"connection (was |likely )*(closed|reset|refused)|broken pipe|timed out|timeout|failed to recv|"
    r"remote process exited|network error|nccl(Remote|System)Error",
    re.IGNORECASE,
)
# How it notices that another one does not come.
WAITED = re.compile(r"timed out|timeout", re.IGNORECASE)
# What NCCL's own thread writes before it ends its process.
TIMED_OUT = re.compile(r"collective operation timeout: WorkNCCL\(.*?OpType=(?P<what>\w+).*?Timeout\(ms\)=(?P<ms>\d+)\)")
ABORTED = re.compile(r"^srun: error: .*: Aborted", re.MULTILINE)
SETTLE_S = 1.5  # until a rank that was killed is known to have been
RANKS_PER_S = 200  # whose records one rank reads in a second, while all others read them as well


@dataclass(frozen=True)
class Cause:
    """One line about what went wrong, the rank that says it, where to read more, and how the run has ended.

    certain: whether somebody said so; otherwise it is what is left when nobody did. seen_from_outside: a rank ended so,
    and nobody knows why.
    """

    text: str
    log: Path
    rank: int | None = None
    ending: Ending = Ending.failed
    certain: bool = True
    seen_from_outside: bool = False

    def __str__(self) -> str:
        return self.text if self.rank is None else f"rank {self.rank}: {self.text}"


def failure_record(paths: JobPaths) -> Path:
    """The file in which a rank notes its failure."""
    return paths.folder / f"{paths.job_id}_{paths.task_id}_failure.json"


def exits_file(logs: Path, job_id: str) -> Path:
    """The file in which the controller of local ranks notes how they ended."""
    return logs / f"{job_id}_exits.json"


def record_failure(paths: JobPaths, error: Exception) -> None:
    """Note an exception before the process ends, so before any other rank can notice. Raises OSError."""
    _record(paths, one_line(error), ending_of(error), paths.task_id)


def record_hang(paths: JobPaths, text: str, ending: Ending) -> None:
    """Note what this rank found out about others. Raises OSError."""
    _record(paths, text, ending, None)


def _record(paths: JobPaths, text: str, ending: Ending, rank: int | None) -> None:
    entry = {"time": time.time(), "host": socket.gethostname(), "error": text, "ending": ending.name, "rank": rank}
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
        return Cause(failed, tasks[0].stderr, ending=Ending.setup)
    told = sorted(filter(None, map(_told, tasks)), key=lambda pair: pair[0])
    causes = [cause for _, cause in told]
    telling = [cause for cause in causes if cause.certain]
    return (telling or _silent(tasks, causes) or causes or [Cause("no rank left a reason", logs, certain=False)])[0]


def settled_cause(logs: Path, job_id: str, ranks: int) -> Cause:
    """The same, asked by a rank that fails: what ended others may be known a moment later."""
    deadline = time.monotonic() + SETTLE_S
    pause = min(max(0.1, ranks / RANKS_PER_S), SETTLE_S)
    while not (cause := root_cause(logs, job_id, ranks)).certain and time.monotonic() < deadline:
        time.sleep(pause)
    return cause


def conclude(run_folder: Path, job_id: str, ranks: int, start: int = 1) -> None:
    """Note how a job ended that is over, where its ranks did not or knew less. Raises OSError, DamagedFileError.

    start: which one of this job; that an earlier one was preempted says nothing of ranks that then never came.
    """
    folder = RunFolder(run_folder)
    status = folder.status()
    preempted = status.get("state") == State.preempted.value and status.get("attempt", start) == start
    if str(status.get("job_id")) != job_id or status.get("state") == State.completed.value or preempted:
        return
    cause = root_cause(run_folder / "logs", job_id, ranks)
    if status.get("state") != State.failed.value or (cause.certain and not knows_more(status, cause)):
        folder.update_status(unless=State.completed, state=State.failed, cause=str(cause), ending=cause.ending)


def knows_more(status: Mapping[str, Any], cause: Cause) -> bool:
    """Whether a status says why its run failed, and ``cause`` is but what can be seen of that from outside: on a full
    disk the status may be all that a rank could still write."""
    told = ending_named(status.get("ending")) if status.get("state") == State.failed.value else None
    return told not in (None, Ending.failed, Ending.lost, Ending.interrupted) and cause.seen_from_outside


def _told(task: JobPaths) -> tuple[float, Cause] | None:
    """When and why a rank failed, in its own words; None for a rank that raised nothing."""
    record, result = failure_record(task), task.result_pickle
    if record.exists():
        entry = json.loads(record.read_text())
        ending = ending_named(entry.get("ending")) or Ending.failed
        return entry["time"], _as_known(entry["error"], task, entry.get("rank", task.task_id), ending)
    outcome, trace = pickle_load(result) if result.exists() else ("unknown", "")
    if outcome != "error":
        return None
    said = shortened(trace.strip().splitlines()[-1])
    return result.stat().st_mtime, _as_known(said, task, task.task_id, Ending.failed)


def _as_known(text: str, task: JobPaths, rank: int | None, ending: Ending) -> Cause:
    """What a rank says; that it lost another one is no reason of its own."""
    if ending is Ending.failed and LOST_PEER.search(text):
        return Cause(text, task.stderr, rank, Ending.lost, certain=False)
    return Cause(text, task.stderr, rank, ending)


def _silent(tasks: list[JobPaths], causes: list[Cause]) -> list[Cause]:
    """What is known about ranks that ended and left no record; srun's verdict where there is one."""
    spoken = {cause.rank for cause in causes}
    silent = [task for task in tasks if task.task_id not in spoken and not task.result_pickle.exists()]
    if not silent:
        return []
    if found := _by_nccl(silent, len(tasks)):
        return [found]
    if found := _by_exits(silent):
        return [found]
    log = tasks[0].stderr
    if said := verdict(log, {task.task_id: task.stderr for task in silent}):
        return [Cause(said.text, said.log, said.rank, said.ending, seen_from_outside=said.exited)]
    if someone_exited(log):
        return []  # the first one to end had its say, and the silent ones were ended because of it
    guess = "ended without an exception (killed, or out of memory?)"
    return [Cause(guess, silent[0].stderr, silent[0].task_id, Ending.lost, certain=False)]


def _by_nccl(silent: list[JobPaths], ranks: int) -> Cause | None:
    """Who kept the ranks waiting that NCCL ended for it: that leaves no exception, but the last signs of life."""
    codes, said = _exits(silent[0]).get("codes", {}), newest(JobPaths(silent[0].folder, silent[0].job_id, 0).stderr)
    by_srun = ABORTED.search(said) is not None
    for task in (task for task in silent if by_srun or codes.get(str(task.task_id)) == -signal.SIGABRT):
        waited = TIMED_OUT.search(newest(task.stderr))
        if waited is None:
            continue
        seconds, beats = int(waited["ms"]) / 1000, last_beats(task.folder.parent / HEARTBEATS, task.task_id, ranks)
        who = hangs({}, beats, ranks, seconds).text if beats else "a rank hangs"
        text = f"{who}; rank {task.task_id} waited {seconds:g} s for it in {waited['what'].lower()} (NCCL)"
        return Cause(text, task.stderr, ending=Ending.hung)
    return None


def _by_exits(silent: list[JobPaths]) -> Cause | None:
    """The first of these ranks that ended by a signal or with an error, as their parent saw it."""
    known = _exits(silent[0])
    tasks = {str(task.task_id): task for task in silent}
    for task, code in ((tasks[rank], code) for rank, code in known.get("codes", {}).items() if rank in tasks):
        if code < 0:
            told = f"killed by {_signal(-code)}"
            if -code == signal.SIGKILL and known.get("out_of_memory"):
                told = "out of memory: the system killed it (fewer or smaller data.workers, batches or ranks need less)"
            return Cause(told, task.stderr, task.task_id, Ending.lost)
        if code > 0:
            last = last_line(task.stderr)
            told = f"ended with exit code {code}: {last}" if last else f"ended with exit code {code} and left no reason"
            return Cause(shortened(told), task.stderr, task.task_id, ending_with(code), seen_from_outside=True)
    return None


def _exits(task: JobPaths) -> dict[str, Any]:
    try:
        found = json.loads(exits_file(task.folder, task.job_id).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
