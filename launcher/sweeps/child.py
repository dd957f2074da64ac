"""One run of a sweep on this machine, in a process of its own, which does what `train` does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from launcher.launching.executors import log_folder
from launcher.launching.launch import LaunchError, launch
from launcher.launching.render import show_problems
from launcher.launching.stopping import Stopping
from launcher.planning.plan import PlanError, RunPlan
from launcher.ranks.job import Job
from mmpretrain.endings import Ending
from mmpretrain.run_folder import DamagedFileError

LOOK_S = 0.2
FORK = multiprocessing.get_context("fork")  # the plans are in memory, and the launcher has no threads here


@dataclass(frozen=True)
class Slot:
    """A part of this machine for one run at a time. gpus: as CUDA_VISIBLE_DEVICES names them. cores: None: all."""

    gpus: tuple[str, ...] = ()
    cores: frozenset[int] | None = None


@dataclass(frozen=True)
class Ways:
    """What is the same for all runs of a sweep. snapshot: puts the code into a run's folder. job: what the ranks of the
    run in a folder do. stop: its ``value`` is not 0 once runs are to save and stop. alone: one run at a time, which has
    the terminal; else each writes into its own file."""

    snapshot: Callable[[Path], Path]
    job: Callable[[Path], Job]
    stop: Any
    alone: bool


def start(run: RunPlan, slot: Slot, ways: Ways) -> BaseProcess:
    """The process of a run; its exit code is that of `train`."""
    sys.stdout.flush()
    sys.stderr.flush()
    run = replace(run, resources=replace(run.resources, visible_gpus=slot.gpus))
    process: BaseProcess = FORK.Process(target=_child, args=(run, slot, ways))
    process.start()
    return process


def code_of(process: BaseProcess) -> int:
    """How an ended process ended; ``lost`` if it was killed."""
    code = process.exitcode
    return Ending.lost.code if code is None or code < 0 else code


def launcher_log(run: RunPlan) -> Path:
    """What the launcher says of a run that does not have the terminal."""
    return log_folder(run.run_folder) / "launcher.log"


def _child(run: RunPlan, slot: Slot, ways: Ways) -> None:
    if not ways.alone:
        _write_into(launcher_log(run))
    if slot.cores is not None:
        psutil.Process().cpu_affinity(list(slot.cores))  # ranks inherit it, and count their threads by it
    _listen(ways.stop)
    if ways.stop.value:
        sys.exit(Ending.preempted.code)
    try:
        job = ways.job(run.run_folder)
        sys.exit(launch(run, Console(), job, follow_it=True, snapshot=ways.snapshot).code)
    except (PlanError, LaunchError) as error:
        show_problems(error.problems, Console(stderr=True))
    except DamagedFileError as error:
        show_problems([str(error)], Console(stderr=True))
    sys.exit(Ending.failed.code)


def _write_into(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)


def _listen(stop: Any) -> None:
    """Hand the wish to stop on to what follows the run, which does not listen yet while the run starts."""

    def look(*_: object) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        if stop.value and isinstance(handler, Stopping):
            signal.setitimer(signal.ITIMER_REAL, 0)
            if not handler.asked:  # Ctrl-C in a terminal reaches all processes by itself
                os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_S, LOOK_S)
