"""Marks that processes share which were forked after they were made, and of which one at a time may work on each.

Loader processes meet the shards of a new window together. Without marks, each of them would hash all of them.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

WIDTH = 8  # bytes of a mark


class Marks:
    """One number for each of ``count`` things, 0 at first. A pickled copy has marks of its own."""

    def __init__(self, count: int) -> None:
        self._file = os.memfd_create("mmpretrain-marks", os.MFD_CLOEXEC)  # empty; only what locks are on
        weakref.finalize(self, os.close, self._file).atexit = False
        self._marks = np.frombuffer(mmap.mmap(-1, WIDTH * max(1, count)), np.int64)

    @contextmanager
    def alone(self, number: int) -> Iterator[None]:
        """Keeps other processes from working on the same thing; one that dies keeps them no longer."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, WIDTH, WIDTH * number)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, WIDTH, WIDTH * number)

    def has(self, number: int, mark: int) -> bool:
        """Whether that thing has this mark."""
        return bool(self._marks[number] == mark)

    def put(self, number: int, mark: int) -> None:
        """Mark a thing."""
        self._marks[number] = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Marks, (len(self._marks),)
