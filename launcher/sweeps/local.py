"""The runs of a sweep on this machine, one after another or some at a time. One that fails does not stop the others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import psutil
from rich.console import Console

from launcher.launching.stopping import AGAIN_AFTER_S, handled_by
from launcher.planning.plan import PlanError, RunPlan
from launcher.planning.resources import local_gpus
from launcher.ranks.job import Job
from launcher.sweeps.child import FORK, LOOK_S, Slot, Ways, code_of, launcher_log, start
from launcher.sweeps.plan import SweepPlan
from launcher.sweeps.record import note_launcher, shared_code
from mmpretrain.endings import Ending


def run_locally(plan: SweepPlan, console: Console, job: Callable[[Path], Job] = Job) -> int:
    """Run what the sweep starts; the exit code: that of its ends, see :func:`exit_code`. Raises PlanError, OSError.

    job: what the ranks of the run in a folder do.
    """
    free, (snapshot, _) = slots(plan), shared_code(plan.folder)
    runner = _Runner(plan, console, free, Ways(snapshot, job, FORK.RawValue("b", 0), alone=len(free) == 1))
    note_launcher(plan.folder, alive=True)
    try:
        with handled_by(runner.signals):
            return runner.run()
    finally:
        note_launcher(plan.folder, alive=False)


def slots(plan: SweepPlan) -> list[Slot]:
    """The parts of this machine that runs take turns on. Raises PlanError if there are too few GPUs."""
    count, ranks, gpus = plan.at_once or 1, plan.resources.ranks_per_node, local_gpus()[0]
    if count == 1:
        return [Slot(plan.resources.visible_gpus)]
    if gpus and count * ranks > len(gpus):
        raise PlanError(
            [
                f"--at-once {count}: runs of {ranks} ranks each need {count * ranks} GPUs, and this machine has"
                f" {len(gpus)}: use at most {max(1, len(gpus) // ranks)}, or fewer --gpus-per-node"
            ]
        )
    cores = sorted(psutil.Process().cpu_affinity() or [])
    shares = [frozenset(cores[at::count]) or None for at in range(count)]
    return [Slot(gpus[at * ranks : (at + 1) * ranks], shares[at]) for at in range(count)]


def exit_code(codes: list[int], *, stopped: bool) -> int:
    """Of the runs' exit codes that of the sweep. stopped: by a signal, before all was done.

    130 if a run was ended at once; 75 if a signal stopped the sweep; else what the runs that failed have in common,
    or 1 if that is nothing; else 75 if one was stopped by itself; else 0.
    """
    if Ending.interrupted.code in codes:
        return Ending.interrupted.code
    if stopped:
        return Ending.preempted.code
    failed = {code for code in codes if code not in (Ending.completed.code, Ending.preempted.code)}
    if failed:
        return failed.pop() if len(failed) == 1 else Ending.failed.code
    return Ending.preempted.code if Ending.preempted.code in codes else Ending.completed.code


@dataclass
class _Signals:
    """What came: the first asks the runs to save and stop, a later one ends them at once."""

    first: float | None = None
    again: bool = False

    def __call__(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = now
        elif now - self.first > AGAIN_AFTER_S:
            self.again = True


@dataclass
class _Under:
    """A run under way. number: from 1. since: by the monotonic clock."""

    plan: RunPlan
    slot: Slot
    process: BaseProcess
    number: int
    since: float = field(default_factory=time.monotonic)


class _Runner:
    """Starts the runs of a sweep as slots are free, until all have ended or a signal stops it."""

    def __init__(self, plan: SweepPlan, console: Console, free: list[Slot], ways: Ways) -> None:
        self.signals = _Signals()
        self.waiting = deque(plan.starting)
        self.total = len(plan.starting)
        self.codes: list[int] = []
        self._under: list[_Under] = []
        self._console, self._free, self._ways = console, free, ways
        self._began = time.monotonic()

    def run(self) -> int:
        """The exit code."""
        told = False
        while self._under or (self.waiting and self.signals.first is None):
            while self.waiting and self._free and self.signals.first is None:
                self._start(self.waiting.popleft(), self._free.pop(0))
            self._hand_on()
            if self.signals.first is not None and self.waiting and not told:
                self._say(f"stopping: {len(self.waiting)} runs are not started; the same command starts them")
                told = True
            time.sleep(LOOK_S)
            for one in [one for one in self._under if not one.process.is_alive()]:
                self._end(one)
        undone = bool(self.waiting) or Ending.preempted.code in self.codes
        return exit_code(self.codes, stopped=self.signals.first is not None and undone)

    def _start(self, plan: RunPlan, slot: Slot) -> None:
        number = self.total - len(self.waiting)
        self._say(f"run {number} of {self.total}: {plan.run_folder}{self._left()}")
        self._under.append(_Under(plan, slot, start(plan, slot, self._ways), number))

    def _end(self, one: _Under) -> None:
        self._under.remove(one)
        self._free.append(one.slot)
        code = code_of(one.process)
        self.codes.append(code)
        words = {0: "completed", Ending.preempted.code: "stopped, can go on", Ending.interrupted.code: "ended at once"}
        text = words.get(code, f"failed (exit code {code})")
        took = timedelta(seconds=round(time.monotonic() - one.since))
        where = "" if self._ways.alone or code == 0 else f"; see {launcher_log(one.plan)}"
        self._say(f"run {one.number} of {self.total} {text} after {took}: {one.plan.run_folder.name}{where}")

    def _hand_on(self) -> None:
        if self.signals.first is not None:
            self._ways.stop.value = 1
        if self.signals.again:
            self.signals.again = False
            for one in self._under:
                one.process.terminate()

    def _left(self) -> str:
        """The time until all runs are over, from the pace of those that are."""
        done = len(self.codes)
        if not done:
            return ""
        seconds = (time.monotonic() - self._began) / done * (self.total - done)
        return f" (all in about {timedelta(seconds=round(seconds))})"

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
