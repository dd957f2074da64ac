"""Watch a job to its end and say how it ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any, Protocol

import psutil
import submitit
from rich.console import Console

from launcher.launching.executors import log_folder
from launcher.launching.progress import MetricsTail, display
from launcher.launching.stopping import Stopping, handled_by, send
from launcher.planning.advice import how_to_go_on
from launcher.planning.plan import RunPlan
from launcher.planning.resources import Cluster
from launcher.ranks.failures import Cause, knows_more, root_cause
from launcher.ranks.signals import ABORT, ignored
from launcher.runs.ending import show_end
from launcher.slurm import client as slurm_client
from mmpretrain.endings import Ending, ending_named
from mmpretrain.run_folder import DamagedFileError, RunFolder, State

LOCAL_POLL_S = 0.25
SLURM_ENDS = {
    "CANCELLED": (Ending.interrupted, ""),
    "NODE_FAIL": (Ending.lost, " (a node of it failed)"),
    "OUT_OF_MEMORY": (Ending.lost, " (it used more than its share: ask for more mem)"),
    "TIMEOUT": (Ending.lost, " (before it could save: a longer signal_lead_s gives it time)"),
    "DEADLINE": (Ending.lost, ""),
    "PREEMPTED": (Ending.lost, " (before it could save)"),
    "BOOT_FAIL": (Ending.lost, " (a node did not start)"),
}
"""Slurm's words that are reasons themselves: what they mean, and what they say in other words."""
SETTLE_S = 10.0  # for status.json to become visible on a network file system


class Depth(Enum):
    """Which processes of a local job: the ranks alone, or also what they started (loader workers)."""

    ranks = "ranks"
    everything = "everything"


class Watch(Protocol):
    """A job that can be asked now and then."""

    poll_s: float

    def state(self) -> str:
        """A word for the job's state, to be shown when it changes."""

    def ended(self) -> bool:
        """Whether the job is over for good."""


class SlurmWatch:
    """A Slurm job. It is over only when two looks in a row say so: a requeued job passes through final states."""

    poll_s = slurm_client.POLL_S

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self._state = "PENDING"
        self._looks_after_end = 0

    def state(self) -> str:
        """Slurm's word; the last one known while Slurm does not answer."""
        try:
            self._state = slurm_client.job_state(self.job_id)
        except slurm_client.SlurmError:
            return self._state
        self._looks_after_end = 0 if self._state in slurm_client.ACTIVE else self._looks_after_end + 1
        return self._state

    def ended(self) -> bool:
        """Whether the job left the queue."""
        return self._looks_after_end >= 2


class LocalWatch:
    """Ranks on this machine, which end by themselves or by their controller."""

    poll_s = LOCAL_POLL_S

    def __init__(self, job: submitit.Job[None]) -> None:
        self.job = job
        self._over = False

    def state(self) -> str:
        """RUNNING or ENDED."""
        self._over = bool(self.job.done())
        return "ENDED" if self._over else "RUNNING"

    def ended(self) -> bool:
        """Whether the controller of the ranks was gone at the last look."""
        return self._over


def follow(plan: RunPlan, job: submitit.Job[None], console: Console) -> Ending:
    """Show progress until the job is over, then how it ended.

    Ctrl-C and SIGTERM stop local ranks after they have saved, and the second one at once; a Slurm job goes on.
    """
    local = plan.resources.cluster is Cluster.local
    watch: Watch = LocalWatch(job) if local else SlurmWatch(job.job_id)
    stopping = Stopping(job)
    try:
        with handled_by(stopping) if local else _nothing():
            state = _show_until_end(plan, watch, console, stopping)
    except KeyboardInterrupt:
        return _interrupted(plan, job, console)
    return _outcome(plan, job, state, console)


def end_ranks(job: submitit.Job[None]) -> None:
    """End the local ranks and their controller; kill those that do not end when they are asked to."""
    processes = _descendants(job, Depth.everything)
    for rank in _descendants(job, Depth.ranks):
        with suppress(psutil.NoSuchProcess):
            rank.send_signal(ABORT)
    _, stubborn = psutil.wait_procs(processes, timeout=5)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + 5
    while not job.done():  # the controller, which ends by itself when its ranks have
        if time.monotonic() > deadline:
            send(job, signal.SIGKILL)
        time.sleep(0.05)


