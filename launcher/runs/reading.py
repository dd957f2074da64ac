"""What the folder of a run says of it, read quickly: hundreds of runs are listed in a moment. No torch here.

Of metrics.jsonl only the end is read. A file that is damaged makes its run's row say so, and no other's.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

from launcher.planning.previous_run import is_controller
from launcher.slurm import client as slurm_client
from mmpretrain.endings import Ending, ending_named
from mmpretrain.engine.checkpoint_files import newest_step
from mmpretrain.run_folder import ENDINGS, DamagedFileError, RunFolder, State, read_json
from mmpretrain.words import without_secrets

TAIL = 64 * 1024  # bytes of metrics.jsonl: some tens of lines
SMOOTHED = 20  # lines
LEVELS = 4  # of folders below the root


class Life(Enum):
    """Whether a process of a run lives, as far as can be seen from here."""

    gone = "gone"
    waiting = "waiting"
    alive = "alive"
    unknown = "unknown"


@dataclass(frozen=True)
class JobSeen:
    """The job of a run's last start, in words."""

    life: Life
    words: str | None = None


NO_JOB = JobSeen(Life.gone)


class Standing(StrEnum):
    """Where a run stands, by its files and by what became of its job."""

    running = "running"
    queued = "queued"
    preempted = "preempted"
    completed = "completed"
    failed = "failed"
    lost = "lost"
    damaged = "damaged"


@dataclass(frozen=True)
class Reading:
    """A run at a glance.

    job: of its last start. loss: of the last logged step; smoothed: its mean over
    the last lines. speed: samples/s, the median over them. left_s: to its end at that speed, of a run that goes on.
    changed: when it last wrote something, in seconds since 1970. plan, status, last: what these files (the last
    training record of metrics.jsonl) hold.
    """

    path: Path
    name: str
    standing: Standing
    cause: str | None = None
    job: JobSeen = NO_JOB
    step: int = 0
    total: int | None = None
    loss: float | None = None
    smoothed: float | None = None
    speed: float | None = None
    left_s: float | None = None
    checkpoint: int | None = None
    changed: float | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    last: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str | None:
        """Name of the method, where the plan tells."""
        return _inside(self.plan, "config", "method", "name")

    @property
    def data(self) -> str | None:
        """Name of the data, likewise."""
        return _inside(self.plan, "config", "data", "name")

    @property
    def ending(self) -> Ending | None:
        """How it ended, None if it has not, as far as can be seen."""
        if self.standing is Standing.lost:
            return Ending.lost
        if self.may_live or self.standing.value not in State.__members__:
            return None
        return ending_named(self.status.get("ending")) or ENDINGS.get(State(self.standing.value))

    @property
    def may_live(self) -> bool:
        """Whether a process of the run may be alive."""
        return self.job.life is not Life.gone


def find_runs(root: Path) -> list[Path]:
    """The folders of runs below ``root`` (or itself), sorted; links to folders are not followed. Raises OSError."""
    if not root.is_dir():
        raise OSError(f"{root}: there is no such folder")
    return sorted(_runs_in(root, LEVELS))


def _runs_in(folder: Path, levels: int) -> Iterator[Path]:
    try:
        names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in os.scandir(folder)}
    except OSError:  # not ours to read
        return
    if "status.json" in names or {"config.yaml", "plan.json"} <= names.keys():
        yield folder
    elif levels:
        for name, is_folder in names.items():
            if is_folder and not name.startswith("."):
                yield from _runs_in(folder / name, levels - 1)


def read_run(path: Path, name: str, jobs: Mapping[str, str] | None) -> Reading:
    """What is known of the run in ``path``. jobs: Slurm's word for each of its jobs that is not over; None: not known.

    Nothing is raised: a run that cannot be read is ``damaged``, with the reason as its cause.
    """
    folder = RunFolder(path)
    try:
        status, plan = folder.status(), _plan(folder)
        tail = read_tail(folder.metrics)
        job = living(status, plan, jobs, path / "logs")
        return _reading(folder, name, status, plan, tail, job)
    except (DamagedFileError, OSError, TypeError, ValueError, AttributeError) as error:
        return Reading(
            path,
            name,
            Standing.damaged,
            cause=without_secrets(str(error)),
            job=JobSeen(Life.unknown, "its job is not known"),
        )


