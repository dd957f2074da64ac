"""Fetching: an object of a store becomes a file, whole and verified, with bounded patience (no torch here)."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from io import FileIO
from typing import TypeVar

from mmpretrain.data.counters import Counters
from mmpretrain.data.index_scan import ShardError
from mmpretrain.data.stores import BLOCK, Patience, Remote, Trouble, object_size, pieces, trouble, whole
from mmpretrain.endings import Ending

Answer = TypeVar("Answer")

PATIENCE = Patience()
WRONG = 2  # times that an object may come with another sha256: once may be the way, twice is the object


def fetch(remote: Remote, file: FileIO, patience: Patience = PATIENCE, counters: Counters | None = None) -> None:
    """Write an object into ``file``. It goes on where a connection was lost, if the store lets it.

    Raises ShardError: it is missing, refused, of another size or sha256, or the store has failed too often.
    """
    for last in [False] * (WRONG - 1) + [True]:
        sha256 = _Download(remote, file, patience, counters or Counters()).run()
        if sha256 == remote.sha256:
            return
        if last:
            raise ShardError(
                f"{remote.url} has sha256 {sha256[:12]}…, the index says {remote.sha256[:12]}…: upload it and the index"
                " again"
            )


def read_remote(url: str, patience: Patience | None = None) -> bytes:
    """A small object. Raises FileNotFoundError where there is none, ShardError for other failures."""
    return _answered(whole, url, patience)


def remote_size(url: str, patience: Patience | None = None) -> int | None:
    """Bytes of an object of a web server, None where that does not tell; raises as :func:`read_remote` does."""
    return _answered(object_size, url, patience)


def _answered(ask: Callable[[str, Patience], Answer], url: str, patience: Patience | None) -> Answer:
    retries = _Retries(url, patience or PATIENCE)
    while True:
        try:
            return ask(url, retries.patience)
        except ShardError:
            raise
        except Exception as error:
            found = trouble(error)
            if isinstance(error, FileNotFoundError) or "is missing" in found.cause:
                raise FileNotFoundError(url) from None
            retries.wait(found)


class _Retries:
    """Failures in a row, and the waits between them."""

    def __init__(self, url: str, patience: Patience) -> None:
        self.url, self.patience = url, patience
        self.failures = 0

    def wait(self, found: Trouble) -> None:
        """Wait before the next attempt. Raises ShardError where there is none."""
        self.failures += 1
        if found.final:
            raise ShardError(f"{self.url} {found.cause}") from None
        if self.failures >= self.patience.attempts:
            raise ShardError(f"{self.url} {found.cause}, after {self.failures} attempts in a row") from None
        backoff = self.patience.wait_s * 2 ** (self.failures - 1)
        # Many processes that failed together must not come back together.
        wait = max(backoff * random.SystemRandom().uniform(0.5, 1), found.wait_s)
        time.sleep(min(wait, self.patience.longest_wait_s))


class _Download:
    """One try at a whole object: what has arrived stays."""

    def __init__(self, remote: Remote, file: FileIO, patience: Patience, counters: Counters) -> None:
        self._remote, self._file, self._patience, self._counters = remote, file, patience, counters
        self._digest, self._done = hashlib.sha256(), 0

    def run(self) -> str:
        """The sha256 of what has arrived, which has the right size."""
        retries = _Retries(self._remote.url, self._patience)
        sure = 0  # bytes, at the last failure that counted as the first
        while True:
            before = self._done
            try:
                self._go_on()
                return self._digest.hexdigest()
            except ShardError:
                raise
            except Exception as error:  # each kind of store raises its own
                if self._done - sure >= BLOCK:
                    sure, retries.failures = self._done, 0
                retries.wait(trouble(error))
                self._counters.add(retries=1)
            finally:
                self._counters.add(fetched_bytes=max(0, self._done - before))

    def _go_on(self) -> None:
        """Fetch the rest. Raises OSError where it is too short or too long."""
        size = self._remote.bytes
        if self._done == size:  # lost with the last byte; asking for none would be an error
            return
        for piece in pieces(self._remote.url, self._done, size + 1, self._patience):
            if self._done + len(piece) > size:
                raise ShardError(f"{self._remote.url} has more than the {size} bytes of the index: {_AGAIN}")
            self._write(piece)
            self._digest.update(piece)
            self._done += len(piece)
        if self._done != size:
            raise EOFError(f"it ended after {self._done} of {size} bytes")

    def _write(self, piece: bytes) -> None:
        done = 0
        try:
            while done < len(piece):
                done += os.pwrite(self._file.fileno(), piece[done:], self._done + done)
        except OSError as error:  # not the store's fault
            raise CacheDiskError(
                f"{self._remote.url} cannot be kept on the disk of the cache ({error.strerror})"
            ) from None


class CacheDiskError(ShardError):
    """The disk of the cache takes no more; the shards are as they should be."""

    ending = Ending.disk_full


_AGAIN = "upload it and the index again"
