"""Local ranks notice that one of them is gone, also where nobody follows the run.

gloo tells at once that a peer is gone. NCCL does not: the others would compute on until a collective's time limit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil
from submitit.core.utils import JobPaths

from launcher.failures import failure_record
from mmpretrain.endings import Ending

POLL_S = 1.0
GRACE_S = 20.0  # for what a rank that notices by itself has to say


class SiblingLostError(RuntimeError):
    """Another rank on this machine has ended."""

    ending = Ending.lost

    def __init__(self) -> None:
        super().__init__("connection closed: another rank on this machine has ended")  # failures.LOST_PEER knows it


@dataclass
class Siblings:
    """The local ranks of a job, of which this process is one. tasks: their files; controller: the process that started
    them."""

    tasks: Sequence[JobPaths]
    controller: int
    _seen: set[int] = field(default_factory=set)

    def one_is_gone(self) -> bool:
        """Whether a rank has failed, or ended without a result."""
        if any(failure_record(task).exists() for task in self.tasks):
            return True
        finished = sum(task.result_pickle.exists() for task in self.tasks)
        living = self._living()
        self._seen.update(living)
        # While the controller still starts, ranks are missing that have yet to come.
        return len(self._seen) >= len(self.tasks) and finished + len(living) < len(self.tasks)

    def _living(self) -> list[int]:
        try:
            children = psutil.Process(self.controller).children()
        except psutil.NoSuchProcess:
            return []
        found = []
        for child in children:
            with suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child.pid)
        return found


@contextmanager
def watched(siblings: Siblings, gone: Callable[[], None]) -> Iterator[None]:
    """Inside: when one of the siblings is gone and this process is still here a while later, ``gone`` is called, from
    another thread: the main one may wait in a collective, where no signal reaches it."""
    over = threading.Event()
    threading.Thread(target=_watch, args=(siblings, gone, over), name="siblings", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(siblings: Siblings, gone: Callable[[], None], over: threading.Event) -> None:
    while not over.wait(POLL_S):
        if siblings.one_is_gone() and not over.wait(GRACE_S):
            gone()
            return