def _reading(
    folder: RunFolder,
    name: str,
    status: Mapping[str, Any],
    plan: Mapping[str, Any],
    tail: list[dict[str, Any]],
    job: JobSeen,
) -> Reading:
    losses = [float(line["loss"]) for line in tail][-SMOOTHED:]
    speeds = [float(line["samples_per_s"]) for line in tail if "samples_per_s" in line][-SMOOTHED:]
    last = tail[-1] if tail else {}
    standing = _standing(status, job)
    step, total = int(max(status.get("step", 0), last.get("step", 0))), status.get("total_steps")
    total = None if total is None else int(total)
    speed = statistics.median(speeds) if speeds else None
    batch = _inside(plan, "batches", "global_batch")
    goes_on = standing is Standing.running and speed and total and batch
    return Reading(
        path=folder.path,
        name=name,
        standing=standing,
        cause=_cause(status, standing),
        job=job,
        step=step,
        total=total,
        loss=losses[-1] if losses else None,
        smoothed=statistics.fmean(losses) if losses else None,
        speed=speed,
        left_s=(total - step) * batch / speed if goes_on else None,  # type: ignore[operator]
        checkpoint=newest_step(folder.checkpoints),
        changed=_changed(folder),
        plan=plan,
        status=status,
        last=last,
    )


def _plan(folder: RunFolder) -> dict[str, Any]:
    """plan.json; empty where it is damaged, which no run depends on."""
    try:
        return read_json(folder.plan)
    except DamagedFileError:
        return {}


def read_tail(path: Path, size: int = TAIL) -> list[dict[str, Any]]:
    """The training records among the last ``size`` bytes of a metrics.jsonl, oldest first; lines that a crash damaged
    are left out."""
    if not path.exists():
        return []
    with path.open("rb") as stream:
        length = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, length - size))
        lines = stream.read().split(b"\n")
    found = []
    for line in lines[1:-1] if length > size else lines[:-1]:  # the first was cut, the last is still written
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("loss"), int | float):
            found.append(record)
    return found


def living(status: Mapping[str, Any], plan: Mapping[str, Any], jobs: Mapping[str, str] | None, logs: Path) -> JobSeen:
    """What became of a run's job. jobs: as of :func:`read_run`. logs: folder that submitit keeps its files in."""
    job, state = str(status.get("job_id") or ""), status.get("state")
    if not job or state == State.completed.value:
        return NO_JOB
    if plan.get("cluster") == "slurm":
        return _slurm_job(job, state, jobs)
    if plan.get("host") == socket.gethostname():
        alive = job.isdigit() and is_controller(int(job), logs)
        return JobSeen(Life.alive, f"process {job}") if alive else NO_JOB
    if state in (State.queued.value, State.running.value):
        return JobSeen(Life.unknown, f"process {job} on {plan.get('host')}, which cannot be seen from here")
    return NO_JOB


def _slurm_job(job: str, state: str | None, jobs: Mapping[str, str] | None) -> JobSeen:
    if jobs is not None:
        word = jobs.get(job)
        life = Life.waiting if word in slurm_client.WAITING else Life.alive
        return NO_JOB if word is None else JobSeen(life, f"Slurm job {job} ({word})")
    if state == State.failed.value:
        return NO_JOB
    return JobSeen(Life.unknown, f"Slurm job {job}, about which Slurm does not answer")


def _standing(status: Mapping[str, Any], job: JobSeen) -> Standing:
    state = status.get("state")
    if state == State.completed.value:
        return Standing.completed
    if job.life is Life.waiting or (job.life is Life.alive and state == State.queued.value):
        return Standing.queued
    if job.life is Life.gone and state in (State.queued.value, State.running.value):
        return Standing.lost
    return Standing(str(state)) if state in Standing.__members__ else Standing.lost


def _cause(status: Mapping[str, Any], standing: Standing) -> str | None:
    if standing is Standing.queued and status.get("state") == State.running.value:
        return "its job is back in the queue: its node failed, or it was requeued; it will continue"
    if standing is not Standing.lost:
        cause = status.get("cause")
        return None if cause is None else without_secrets(str(cause))
    said = status.get("state")
    if said is None:
        return "it was never started, or its status.json is gone"
    if said == State.queued.value:
        return "its job is gone, although it was queued: stopped or killed before its ranks could say anything"
    how = "cancelled before it could save, killed with its machine, or out of memory"
    return f"its job is gone, although it was {said}: {how}"


def _changed(folder: RunFolder) -> float | None:
    times = [path.stat().st_mtime for path in (folder.metrics, folder.path / "status.json") if path.exists()]
    return max(times, default=None)


def _inside(tree: Mapping[str, Any], *keys: str) -> Any:
    value: Any = tree
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def age(reading: Reading) -> float | None:
    """Seconds since the run last wrote something."""
    return None if reading.changed is None else max(0.0, time.time() - reading.changed)
