"""Remote shards on the node's own disk: fetched whole, verified once, bounded, shared by all processes (no torch here).

    FOLDER/shards/SHA256       a verified shard, named by its content; readers hold a shared lock on it
    FOLDER/shards/SHA256.tmp   a download, as long as the shard from the start, under an exclusive lock
    FOLDER/locks/              one lock per first byte of the hash (downloads), and ``room`` (eviction)

A file appears under its final name only after its sha256 was found right and it was synced. When room is needed the
file used longest ago goes first, never one that a reader has open; a download that died leaves an unlocked ``.tmp``,
which goes the same way. The folder must be on a local disk, where locks work.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from mmpretrain.config.data import remote_problem
from mmpretrain.data.index_scan import Content, ShardError
from mmpretrain.files import sync

ENVIRONMENT = "MMPRETRAIN_CACHE"
ATTEMPTS = 3
BLOCK = 8 << 20

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The node's cache: $MMPRETRAIN_CACHE, else ~/.cache/mmpretrain."""
    return Path(os.environ.get(ENVIRONMENT) or "~/.cache/mmpretrain").expanduser()


def release(file: FileIO) -> None:
    """Close a file from :meth:`Cache.open`. Unlocks first: a process forked meanwhile may share the lock."""
    fcntl.flock(file, fcntl.LOCK_UN)
    file.close()


class Cache:
    """A bounded folder of verified shards. limit: bytes that it may hold, over all processes of the node."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.limit = limit
        self._shards, self._locks = folder / "shards", folder / "locks"
        for path in (self._shards, self._locks):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._prefetcher = _Prefetcher(self)

    def open(self, url: str, shard: Content) -> FileIO:
        """The shard (or its columns) at ``url`` as a local file, fetched if need be; kept until :func:`release`.

        Raises ShardError if it is missing, cannot be fetched, has another sha256, or does not fit.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", shard.sha256):
            raise ShardError(f"{url}: the index has no valid sha256 for it: build the index again")
        return self._cached(shard) or self._fetch(url, shard)

    def prefetch(self, shards: Iterable[tuple[str, Content]]) -> None:
        """Fetch (url, shard) pairs in the background, in this order. What fails is tried again by :meth:`open`."""
        self._prefetcher.add(shards)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prefetcher": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prefetcher = _Prefetcher(self)

    def _cached(self, shard: Content) -> FileIO | None:
        path = self._shards / shard.sha256
        try:
            file = FileIO(path)
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file.fileno()).st_size != shard.bytes:
            path.unlink(missing_ok=True)
            release(file)
            return None
        os.utime(file.fileno())
        return file

    def _fetch(self, url: str, shard: Content) -> FileIO:
        path = self._shards / shard.sha256
        with self._locked(shard.sha256[:2]):
            cached = self._cached(shard)
            if cached is not None:
                return cached
            temporary = path.with_suffix(".tmp")
            file = self._reserve(temporary, url, shard)
            try:
                _transfer(url, shard, file)
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                release(file)
                raise
            sync(self._shards)
            fcntl.flock(file, fcntl.LOCK_SH)
            return file

    def _reserve(self, temporary: Path, url: str, shard: Content) -> FileIO:
        """A locked file of the shard's full size, room having been made: so the bound holds for all processes."""
        with self._locked("room"):
            self._make_room(url, shard)
            file = FileIO(temporary, "w+")
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                os.posix_fallocate(file.fileno(), 0, shard.bytes)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                release(file)
                advice = f"free {shard.bytes} bytes there or point {ENVIRONMENT} to a larger disk"
                raise ShardError(f"{self._shards}: no room for {url} ({error.strerror}): {advice}") from None
            return file

    def _make_room(self, url: str, shard: Content) -> None:
        files = sorted(_files(self._shards))
        excess = sum(size for _, size, _ in files) + shard.bytes - self.limit
        for _, size, path in files:
            if excess <= 0:
                return
            if _remove_unused(path):
                excess -= size
        if excess > 0:
            raise ShardError(
                f"{url} does not fit: {self._shards} may hold {self.limit} bytes, and the shards in use leave"
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
    """One daemon thread that fetches what was asked for; started with the first request."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._queue: queue.SimpleQueue[tuple[str, Content]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, shards: Iterable[tuple[str, Content]]) -> None:
        """Queue shards to fetch; the thread that fetches them starts with the first."""
        for item in shards:
            self._queue.put(item)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="shard-prefetch", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            url, shard = self._queue.get()
            try:
                release(self._cache.open(url, shard))
            except ShardError as error:
                log.warning("not prefetched: %s", error)


def _files(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """(time of last use in ns, bytes, path) of each file."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # a download that just got its final name
            stat = path.stat()
            yield stat.st_mtime_ns, stat.st_size, path


def _remove_unused(path: Path) -> bool:
    """Delete a file unless a reader or a download holds its lock."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _transfer(url: str, shard: Content, file: FileIO) -> None:
    """Write the object at ``url`` into ``file``, trying again when the connection fails."""
    problem = remote_problem(url)
    if problem is not None:
        raise ShardError(f"{url} {problem}")
    for attempt in range(ATTEMPTS):
        try:
            sha256 = _copy(url, shard.bytes, file)
            break
        except FileNotFoundError:
            raise ShardError(f"{url} is missing: upload it again, or build the index again") from None
        except ImportError as error:
            raise ShardError(f"{url} cannot be fetched: {error}") from None
        except Exception as error:  # each kind of store raises its own
            if attempt == ATTEMPTS - 1:
                raise ShardError(f"{url} cannot be fetched after {ATTEMPTS} attempts ({error!r})") from None
            time.sleep(0.5 * 2**attempt)
    if sha256 != shard.sha256:
        raise ShardError(
            f"{url} has sha256 {sha256[:12]}…, the index says {shard.sha256[:12]}…: upload shard and index again"
        )


def _copy(url: str, size: int, file: FileIO) -> str:
    """Fetch exactly ``size`` bytes; returns their sha256. Raises OSError for fewer or more."""
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(url)
    digest, copied = hashlib.sha256(), 0
    file.seek(0)
    with filesystem.open(path, "rb", block_size=BLOCK) as source:
        while chunk := source.read(min(BLOCK, size - copied + 1)):
            copied += len(chunk)
            if copied > size:
                raise OSError(f"it has more than the {size} bytes of the index")
            digest.update(chunk)
            if file.write(chunk) != len(chunk):
                raise OSError("the disk took only a part of a block")
    if copied != size:
        raise OSError(f"it ended after {copied} of {size} bytes")
    return digest.hexdigest()
