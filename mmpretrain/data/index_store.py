"""Opens the files of columns beside the shards: mapped, so that all processes of a node share them (no torch here)."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections import OrderedDict
from typing import Any, NamedTuple, Protocol

from mmpretrain.data.cache import Cache, release
from mmpretrain.data.fetch import read_remote
from mmpretrain.data.index_columns import Columns, OfTar, unpack
from mmpretrain.data.index_scan import ShardError, reindex
from mmpretrain.data.sides import Side
from mmpretrain.data.stores import Remote
from mmpretrain.files import open_file

FOLDER = "columns"
MOST_OPEN = 64

Identity = tuple[int, int, int, int]


class StoredColumns(NamedTuple):
    """A file of columns, as the index knows it."""

    bytes: int
    sha256: str


class Described(OfTar, Protocol):
    """What the index says of a shard (see :class:`mmpretrain.data.index_shard.Shard`)."""

    @property
    def samples(self) -> int:
        """How many count."""

    @property
    def stored(self) -> Columns | StoredColumns:
        """Its columns, or what their file is."""

    @property
    def kept(self) -> tuple[str, ...] | None:
        """States of the samples that count, None for all."""

    @property
    def side(self) -> Side | None:
        """Of these the ones that count by the hash of their keys, None for all."""


Chosen = tuple[str, tuple[str, ...] | None, Side | None]


class ColumnStore:
    """The columns of the shards of one folder; those used last stay open.

    folder: local path or fsspec URL. cache: through which files of a URL come; without one they are read into memory.
    A file is hashed when a process first opens it, and again when it has changed. A pickled copy starts without open
    files.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder.rstrip("/")
        self.cache: Cache | None = None
        self.most_open = MOST_OPEN
        self._open: OrderedDict[Chosen, Columns] = OrderedDict()
        self._verified: dict[str, Identity] = {}
        self._patterns: dict[Chosen, tuple[tuple[str, int], ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def path(self, name: str) -> str:
        """Path or URL of the columns of the shard with this name."""
        return f"{self.folder}/{file_of(name)}"

    def columns(self, shard: Described) -> Columns:
        """The columns of a shard's samples.

        Raises ShardError: the file is missing, damaged, not the one of the index, or does not fit the shard.
        """
        key = shard.name, shard.kept, shard.side
        if key not in self._open:
            self._open[key] = self._selected(shard)
            while len(self._open) > self.most_open:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]

    def close(self) -> None:
        """Close all of them; :meth:`columns` opens them again."""
        self._open.clear()

    def patterns(self, shard: Described) -> tuple[tuple[str, int], ...]:
        """Those of a shard whose index does not tell them: its columns are looked at, once. Raises ShardError."""
        key = shard.name, shard.kept, shard.side
        if key not in self._patterns:
            self._patterns[key] = self.columns(shard).patterns()
        return self._patterns[key]

    def _selected(self, shard: Described) -> Columns:
        whole = shard.stored if isinstance(shard.stored, Columns) else self._read(shard, shard.stored)
        sided = whole if shard.side is None else whole.rows(shard.side.of(whole.key_hashes()))
        found = sided if shard.kept is None else sided.rows(sided.having(shard.kept))
        if len(found) != shard.samples or found.offsets.shape[1] != len(shard.extensions):
            raise self._damaged(shard, "the index says another number of samples or members")
        return found

    def _read(self, shard: Described, stored: StoredColumns) -> Columns:
        path = self.path(shard.name)
        local = "://" not in path
        buffer = self._mapped(path, shard, stored) if local else self._fetched(path, shard, stored)
        try:
            tar, columns = unpack(buffer)
            if (tar.bytes, tar.sha256, tar.extensions) != (shard.bytes, shard.sha256, shard.extensions):
                raise ValueError("it is of another tar")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise self._damaged(shard, str(error)) from None
        return columns

    def _mapped(self, path: str, shard: Described, stored: StoredColumns) -> mmap.mmap:
        try:
            file = open_file(path)
        except OSError as error:
            raise ShardError(f"{path} cannot be opened ({error.strerror}): {reindex(self.folder)}") from None
        with file:
            found = os.fstat(file.fileno())
            if found.st_size != stored.bytes:
                raise self._damaged(shard, f"it has {found.st_size} bytes, the index says {stored.bytes}")
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        identity = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        if self._verified.get(shard.name) != identity:
            self._compare(view, shard, stored)
            self._verified[shard.name] = identity
        return view

    def _fetched(self, url: str, shard: Described, stored: StoredColumns) -> Any:
        if self.cache is not None:
            file = self.cache.open(Remote(url, stored.bytes, stored.sha256))
            # What is mapped stays there when the cache lets go of the file.
            try:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            finally:
                release(file)
        try:
            data = read_remote(url)
        except FileNotFoundError:
            raise ShardError(f"{url} cannot be read: it is missing: upload it with its shard") from None
        self._compare(data, shard, stored)
        return data

    def _compare(self, data: Any, shard: Described, stored: StoredColumns) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != stored.sha256:
            raise self._damaged(shard, f"its sha256 is {sha256[:12]}…, the index says {stored.sha256[:12]}…")

    def _damaged(self, shard: Described, what: str) -> ShardError:
        return ShardError(f"{self.path(shard.name)} is damaged or out of date ({what}): {reindex(self.folder)}")


def file_of(name: str) -> str:
    """Where the columns of the shard with this name lie in its folder."""
    return f"{FOLDER}/{name.removesuffix('.tar')}.safetensors"
