"""Batches by number, in order, made by loader processes or in this one.

The processes take numbers from one queue, lowest first, so that their number changes how fast batches come and nothing
else. They hand batches over in slots (see slots.py), and end with this process, however it ends.
"""

from __future__ import annotations

import mmap
import os
import select
import selectors
import signal
import socket
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmpretrain.data.loader_process import ANSWER, ANY_SIZE, TASK, Outcome, serve
from mmpretrain.data.slots import Laid, Slot, Slots

BATCHES_AHEAD = 2  # per loader process
END_S = 1.0  # for a loader process that was told to end

# This process's ends of the sockets to all loader processes: one that is forked later must not keep them open.
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


class LoaderError(RuntimeError):
    """A loader process died, or a batch does not fit; the message names the sample or the batch."""


@dataclass(frozen=True)
class Watch:
    """How a loader process shows what it is reading.

    show: called in the process with int64 [1] of shared memory, where it is to write the ordinal of every sample that
    it begins to read. name: ordinal -> words that name the sample; called in the training process.
    """

    show: Callable[[np.ndarray], None]
    name: Callable[[int], str]


def load(
    make: Callable[..., Any],
    rows: Callable[[int], tuple[Any, ...]],
    numbers: Sequence[int],
    workers: int,
    limit: int | None = None,
    watch: Watch | None = None,
    started: Callable[[], None] | None = None,
) -> Iterator[Any]:
    """``make(*rows(number))`` for each number, in order.

    workers: loader processes; with 0 everything happens in this one. limit: bytes that batches made ahead may take
    together, None for no limit; the one that is waited for is made in any case, if it fits alone. watch: names the
    sample at which a process died. started: called once the processes are there, for threads that none of them should
    be forked from. Exceptions of ``make`` are raised here, with the traceback of their process as
    their cause.

    Raises:
        LoaderError: a loader process died, or a batch is larger than ``limit``.
    """
    started = started or _nothing
    if workers == 0 or not numbers:
        started()
        for number in numbers:
            yield make(*rows(number))
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # fast tokenizers warn at each fork without it
    crew = _Crew(lambda number: make(*rows(number)), min(workers, len(numbers)), watch)
    try:
        started()
        yield from _Ahead(crew, numbers, limit).batches()
    finally:
        crew.close()


