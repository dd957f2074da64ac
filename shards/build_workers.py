"""Shards by several processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from mmpretrain.data.writing import BuildError
from shards.build_plan import Job
from shards.build_shard import Incomplete, ShardRecord, make_shard
from shards.sources.sample import Source

WAITING_PER_WORKER = 2

S = TypeVar("S")
J = TypeVar("J")
R = TypeVar("R")


def make_shards(
    source: Source, jobs: list[Job], incomplete: Incomplete, folder: Path | None, workers: int
) -> Iterator[ShardRecord]:
    """The record of every job, in their order, whoever does it; with one worker in this process."""
    return in_order(_make_shard, (source, incomplete, folder), jobs, workers)


def _make_shard(setting: tuple[Source, Incomplete, Path | None], job: Job) -> ShardRecord:
    source, incomplete, folder = setting
    return make_shard(source, job, incomplete, folder)


def in_order(work: Callable[[S, J], R], setting: S, jobs: Sequence[J], workers: int) -> Iterator[R]:
    """``work(setting, job)`` of every job, in their order, by so many processes; with one worker in this process.

    work: a function of a module. setting: what all jobs need, handed to each process once.
    Raises BuildError if a process dies, and whatever ``work`` raises.
    """
    workers = min(workers, len(jobs))
    if workers > 1:
        yield from _in_processes(work, setting, jobs, workers)
    else:
        yield from (work(setting, job) for job in jobs)


def _in_processes(work: Callable[[S, J], R], setting: S, jobs: Sequence[J], workers: int) -> Iterator[R]:
    """A few jobs wait for each worker, so that memory does not grow with the data."""
    context = multiprocessing.get_context("spawn")  # Arrow's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, _start_worker, (work, setting)) as pool:
        running: dict[int, Future[R]] = {}
        given = 0
        try:
            for number in range(len(jobs)):
                while given < len(jobs) and given < number + workers * WAITING_PER_WORKER:
                    running[given] = pool.submit(_work, jobs[given])
                    given += 1
                yield running.pop(number).result()
        except BrokenProcessPool:
            problem = (
                "a worker process died, perhaps for lack of memory: the same command goes on, with fewer --workers"
            )
            raise BuildError(problem) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_task: Callable[[Any], Any] | None = None


def _start_worker(work: Callable[[Any, Any], Any], setting: Any) -> None:
    """In a worker process: remember what is done, and end with the process that started it."""
    global _task
    _task = partial(work, setting)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: shards that are being written get finished
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(job: Any) -> Any:
    assert _task is not None
    return _task(job)
