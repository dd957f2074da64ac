"""What the benchmarks share: time and memory of a step on fresh processes, and how results are printed."""

from __future__ import annotations

import datetime
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
from rich import box
from rich.console import Console
from rich.table import Table

from tests.rank_pool import RankPool

MIB = 2**20
MEMORY_SHARE = 0.6  # of the machine's memory; what is predicted to need more is not run

Step = Callable[[], float]  # one forward and backward pass; returns the loss


@dataclass
class Reading:
    """Of one rank, or the slowest and the largest of a group.

    seconds, cpu_seconds: of each step; the processor's time says how much a machine that does other things as well
    has distorted the first. peak_mib: peak resident memory over the steps, less that before the first one (VmHWM,
    reset at that point). error: of the gradient, relative, where a form is inexact by choice.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    loss: float = 0.0
    error: float | None = None

    @property
    def median_s(self) -> float:
        """Median over the steps."""
        return statistics.median(self.seconds)

    @property
    def median_cpu_s(self) -> float:
        """The same of the processor's time."""
        return statistics.median(self.cpu_seconds)

    def figures(self) -> dict[str, float | None]:
        """What JSON says of it."""
        times = {"s": round(self.median_s, 4), "cpu_s": round(self.median_cpu_s, 4), "steps": len(self.seconds)}
        return {**times, "mib": round(self.peak_mib, 1), "error": self.error}


def measure(build: Callable[[], Step], small: Callable[[], Step], steps: int, warm_up: bool = True) -> Reading:
    """Time and memory of ``build()`` on this rank, after a step of ``small()`` has loaded the code.

    ``build`` makes the inputs: they are not counted. warm_up: one more full step before those that are timed.
    """
    small()()
    step = build()
    gc.collect()
    before = reset_peak()
    reading = Reading(loss=step() if warm_up else 0.0)
    for _ in range(steps):
        if dist.is_initialized():
            dist.barrier()
        start, cpu_start = time.perf_counter(), time.process_time()
        reading.loss = step()
        reading.seconds.append(time.perf_counter() - start)
        reading.cpu_seconds.append(time.process_time() - cpu_start)
    reading.peak_mib = (status("VmHWM") - before) / MIB
    return reading


def reset_peak() -> int:
    """Resident bytes now; from here on VmHWM is the largest number of resident bytes since."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(name: str) -> int:
    """Bytes of an entry of /proc/self/status: ``VmRSS``, ``VmHWM``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def on_group(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """``function(*arguments)`` on each of ``size`` new gloo processes of one thread; results in the order of ranks."""
    with RankPool(size) as group:
        return group.run(function, arguments, timeout=3600)


def slowest(readings: Sequence[Reading]) -> Reading:
    """A group's reading: the slowest rank of each step, the largest peak and error, the mean loss."""
    errors = [reading.error for reading in readings if reading.error is not None]
    return Reading(
        seconds=[max(times) for times in zip(*(reading.seconds for reading in readings), strict=True)],
        cpu_seconds=[max(times) for times in zip(*(reading.cpu_seconds for reading in readings), strict=True)],
        peak_mib=max(reading.peak_mib for reading in readings),
        loss=statistics.fmean(reading.loss for reading in readings),
        error=max(errors) if errors else None,
    )


def interleaved(jobs: Mapping[str, Callable[[], Reading]], repeats: int, limit_s: float) -> dict[str, Reading]:
    """All jobs in turn, ``repeats`` times or while another round should fit into ``limit_s``; at least once.

    The steps of all rounds are pooled; peaks are medians over the rounds. Each reading is told on stderr.
    """
    rounds: list[dict[str, Reading]] = []
    start = time.perf_counter()
    while len(rounds) < repeats:
        spent = time.perf_counter() - start
        if rounds and spent * (len(rounds) + 1) / len(rounds) > limit_s:
            break
        rounds.append({name: _reported(name, job()) for name, job in jobs.items()})
    return {name: _pooled([done[name] for done in rounds]) for name in jobs}


def _reported(name: str, reading: Reading) -> Reading:
    print(f"  {name}: {reading.median_s:.3f} s, {reading.peak_mib:.0f} MiB", file=sys.stderr, flush=True)
    return reading


def _pooled(readings: list[Reading]) -> Reading:
    return Reading(
        seconds=[seconds for reading in readings for seconds in reading.seconds],
        cpu_seconds=[seconds for reading in readings for seconds in reading.cpu_seconds],
        peak_mib=statistics.median(reading.peak_mib for reading in readings),
        loss=readings[-1].loss,
        error=readings[-1].error,
    )


def fits(predicted_bytes: float) -> bool:
    """Whether this stays below MEMORY_SHARE of the machine's memory."""
    return predicted_bytes <= MEMORY_SHARE * psutil.virtual_memory().total


def machine() -> str:
    """Processor, cores, memory and torch, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = psutil.virtual_memory().total / MIB / 1024
    name = names[0] if names else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, torch {torch.__version__}"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, in Markdown's form."""
    table = Table(*columns, title=title, title_justify="left", box=box.MARKDOWN)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def finish(result: dict[str, Any]) -> None:
    """The last line: ``result`` as JSON, with the machine and the date."""
    print(json.dumps({**result, "machine": machine(), "date": datetime.date.today().isoformat()}))
