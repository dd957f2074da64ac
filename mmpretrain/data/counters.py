"""What the cache did, counted over a process and all that are forked from it (no torch here)."""

from __future__ import annotations

import fcntl
import os
import weakref
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import numpy as np


@dataclass
class Counts:
    """fetched_bytes: that arrived, those that had to come twice included. shards: files fetched whole. hits: files that
    lay in the cache when they were wanted. retries: requests that were made again. waited_s: seconds that readers
    waited for files."""

    fetched_bytes: float = 0
    shards: float = 0
    hits: float = 0
    retries: float = 0
    waited_s: float = 0

    def words(self) -> str:
        """As the end of a sentence about what was done."""
        return (
            f"{self.shards:.0f} files fetched ({self.fetched_bytes / 1e6:.4g} MB), {self.hits:.0f} found in the cache,"
            f" {self.retries:.0f} requests repeated, {self.waited_s:.1f} s waited"
        )


class Counters:
    """One :class:`Counts` in a file in memory without a name, which forked processes share.

    A lock of the file guards it, since one of threading may be held by another thread while a process is forked.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("mmpretrain-counters", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._file).atexit = False
        os.write(self._file, np.zeros(len(fields(Counts))).tobytes())

    def add(self, **amounts: float) -> None:
        """Add to the counts with these names."""
        # Opened anew, the lock also works between the threads of one process.
        with open(f"/proc/self/fd/{self._file}", "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            sums = asdict(self.counts())
            for name, amount in amounts.items():
                sums[name] += amount
            file.write(np.array(list(sums.values()), np.float64).tobytes())

    def counts(self) -> Counts:
        """What has been counted so far."""
        size = 8 * len(fields(Counts))
        return Counts(*np.frombuffer(os.pread(self._file, size, 0), np.float64).tolist())

    def __reduce__(self) -> tuple[Any, ...]:  # a process that is started afresh counts for itself
        return Counters, ()


def summed(counts: list[Counts]) -> Counts:
    """All of them together."""
    return Counts(*np.sum([astuple(entry) for entry in counts], axis=0).tolist())
