"""What a loader process does: take numbers, make their batches, lay them into slots, until the training process ends.

Loader processes are forked: what they need is in their memory already, and nothing is pickled on the way to them.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import Any

import torch

from mmpretrain.data.slots import Laid, TooLargeError, lay

TASK = struct.Struct("<qq")  # number, bytes that the batch may take; the slot's file comes with it
ANSWER = struct.Struct("<qqqq")  # number, Outcome, start, end
ANY_SIZE = 1 << 62  # bytes
CHECK_MS = 1000

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
KEEP = 1 << 28  # bytes that a process keeps after they were freed


class Outcome(IntEnum):
    """What became of a task."""

    made = 0
    """The batch lies in the slot."""

    failed = 1
    """An exception and its traceback lie in the slot."""

    too_large = 2
    """Nothing was laid; ``end`` is how many bytes the batch needs."""


def serve(tasks: socket.socket, answers: socket.socket, make: Callable[[int], Any]) -> None:
    """The life of a loader process, until the training process closes its sockets or ends. make: number -> batch."""
    parent = os.getppid()
    # Slurm signals every process of a step, and Ctrl-C all of a terminal; the training process alone answers.
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with suppress(AttributeError, ValueError, OSError):  # stderr may be no file, in a notebook for instance
        faulthandler.register(signal.SIGQUIT, all_threads=True)  # who finds this process stuck asks where it is
    threading.Thread(target=_end_with, args=(answers, parent), daemon=True).start()
    torch.set_num_threads(1)
    _keep_memory()
    gc.freeze()  # collecting what was forked would only copy its pages
    while task := socket.recv_fds(tasks, TASK.size, 1):
        message, files, *_ = task
        if not message:
            return
        number, room = TASK.unpack(message)
        try:
            outcome, laid = _made(make, number, files[0], room)
            answers.send(ANSWER.pack(number, outcome, laid.start, laid.end))
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            os.close(files[0])
        sys.stdout.flush()
        sys.stderr.flush()


def _made(make: Callable[[int], Any], number: int, file: int, room: int) -> tuple[Outcome, Laid]:
    try:
        return Outcome.made, lay(file, make(number), room)
    except TooLargeError as error:
        return Outcome.too_large, Laid(0, error.size)
    except Exception as error:
        trace = traceback.format_exc()
        return Outcome.failed, lay(file, (_portable(error), trace), ANY_SIZE)


def _portable(error: Exception) -> Exception | None:
    """The exception, if the training process can raise it as it is."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # an exception may ask for more than its message, or hold what cannot be pickled
        return None
    return error if (type(copy), str(copy)) == (type(error), str(error)) else None


def _keep_memory() -> None:
    """Batches take large blocks again and again; the kernel's clearing them each time costs as much as filling them."""
    with suppress(AttributeError):  # it is glibc's
        change = ctypes.CDLL(None).mallopt
        change(M_MMAP_MAX, 0)
        change(M_TRIM_THRESHOLD, KEEP)


def _end_with(answers: socket.socket, parent: int) -> None:
    """End this process as soon as nobody waits for its answers, whatever it is doing."""
    poller = select.poll()
    poller.register(answers, 0)  # a hang-up is reported in any case
    while not poller.poll(CHECK_MS) and os.getppid() == parent:
        pass
    os._exit(1)
