"""What Slurm itself says about the end of a job's ranks, in its logs: ranks that were killed cannot say it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmpretrain.endings import Ending, ending_with
from mmpretrain.words import shortened

MOST = 1_000_000  # characters of a log that are read, from its end
# The job's script begins with it, so that what an earlier start of the same job left is not taken for the newest one's.
ATTEMPT = "attempt"
_ATTEMPT = re.compile(rf"^{ATTEMPT} \d+ of job .*$", re.MULTILINE)
_REQUEUED = re.compile(r"^.*CANCELLED .*?DUE TO (?:JOB REQUEUE|PREEMPTION|NODE FAILURE).*$", re.MULTILINE)
_CANCELLED = re.compile(r"\*\*\* (?:JOB|STEP) \S+ ON (?P<node>\S+) CANCELLED AT \S+ DUE TO (?P<why>[A-Z ]+)[^*]*\*\*\*")
_TASK = re.compile(r"^srun: error: (?P<host>\S+): tasks? (?P<tasks>[\d,-]+): (?P<word>.+)$", re.MULTILINE)
_MEMORY = re.compile(r"^.*(?:oom[-_ ]kill|exceeded (?:job |step )?memory limit|OOM Killed).*$", re.M | re.I)
_NODE = re.compile(r"^srun: error: Node failure on (?P<node>\S+)", re.MULTILINE)
_SRUN = re.compile(r"^srun: (?:(?:error|fatal): )?(?P<said>.+)$", re.MULTILINE)
_SAYS = re.compile(r"error|fatal|unrecognized|invalid|ambiguous|requires an argument", re.IGNORECASE)
# Consequences, not reasons.
_AFTER = re.compile(r"eio_|Timed out waiting for job step|[Jj]ob step \S*aborted|Force Terminated|aborted before")
_STEPD = re.compile(r"^slurmstepd(?:-(?P<node>\S+?))?: error: (?P<said>.+)$", re.MULTILINE)
_HARMLESS = re.compile(r"couldn't chdir|CANCELLED AT|task_p_|cpu_bind|jobacct|cgroup/v")


@dataclass(frozen=True)
class Verdict:
    """A reason in one line, the log that has it, the rank whose log that is (None for the job's own), and how the run
    has ended. exited: a rank ended by itself, and all that is known of it are its exit code and its last words."""

    text: str
    log: Path
    rank: int | None = None
    ending: Ending = Ending.lost
    exited: bool = False


def verdict(log: Path, silent: Mapping[int, Path]) -> Verdict | None:
    """The reason that Slurm gives for the end of the ranks ``silent``; None where it has none of its own.

    log: where the job's script and srun write. silent: logs of the ranks that left no reason, by their number.
    """
    text = newest(log)
    if said := _ended_by_slurm(text):
        return Verdict(said, log)
    for rank, path in silent.items():
        if found := next(
            filter(lambda found: not _HARMLESS.search(found["said"]), _STEPD.finditer(newest(path))), None
        ):
            node = f"{found['node']}: " if found["node"] else ""
            return Verdict(shortened(f"{node}{found['said']}"), path, rank, Ending.setup)
    first = _TASK.search(text)
    if first is None:
        return Verdict(said, log, ending=Ending.setup) if (said := _srun_itself(text)) else None
    if not first["word"].startswith("Exited"):
        tasks = f"{'tasks' if re.search('[,-]', first['tasks']) else 'task'} {first['tasks']}"
        return Verdict(f"{first['host']}: {tasks} ended by Slurm: {first['word'].strip()}", log)
    for rank in _numbers(first["tasks"]):
        if rank in silent:  # before Python could note anything, or by a call that ends a process at once
            last = last_line(silent[rank])
            words = f"{first['word'].strip()}{f': {last}' if last else ''}"
            said = shortened(f"{first['host']}: {words[0].lower()}{words[1:]}")
            code = int((re.findall(r"\d+", first["word"]) or [1])[-1])
            never_was = code in (126, 127)  # the shell's codes for no such program
            return Verdict(said, silent[rank], rank, Ending.setup if never_was else ending_with(code), not never_was)
    return None


def someone_exited(log: Path) -> bool:
    """Whether a rank ended by itself before Slurm ended the others."""
    first = _TASK.search(newest(log))
    return first is not None and first["word"].startswith("Exited")


def _ended_by_slurm(text: str) -> str | None:
    """Memory, a lost node and the time limit, whatever became of the ranks then."""
    if found := _MEMORY.search(text):
        task = _TASK.search(text)
        where = f"{task['host']}, task {task['tasks']}: " if task and "Memory" in task["word"] else ""
        said = re.sub(r"^(?:slurmstepd\S*|srun): (?:error: )?", "", found[0].strip())
        return shortened(f"out of memory: {where}{said}; ask for more (mem), or hold less (engine.micro_batches)")
    if found := _NODE.search(text):
        return f"node {found['node']} was lost"
    if found := _CANCELLED.search(text):
        return f"Slurm ended the job: {found['why'].strip().lower()} (on {found['node']})"
    return None


def _srun_itself(text: str) -> str | None:
    """Why srun started nothing."""
    for found in _SRUN.finditer(text):
        if _SAYS.search(found[0]) and not _AFTER.search(found[0]):
            return shortened(f"srun could not start the ranks: {found['said'].strip()}")
    return None


def newest(log: Path) -> str:
    """What the newest start of the job left in a log of it."""
    text = _tail(log)
    if _ATTEMPT.search(text):
        return _ATTEMPT.split(text)[-1]
    *before, last = _REQUEUED.split(text)
    return last if last.strip() or not before else text


def _tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-MOST:]
    except OSError:
        return ""


def last_line(path: Path) -> str:
    """The last words of a rank; empty where there are none."""
    told = ("srun:", "slurmstepd", ATTEMPT)  # by Slurm; the last of it, that the step was ended, follows all else
    lines = [line.strip() for line in _tail(path).splitlines() if not line.startswith(told)]
    lines = list(filter(None, lines))
    return lines[-1] if lines else ""


def _numbers(ranges: str) -> Iterator[int]:
    """``0,2-3``, as srun writes tasks."""
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            yield from range(int(first), int(last or first) + 1)
