"""The runs of a sweep on this machine, one after another or some at a time. One that fails does not stop the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from rich.console import Console

from launcher.executors import log_folder
from launcher.launch import LaunchError, launch
from launcher.plan import PlanError, RunPlan
from launcher.render import show_problems
from launcher.resources import local_gpus
from launcher.stopping import AGAIN_AFTER_S, Stopping
from launcher.sweep_plan import SweepPlan
from launcher.sweep_record import note_launcher, shared_code
from mmpretrain.endings import Ending
from mmpretrain.run_folder import DamagedFileError

POLL_S = 0.2
_FORK = multiprocessing.get_context("fork")  # the plans are in memory; nothing here has threads yet


@dataclass(frozen=True)
class Slot:
    """A part of this machine for one run at a time. gpus: as CUDA_VISIBLE_DEVICES names them. cores: None: all."""

    gpus: tuple[str, ...] = ()
    cores: frozenset[int] | None = None


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
    """A run under way."""

    plan: RunPlan
    slot: Slot
    process: BaseProcess
    number: int
    since: float = field(default_factory=time.monotonic)


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


def run_locally(plan: SweepPlan, console: Console) -> int:
    """Run what the sweep starts; the exit code: that of its ends, see :func:`exit_code`. Raises PlanError, OSError."""
    free, (snapshot, _) = slots(plan), shared_code(plan.folder)
    stop, signals = _FORK.RawValue("b", 0), _Signals()
    waiting, under, codes = deque(plan.starting), [], []  # type: ignore[var-annotated]
    began, done = time.monotonic(), 0
    note_launcher(plan.folder, alive=True)
    try:
        with _handled_by(signals):
            while under or (waiting and signals.first is None):
                while waiting and free and signals.first is None:
                    run, slot = waiting.popleft(), free.pop(0)
                    number = len(plan.starting) - len(waiting)
                    _say(console, f"run {number} of {len(plan.starting)}: {run.run_folder}{_left(plan, began, done)}")
                    under.append(_Under(run, slot, _started(run, slot, snapshot, stop, plan), number))
                _hand_on(signals, stop, under)
                time.sleep(POLL_S)
                for one in [one for one in under if not one.process.is_alive()]:
                    under.remove(one)
                    free.append(one.slot)
                    codes.append(_code_of(one.process))
                    done += 1
                    _say_end(console, one, codes[-1], plan)
    finally:
        note_launcher(plan.folder, alive=False)
    return exit_code(codes, stopped=signals.first is not None)


def _code_of(process: BaseProcess) -> int:
    code = process.exitcode
    return Ending.lost.code if code is None or code < 0 else code


def exit_code(codes: list[int], *, stopped: bool) -> int:
    """Of the runs' exit codes that of the sweep. stopped: by a signal.

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


def _started(run: RunPlan, slot: Slot, snapshot: Callable[[Path], Path], stop: Any, plan: SweepPlan) -> BaseProcess:
    alone = (plan.at_once or 1) == 1
    output = None if alone else launcher_log(run)
    sys.stdout.flush()
    run = replace(run, resources=replace(run.resources, visible_gpus=slot.gpus))
    process = _FORK.Process(target=_child, args=(run, slot, snapshot, stop, output))
    process.start()
    return process


def launcher_log(run: RunPlan) -> Path:
    """What the launcher says of a run that shares its terminal with others."""
    return log_folder(run.run_folder) / "launcher.log"


def _child(run: RunPlan, slot: Slot, snapshot: Callable[[Path], Path], stop: Any, output: Path | None) -> None:
    """One run, in a process of its own: start and follow it as `train` does."""
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
    if slot.cores is not None:
        psutil.Process().cpu_affinity(list(slot.cores))  # ranks inherit it, and count their threads by it
    _listen(stop)
    if stop.value:
        sys.exit(Ending.preempted.code)
    try:
        code = launch(run, Console(), follow_it=True, snapshot=snapshot)
        sys.exit(int(getattr(code, "code", code)))
    except (PlanError, LaunchError) as error:
        show_problems(error.problems, Console(stderr=True))
    except DamagedFileError as error:
        show_problems([str(error)], Console(stderr=True))
    sys.exit(Ending.failed.code)


def _listen(stop: Any) -> None:
    """Hand the wish to stop on to what follows the run, as soon as that listens."""

    def look(*_: object) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        if stop.value and isinstance(handler, Stopping):
            signal.setitimer(signal.ITIMER_REAL, 0)
            if not handler.asked:  # Ctrl-C in a terminal reaches all processes
                os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, POLL_S, POLL_S)


def _hand_on(signals: _Signals, stop: Any, under: list[_Under]) -> None:
    if signals.first is not None:
        stop.value = 1
    if signals.again:
        signals.again = False
        for one in under:
            one.process.terminate()


@contextmanager
def _handled_by(signals: _Signals) -> Iterator[None]:
    """Not what a shell ignores for what it starts in the background."""
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    numbers = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.signal(number, signals) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _left(plan: SweepPlan, began: float, done: int) -> str:
    """The time until all runs are over, from the pace of those that are."""
    if not done:
        return ""
    seconds = (time.monotonic() - began) / done * (len(plan.starting) - done)
    return f" (all in about {timedelta(seconds=round(seconds))})"


def _say_end(console: Console, one: _Under, code: int, plan: SweepPlan) -> None:
    words = {0: "completed", Ending.preempted.code: "stopped, can go on", Ending.interrupted.code: "ended at once"}
    text = words.get(code, f"failed (exit code {code})")
    took = timedelta(seconds=round(time.monotonic() - one.since))
    where = "" if (plan.at_once or 1) == 1 or code == 0 else f"; see {launcher_log(one.plan)}"
    _say(console, f"run {one.number} of {len(plan.starting)} {text} after {took}: {one.plan.run_folder.name}{where}")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
