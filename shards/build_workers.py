"""Shards by several processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path

from mmpretrain.data.writing import BuildError
from shards.build_plan import Job
from shards.build_shard import Incomplete, ShardRecord, make_shard
from shards.sources.sample import Source

WAITING_PER_WORKER = 2


def make_shards(
    source: Source, jobs: list[Job], incomplete: Incomplete, folder: Path | None, workers: int
) -> Iterator[ShardRecord]:
    """The record of every job, in their order, whoever does it; with one worker in this process."""
    workers = min(workers, len(jobs))
    if workers > 1:
        yield from _in_processes(source, jobs, incomplete, folder, workers)
    else:
        yield from (make_shard(source, job, incomplete, folder) for job in jobs)


def _in_processes(
    source: Source, jobs: list[Job], incomplete: Incomplete, folder: Path | None, workers: int
) -> Iterator[ShardRecord]:
    """Records in the order of the jobs. A few jobs wait for each worker, so that memory does not grow with the data."""
    setting = (source, incomplete, folder)
    context = multiprocessing.get_context("spawn")  # Arrow's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, _start_worker, setting) as pool:
        running: dict[int, Future[ShardRecord]] = {}
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


_setting: tuple[Source, Incomplete, Path | None] | None = None


def _start_worker(source: Source, incomplete: Incomplete, folder: Path | None) -> None:
    """In a worker process: remember what is built, and end with the process that started it."""
    global _setting
    _setting = (source, incomplete, folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: shards that are being written get finished
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(job: Job) -> ShardRecord:
    assert _setting is not None
    source, incomplete, folder = _setting
    return make_shard(source, job, incomplete, folder)
