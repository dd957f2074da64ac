"""Samples by ordinal, read with pread from shards that stay open (no torch here).

Samples have webdataset's form (``__key__``, ``__url__``, extension -> bytes), so its pipeline stages take them;
its opener is not used, because it cannot seek, runs commands, and ends quietly at a damaged header.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from typing import Any

import numpy as np

from mmpretrain.config.data import Kind, Verify
from mmpretrain.data.cache import Cache, release
from mmpretrain.data.decode import MAX_ENCODED_BYTES, Raw, SampleError
from mmpretrain.data.index import Index, Shard, ShardError, is_remote, modality_of
from mmpretrain.data.marks import Marks
from mmpretrain.data.members import Holders, Members
from mmpretrain.data.samples import present_object
from mmpretrain.data.stores import Remote
from mmpretrain.files import open_file
from mmpretrain.words import command

Identity = tuple[int, int, int, int]


class Reader:
    """Reads samples of one split, from a local folder or through a cache.

    verify: when local shards are hashed (the cache has verified its own). members: what is read, and where it lies, of
    all shards or of each; None: every member. max_open: shards kept open, each with its columns. build: the command
    that makes the data set, for messages. A pickled copy starts without open files, and knows which shards were
    verified (``verified``).
    """

    def __init__(
        self,
        index: Index,
        verify: Verify = Verify.first_use,
        cache: Cache | None = None,
        members: Members | Sequence[Members] | None = None,
        max_open: int = 64,
        build: str | None = None,
    ) -> None:
        self.index = index
        self._members: Members | Sequence[Members] = _by_name(index) if members is None else members
        self._wanted = None if members is None else _wanted(members)
        self._verify, self._cache, self._max_open = verify, cache, max_open
        self._fix = f"run `{build}`" if build else "build the data set again"
        self._files: OrderedDict[int, _OpenShard] = OrderedDict()
        self.verified: dict[int, Identity] = {}
        self._marks = Marks(len(index.shards))
        index.read_through(cache, max_open)
        self._reading: np.ndarray | None = None

    def show(self, place: np.ndarray) -> None:
        """Write the ordinal of every sample that is read from now on into ``place`` (int64 [1]), before it is read."""
        self._reading = place

    def samples(self, ordinals: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The samples with these ordinals, in this order; raises as :meth:`sample` does."""
        return map(self.sample, ordinals)

    def sample(self, ordinal: int) -> dict[str, Any]:
        """One sample: ``__key__``, ``__url__``, extension -> bytes.

        Raises:
            ShardError: its shard is missing, cut off, or not the one that was indexed.
            SampleError: one of its members is too large to be read.
        """
        if self._reading is not None:
            self._reading[0] = ordinal
        number, row = self.index.locate(ordinal)
        shard = self.index.shards[number]
        file = self._shard(number)
        wanted = self._wanted[number] if isinstance(self._wanted, list) else self._wanted
        sample: dict[str, Any] = {"__key__": shard.columns().key(row), "__url__": self.index.path(shard)}
        for extension, (offset, size) in shard.members(row).items():
            if wanted is not None and extension not in wanted:
                continue
            if size > MAX_ENCODED_BYTES:
                raise SampleError(f"{extension}: has {size} bytes, more than {MAX_ENCODED_BYTES}")
            sample[extension] = os.pread(file.fileno(), size, offset)
            if len(sample[extension]) != size:
                raise ShardError(f"{self.index.path(shard)} was cut off while it was read: {self._fix}")
        return sample

    def check(self, number: int) -> None:
        """Open a shard and compare it with the index, unless it is open and unchanged; raises as :meth:`sample`."""
        self._shard(number)

    def mapped(self, number: int) -> mmap.mmap:
        """A shard as memory to read, checked as :meth:`sample` does and raising as it does."""
        self._shard(number)
        return self._files[number].mapped

    def members_of(self, ordinal: int) -> Members:
        """Where things lie in the shard of this sample."""
        if isinstance(self._members, Members):
            return self._members
        return self._members[self.index.locate(ordinal)[0]]

    def close(self) -> None:
        """Close every shard; reading opens them again."""
        while self._files:
            self._files.popitem()[1].close()
        self.index.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}

    def _shard(self, number: int) -> FileIO:
        """The shard's open file, opened and checked if it is not open or has changed under us."""
        if number in self._files and self._files[number].changed():
            self._files.pop(number).close()
        if number not in self._files:
            self._files[number] = self._open(number)
            if len(self._files) > self._max_open:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(number)
        return self._files[number].file

    def _open(self, number: int) -> _OpenShard:
        shard = self.index.shards[number]
        path = self.index.path(shard)
        if self._cache is not None and is_remote(path):
            return _OpenShard(self._cache.open(Remote(path, shard.bytes, shard.sha256)), None)
        try:
            file = open_file(path)
        except OSError as error:
            raise ShardError(f"{path} cannot be opened ({error.strerror}): {self._fix}") from None
        identity = _identity(file)
        if self.verified.get(number) != identity:
            self._check_once(number, path, file, identity)
            self.verified[number] = identity
        return _OpenShard(file, identity)

    def _check_once(self, number: int, path: str, file: FileIO, identity: Identity) -> None:
        """Compare it with the index, unless one of the processes that share this reader's marks has done so."""
        mark = hash(identity) or 1
        with self._marks.alone(number):
            if not self._marks.has(number, mark):
                self._check(path, file, self.index.shards[number])
                self._marks.put(number, mark)

    def _check(self, path: str, file: FileIO, shard: Shard) -> None:
        size = os.fstat(file.fileno()).st_size
        # A file that was copied may look older than its columns.
        index = command("mmpretrain", "shards", "index", self.index.folder, "--again")
        advice = f"{self._fix}, or, if the change is meant, `{index}`"
        if size != shard.bytes:
            raise ShardError(f"{path} has {size} bytes, the index says {shard.bytes}: {advice}")
        if self._verify is Verify.first_use:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 != shard.sha256:
                raise ShardError(f"{path} has sha256 {sha256[:12]}…, the index says {shard.sha256[:12]}…: {advice}")


