"""Remote files on the node's own disk: fetched whole, verified once, bounded, shared by all processes (no torch here).

    FOLDER/shards/SHA256       a verified shard, named by its content; readers hold a shared lock on it
    FOLDER/shards/SHA256.tmp   a download, as long as the shard from the start, under an exclusive lock
    FOLDER/locks/              one lock per first byte of the hash (downloads), and ``room`` (eviction)

A file appears under its final name only after its sha256 was found right and it was synced. When room is needed the
file used longest ago goes first, never one that a reader has open; a download that died leaves an unlocked ``.tmp``,
which goes the same way. The folder must be on a local disk, where locks work.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import re
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from mmpretrain.data import fetch as fetching
from mmpretrain.data.counters import Counters
from mmpretrain.data.index_scan import ShardError
from mmpretrain.data.stores import Patience, Remote
from mmpretrain.endings import Ending
from mmpretrain.files import sync

ENVIRONMENT = "MMPRETRAIN_CACHE"
FETCHES = 4  # at a time, ahead of need

ROOM_S = 0.05  # between looks for room

log = logging.getLogger(__name__)


class NoRoomError(ShardError):
    """The files in use leave too little room."""

    ending = Ending.failed  # no fault of the shards


def cache_folder() -> Path:
    """The node's cache: $MMPRETRAIN_CACHE, else ~/.cache/mmpretrain."""
    return Path(os.environ.get(ENVIRONMENT) or "~/.cache/mmpretrain").expanduser()


def release(file: FileIO) -> None:
    """Close a file from :meth:`Cache.open`. Unlocks first: a process forked meanwhile may share the lock."""
    fcntl.flock(file, fcntl.LOCK_UN)
    file.close()


class Cache:
    """A bounded folder of verified files. limit: bytes that it may hold, over all processes of the node. patience: with
    the stores.

    Attributes: counters, shared with processes that are forked from this one.
    """

    def __init__(self, folder: Path, limit: int, patience: Patience | None = None) -> None:
        self.limit, self._patience = limit, patience or fetching.PATIENCE
        self.counters = Counters()
        self._shards, self._locks = folder / "shards", folder / "locks"
        for path in (self._shards, self._locks):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._prefetcher = _Prefetcher(self)

    def open(self, remote: Remote) -> FileIO:
        """The remote file as a local one, fetched if need be; kept from eviction until :func:`release`.

        Raises ShardError if it is missing, cannot be fetched, has another sha256, or does not fit.
        """
        self._check(remote)
        if (cached := self._cached(remote)) is not None:
            self.counters.add(hits=1)
            return cached
        before = time.monotonic()
        try:
            return self._fetch_in_time(remote)
        finally:
            self.counters.add(waited_s=time.monotonic() - before)

    def prefetch(self, remotes: Iterable[Remote]) -> None:
        """Fetch files in the background, in this order. What fails is tried again by :meth:`open`."""
        self._prefetcher.add(remotes)

    def bring(self, remote: Remote) -> None:
        """Have the file in the cache, without opening it; raises as :meth:`open` does."""
        self._check(remote)
        release(self._cached(remote) or self._fetch(remote))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prefetcher": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prefetcher = _Prefetcher(self)

    def _check(self, remote: Remote) -> None:
        """The sha256 becomes the name of a file."""
        if not re.fullmatch(r"[0-9a-f]{64}", remote.sha256):
            raise ShardError(f"{remote.url}: the index has no valid sha256 for it: build the index again")

    def _cached(self, remote: Remote) -> FileIO | None:
        path = self._shards / remote.sha256
        try:
            file = FileIO(path)
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file.fileno()).st_size != remote.bytes:
            path.unlink(missing_ok=True)
            release(file)
            return None
        os.utime(file.fileno())
        return file

    def _fetch_in_time(self, remote: Remote) -> FileIO:
        """As :meth:`_fetch`, but room that downloads ahead of need take is waited for."""
        while True:
            try:
                return self._fetch(remote)
            except NoRoomError:
                if not any(_in_use(path) for path in self._shards.glob("*.tmp")):
                    raise
                time.sleep(ROOM_S)

    def _fetch(self, remote: Remote) -> FileIO:
        path = self._shards / remote.sha256
        with self._locked(remote.sha256[:2]):
            cached = self._cached(remote)
            if cached is not None:
                return cached
            temporary = path.with_suffix(".tmp")
            file = self._reserve(temporary, remote)
            try:
                fetching.fetch(remote, file, self._patience, self.counters)
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                release(file)
                raise
            sync(self._shards)
            self.counters.add(shards=1)
            fcntl.flock(file, fcntl.LOCK_SH)
            return file

    def _reserve(self, temporary: Path, remote: Remote) -> FileIO:
        """A locked file of the shard's full size, room having been made: so the bound holds for all processes."""
        with self._locked("room"):
            self._make_room(remote)
            file = FileIO(temporary, "w+")
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                os.posix_fallocate(file.fileno(), 0, remote.bytes)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                release(file)
                advice = f"free {remote.bytes} bytes there or point {ENVIRONMENT} to a larger disk"
                raise fetching.CacheDiskError(
                    f"{self._shards}: no room for {remote.url} ({error.strerror}): {advice}"
                ) from None
            return file

    def _make_room(self, remote: Remote) -> None:
        files = sorted(_files(self._shards))
        excess = sum(size for _, size, _ in files) + remote.bytes - self.limit
        for _, size, path in files:
            if excess <= 0:
                return
            if _remove_unused(path):
                excess -= size
        if excess > 0:
            raise NoRoomError(
                f"{remote.url} does not fit: {self._shards} may hold {self.limit} bytes, and the shards in use leave"
                f" {excess} too few: raise data.cache_gb or lower data.window"
            )

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with open(self._locks / name, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)


class _Prefetcher:
    """A few daemon threads that fetch what was asked for; started with the first request."""

    def __init__(self, cache: Cache) -> None:
        self._cache = weakref.proxy(cache)
        self._queue: queue.SimpleQueue[Remote | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        weakref.finalize(cache, _stop, self._queue).atexit = False

    def add(self, remotes: Iterable[Remote]) -> None:
        """Queue files to fetch; the threads that fetch them start with the first."""
        for remote in remotes:
            self._queue.put(remote)
        while len(self._threads) < FETCHES:
            thread = threading.Thread(target=self._work, name="shard-prefetch", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (remote := self._queue.get()) is not None:
            try:
                self._cache.bring(remote)
            except ShardError as error:
                log.warning("not prefetched: %s", error)
            except ReferenceError:  # nobody has the cache any more
                return


def _stop(waiting: queue.SimpleQueue[Remote | None]) -> None:
    for _ in range(FETCHES):
        waiting.put(None)


def _files(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """(time of last use in ns, bytes, path) of each file."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # a download that just got its final name
            stat = path.stat()
            yield stat.st_mtime_ns, stat.st_size, path


def _in_use(path: Path) -> bool:
    """Whether a reader or a download holds the file's lock."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _remove_unused(path: Path) -> bool:
    """Delete a file unless a reader or a download holds its lock."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    return True