class _Ahead:
    """Which batches are being made or lie ready, and the bytes that they may take."""

    def __init__(self, crew: _Crew, numbers: Sequence[int], limit: int | None) -> None:
        self._crew, self._numbers, self._limit = crew, numbers, limit
        self._most = BATCHES_AHEAD * crew.size
        self._slots = Slots(self._most, None if limit is None else limit // self._most)
        self._waiting = deque(numbers)
        self._sent: dict[int, tuple[Slot, int]] = {}  # number -> its slot, and the bytes kept free for it
        self._ready: dict[int, tuple[Outcome, Laid]] = {}
        self._largest = 0  # bytes of a batch, so far

    def batches(self) -> Iterator[Any]:
        """All of them, in the order of their numbers."""
        try:
            for number in self._numbers:
                self._send()
                self._receive(block=False)  # also notices a death while batches lie ready
                while number not in self._ready:
                    if number not in self._sent:  # it needed more room than was kept free for it
                        self._send_one(number, self._limit or 0)
                    self._receive(block=True)
                batch = self._taken(number)
                self._send()
                yield batch
                del batch  # else its slot would not come back before the next one is there
        finally:
            self._slots.close()

    def _send(self) -> None:
        """Hand out numbers as long as there is room. With a limit, the first batch alone shows how large they are."""
        while self._waiting and len(self._sent) < self._most:
            room = ANY_SIZE
            if self._limit is not None:
                room = max(self._largest, self._limit // self._most) if self._largest else self._limit
                if self._sent and room + sum(kept for _, kept in self._sent.values()) > self._limit:
                    return
            self._send_one(self._waiting.popleft(), room)

    def _send_one(self, number: int, room: int) -> None:
        slot = self._slots.take()
        self._sent[number] = (slot, room)
        self._crew.send(number, room, slot)

    def _receive(self, block: bool) -> None:
        for number, outcome, laid in self._crew.answers(block):
            slot, _ = self._sent[number]
            self._largest = max(self._largest, laid.end)
            if outcome is Outcome.too_large:
                del self._sent[number]
                self._slots.give_back(slot)
                self._refuse_if_never(number, laid.end)
            else:
                self._sent[number] = (slot, laid.end)
                self._ready[number] = (outcome, laid)

    def _taken(self, number: int) -> Any:
        """The batch with this number, which is ready; raises what its making raised."""
        (outcome, laid), (slot, _) = self._ready.pop(number), self._sent.pop(number)
        content = self._slots.lend(slot, laid)
        if outcome is Outcome.failed:
            _raise(*content)
        return content

    def _refuse_if_never(self, number: int, size: int) -> None:
        if self._limit is not None and size > self._limit:
            raise LoaderError(
                f"batch {number} takes {size / 1e6:.4g} MB, but data.prefetch_mb={self._limit / 1e6:.4g}: raise it, or"
                " lower data.global_batch"
            )


class _Crew:
    """The loader processes."""

    def __init__(self, make: Callable[[int], Any], size: int, watch: Watch | None) -> None:
        self.size, self._watch = size, watch
        self._tasks, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _sockets.add(self._tasks)
        self._places = np.frombuffer(mmap.mmap(-1, 8 * size), np.int64)  # shared with what is forked
        self._places[:] = -1
        self._selector = selectors.DefaultSelector()
        self._processes: dict[socket.socket, tuple[int, int]] = {}  # its answers -> number, process id
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with theirs:
            for number in range(size):
                self._start(number, make, theirs)

    def send(self, number: int, room: int, slot: Slot) -> None:
        """Queue a batch for whichever process is free first."""
        with suppress(BrokenPipeError, ConnectionResetError):  # all have died: `answers` says of what
            socket.send_fds(self._tasks, [TASK.pack(number, room)], [slot.file])

    def answers(self, block: bool) -> Iterator[tuple[int, Outcome, Laid]]:
        """What has been answered: (number, outcome, where it lies). block: wait until there is something.

        Raises LoaderError if a process has died.
        """
        for key, _ in self._selector.select(None if block else 0):
            answers = key.fileobj
            assert isinstance(answers, socket.socket)
            while (message := _next(answers)) is not None:
                if not message:
                    raise LoaderError(self._death(*self._processes.pop(answers)))
                number, outcome, start, end = ANSWER.unpack(message)
                yield number, Outcome(outcome), Laid(start, end)

    def close(self) -> None:
        """End the processes, and wait until they are gone."""
        self._selector.close()
        self._tasks.close()
        for answers in self._processes:
            answers.close()
        for _, process in self._processes.values():
            _end(process)
        self._processes.clear()

    def _start(self, number: int, make: Callable[[int], Any], tasks: socket.socket) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _sockets.add(ours)
        process = os.fork()
        if process == 0:
            self._run(number, make, tasks, theirs)
        theirs.close()
        self._processes[ours] = (number, process)
        self._selector.register(ours, selectors.EVENT_READ)

    def _run(self, number: int, make: Callable[[int], Any], tasks: socket.socket, answers: socket.socket) -> None:
        """In the loader process: never returns."""
        try:
            for inherited in list(_sockets):
                inherited.close()
            if self._watch is not None:
                self._watch.show(self._places[number : number + 1])
            serve(tasks, answers, make)
        finally:
            os._exit(0)

    def _death(self, number: int, process: int) -> str:
        place = int(self._places[number])
        where = f", at {self._watch.name(place)}" if self._watch is not None and place >= 0 else ""
        return f"loader process {number} (process id {process}) {_cause(process)}{where}"


def _next(answers: socket.socket) -> bytes | None:
    """The next answer, b'' where none will follow, None where none is there yet."""
    try:
        return answers.recv(ANSWER.size, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""


def _cause(process: int) -> str:
    """How a process that is gone ended, as the predicate of a sentence."""
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    except ChildProcessError:
        return "has died"
    if code >= 0:
        return f"ended by itself with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (so ends a process when memory is short: lower data.workers)" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"


def _end(process: int) -> None:
    try:
        watched = os.pidfd_open(process)
        poller = select.poll()  # select knows no descriptor above 1023
        poller.register(watched, select.POLLIN)
        ended = poller.poll(END_S * 1000)
        os.close(watched)
        if not ended:
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    except (ProcessLookupError, ChildProcessError):  # somebody else has waited for it
        pass


def _nothing() -> None:
    pass


def _raise(error: Exception | None, trace: str) -> None:
    if error is None:
        raise LoaderError(f"a loader process failed: {trace}")
    raise error from LoaderError(f"in a loader process:\n{trace}")