@dataclass(frozen=True)
class _OpenShard:
    """identity: what the file was when it was checked; None for cached files, which are never written again."""

    file: FileIO
    identity: Identity | None

    @cached_property
    def mapped(self) -> mmap.mmap:
        """The file's bytes; they stay readable for who holds the map, also when the file is closed."""
        return mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)

    def changed(self) -> bool:
        """Whether somebody wrote into the file since it was opened."""
        return self.identity is not None and _identity(self.file) != self.identity

    def close(self) -> None:
        """Close the file and, if it is a cached one, let it be evicted."""
        if self.identity is None:
            release(self.file)
        else:
            self.file.close()


def _identity(file: FileIO) -> Identity:
    stat = os.fstat(file.fileno())
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def read_sample(reader: Reader, kinds: Mapping[str, Kind], ordinal: int) -> dict[str, Raw]:
    """The decoded modalities (those in ``kinds``) that one sample has; of several texts the first.

    Raises ShardError or SampleError as reader and decoder do.
    """
    sample, holders = reader.sample(ordinal), reader.members_of(ordinal).modalities
    found = {name: present_object(name, sample, kind, holders[name]) for name, kind in kinds.items() if name in holders}
    return {name: value for name, value in found.items() if value is not None}


def _wanted(members: Members | Sequence[Members]) -> list[set[str]] | set[str]:
    """What is read, of all shards or of each."""
    if isinstance(members, Members):
        return members.wanted
    sets = {id(entry): entry.wanted for entry in members}  # a source's shards share theirs
    return [sets[id(entry)] for entry in members]


def _by_name(index: Index) -> Members:
    """Every modality as its members are named, ``NAME.EXT``."""
    names = dict.fromkeys(modality_of(extension) for extension in index.extensions)
    return Members({name: Holders(tuple(e for e in index.extensions if modality_of(e) == name)) for name in names})
