"""Work by several processes that end with the one that started them, answered in order (no torch here)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any, TypeVar

WAITING_PER_WORKER = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def in_order(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    prepare: Callable[..., None] | None = None,
    setting: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """``work(item)`` of every item, in their order, whichever process does it; with one worker it is this one.

    prepare: called with ``setting`` in each process before its first item. A few items wait for each process, so that
    memory does not grow with their number. Raises what ``work`` raises, and BrokenProcessPool if a process dies.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        if prepare is not None:
            prepare(*setting)
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")  # threads, of Arrow and torch for example, do not survive a fork
    with ProcessPoolExecutor(workers, context, _start, (prepare, setting)) as pool:
        running: dict[int, Future[Result]] = {}
        given = 0
        try:
            for number in range(len(items)):
                while given < len(items) and given < number + workers * WAITING_PER_WORKER:
                    running[given] = pool.submit(work, items[given])
                    given += 1
                yield running.pop(number).result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(prepare: Callable[..., None] | None, setting: tuple[Any, ...]) -> None:
    """In a new process: end with the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: what is being written gets finished
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare(*setting)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