def _show_until_end(plan: RunPlan, watch: Watch, console: Console, stopping: Stopping) -> str:
    """The job's last state."""
    tail, shown = MetricsTail(RunFolder(plan.run_folder).metrics), "RUNNING"
    said, started, step = False, False, plan.step or 0
    with display(console, plan.batches.steps, plan.step or 0) as screen:
        while True:
            state = watch.state()
            over = watch.ended()  # asked before the last look at the metrics, so that none is missed
            if point := tail.latest():
                if not started:
                    _tell_fallback(RunFolder(plan.run_folder), screen.say)
                    started = True
                screen.show(point)
                step = point.step
            if over:
                return state
            stopping.remind()
            if stopping.asked and not said:
                screen.say(stops(plan, step))
                said = True
            if state != shown:
                screen.say(f"job {state}")
                shown = state
            time.sleep(watch.poll_s)


def _tell_fallback(folder: RunFolder, say: Callable[[str], None]) -> None:
    """That a run went on from an older checkpoint than its newest, and why."""
    with suppress(DamagedFileError, OSError):
        for damage in folder.status().get("passed_over") or []:
            say(f"checkpoint passed over: {damage}")


def stops(plan: RunPlan, step: int) -> str:
    """What the first signal does to a run whose newest known step is ``step``."""
    if step >= plan.batches.steps:
        return (
            "the last step is made and saved: evaluation and release are finished first; Ctrl-C again ends the run at"
            " once, and the same command then does these again"
        )
    return (
        "stopping: the run saves a checkpoint at its next step and ends (while it still starts: before its next step);"
        " Ctrl-C again ends it at once"
    )


def _outcome(plan: RunPlan, job: submitit.Job[None], state: str, console: Console) -> Ending:
    folder = RunFolder(plan.run_folder)
    status = _settled_status(folder) if state == "COMPLETED" else folder.status()
    if status.get("state") == State.completed.value:
        show_end(folder, console)
        return Ending.completed
    if status.get("state") == State.preempted.value:
        _print(console, f"preempted: {status.get('cause')}", _how_to_go_on(plan, Ending.preempted))
        return Ending.preempted
    cause = _cause(plan, job, state, status)
    # Rank 0 may have completed it while others were ended.
    folder.update_status(unless=State.completed, state=State.failed, cause=str(cause), ending=cause.ending)
    _print(console, f"failed: {cause}", f"log: {cause.log}", _how_to_go_on(plan, cause.ending))
    return cause.ending


def _cause(plan: RunPlan, job: submitit.Job[None], state: str, status: dict[str, Any]) -> Cause:
    """Why the job failed: what a rank said, else what Slurm calls it, else what the status says already."""
    logs = log_folder(plan.run_folder)
    cause = root_cause(logs, job.job_id, plan.resources.world_size)
    if state in SLURM_ENDS and not (cause.certain and state != "CANCELLED"):
        return Cause(f"Slurm ended the job: {state}{SLURM_ENDS[state][1]}", cause.log, ending=SLURM_ENDS[state][0])
    if not cause.certain and state not in ("ENDED", "FAILED", "COMPLETED"):
        return Cause(f"Slurm ended the job: {state}", cause.log, ending=Ending.lost)
    told = status.get("state") == State.failed.value and status.get("cause")
    if told and (not cause.certain or knows_more(status, cause)):
        return Cause(str(status["cause"]), cause.log, ending=ending_named(status.get("ending")) or cause.ending)
    return cause


def _interrupted(plan: RunPlan, job: submitit.Job[None], console: Console) -> Ending:
    if plan.resources.cluster is Cluster.slurm:
        _print(console, f"no longer following; job {job.job_id} goes on (scancel {job.job_id} ends it)")
        return Ending.interrupted
    folder = RunFolder(plan.run_folder)
    # A further one changes nothing: the ranks are being ended.
    with ignored(signal.SIGINT), ignored(signal.SIGTERM):
        end_ranks(job)
        cause = "interrupted by a second signal"
        folder.update_status(unless=State.completed, state=State.failed, cause=cause, ending=Ending.interrupted)
    if folder.status().get("state") == State.completed.value:  # only pictures were still missing
        show_end(folder, console)
        return Ending.completed
    _print(console, "interrupted; all ranks have ended without saving", _how_to_go_on(plan, Ending.interrupted))
    return Ending.interrupted


def _how_to_go_on(plan: RunPlan, ending: Ending) -> str:
    return how_to_go_on(RunFolder(plan.run_folder), ending, plan.command)


def _settled_status(folder: RunFolder) -> dict[str, Any]:
    deadline = time.monotonic() + SETTLE_S
    while (status := folder.status()).get("state") in (State.queued.value, State.running.value):
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return status


def _descendants(job: submitit.Job[None], depth: Depth) -> list[psutil.Process]:
    """The living processes below the local controller."""
    try:
        children = psutil.Process(int(job.job_id)).children(recursive=depth is Depth.everything)
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _print(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
