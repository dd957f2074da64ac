"""Building an index: shard by shard, in parallel, going on where an earlier build ended (no torch here).

Each shard's columns lie in a file of their own as soon as the shard is scanned, under their final name only when they
are whole. A shard is not scanned again whose columns are newer than the tar and say that it had as many bytes.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmpretrain.data.column_shards import is_columns, read_columns
from mmpretrain.data.index_columns import Columns, TarFacts, pack, unpack
from mmpretrain.data.index_grouping import group_members
from mmpretrain.data.index_scan import ShardError, is_litter, scan_shard
from mmpretrain.data.index_shard import Shard
from mmpretrain.data.index_store import FOLDER, ColumnStore, StoredColumns, file_of
from mmpretrain.data.index_table import Index
from mmpretrain.data.index_text import UNFIT, from_text, listed_patterns, to_text
from mmpretrain.data.pool import in_order, usable_cores
from mmpretrain.files import replace_text, sha256_of, sync
from mmpretrain.words import listed

INDEX_NAME = "index.json"
WORTH_A_PROCESS = 64 << 20  # bytes of tars: what takes no longer than starting the processes
ABANDONED_S = 3600.0  # a temporary file of this age has no writer

Progress = Callable[[str, int, int], None]
"""Called with a shard's name, how many are done, and how many there are."""


class Indexed(NamedTuple):
    """What a worker answers of one tar. skipped: what was passed over in it, by name."""

    name: str
    tar: TarFacts
    samples: int
    counts: tuple[tuple[str, int], ...] | None
    stored: StoredColumns
    skipped: tuple[str, ...] = ()


def build_index(
    folder: str | Path,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    workers: int | None = None,
    again: bool = False,
) -> Index:
    """Index every ``*.tar`` of a local folder: columns of each, and index.json.

    Shards that have not changed since they were indexed are not scanned, unless ``again``. progress: called before and
    after every shard that is. say: called with a sentence about what is passed over. workers: processes, by default
    as many as there are cores, and none for little data.

    Raises:
        ShardError: there is no tar, or one that readers would misread (see ``scan_shard``), or a key twice in one.
    """
    root = Path(folder)
    tars = sorted(tar for tar in root.glob("*.tar") if not is_litter(tar.name))
    if not tars:
        raise ShardError(f"{folder}: has no *.tar to index: build the shards first, or name the folder of a split")
    try:
        (root / FOLDER).mkdir(exist_ok=True)
    except OSError as error:
        raise ShardError(
            f"{root / FOLDER} cannot be made ({error.strerror}): index a copy of the folder that may be written to"
        ) from None
    known = _Known(root, again)
    store, shards = ColumnStore(str(folder)), dict[str, Shard]()
    for tar in tars:
        if (shard := known.shard(tar)) is not None:
            shards[tar.name] = replace(shard, store=store)
    todo = [tar for tar in tars if tar.name not in shards]
    for done, indexed in enumerate(_indexed(todo, again, workers, progress or _silent), start=1):
        shards[indexed.name] = _shard(indexed, store)
        if indexed.skipped and say is not None:
            say(f"{indexed.name}: passed over {listed(indexed.skipped, 3)}: what systems leave beside files")
        if progress is not None:
            progress(indexed.name, done, len(todo))
    index = Index(folder, [shards[tar.name] for tar in tars])
    sync(root / FOLDER)
    replace_text(root / INDEX_NAME, to_text(index))
    _tidy(root / FOLDER, {tar.name for tar in tars})
    return index


def _indexed(todo: list[Path], again: bool, workers: int | None, progress: Progress) -> Iterator[Indexed]:
    if workers is None:
        large = sum(state.bytes for tar in todo if (state := _state(tar))) >= WORTH_A_PROCESS
        workers = usable_cores() if large else 1
    if todo:
        progress(todo[0].name, 0, len(todo))
    try:
        yield from in_order(partial(index_tar, again=again), todo, workers)
    except BrokenProcessPool:
        raise ShardError(
            "a process that indexes shards died, perhaps for lack of memory: the same command goes on, with fewer"
            " --workers"
        ) from None


def index_tar(path: Path, again: bool) -> Indexed:
    """Write the columns of one tar, or take those that are there. Raises ShardError for a tar that is unfit."""
    if not again and (adopted := _adopted(path)) is not None:
        return adopted
    before = _state(path)
    tar, columns, skipped = _scanned(path)
    if _state(path) != before:
        raise ShardError(f"{path} changed while it was read: index it again when it is complete")
    return _entry(path.name, tar, columns, _write(path, pack(columns, tar)), skipped)


def keep_columns(path: Path, tar: TarFacts, columns: Columns) -> None:
    """Write down what the index says of a tar that was just written, so that it need not be scanned."""
    (path.parent / FOLDER).mkdir(exist_ok=True)
    _write(path, pack(columns, tar))


def _scanned(path: Path) -> tuple[TarFacts, Columns, tuple[str, ...]]:
    """A tar, its columns, and what was passed over in it."""
    if is_columns(path):
        extensions, columns = read_columns(path)
        return TarFacts(path.stat().st_size, sha256_of(path), extensions), columns, ()
    scanned = scan_shard(path)
    extensions, columns = group_members(path.parent, scanned)
    return TarFacts(scanned.bytes, scanned.sha256, extensions), columns, scanned.skipped


class _Known:
    """What the index that is there says of shards that have not changed since."""

    def __init__(self, root: Path, again: bool) -> None:
        self._root, self._shards, self._written = root, dict[str, Shard](), 0
        if again:
            return
        path = root / INDEX_NAME
        with suppress(OSError, ShardError):  # what cannot be read is built anew
            self._written = path.stat().st_mtime_ns
            self._shards = {shard.name: shard for shard in from_text(root, path.read_bytes()).shards}

    def shard(self, tar: Path) -> Shard | None:
        """The shard of a tar that has not changed since it was indexed; else None."""
        shard = self._shards.get(tar.name)
        state = _state(tar)
        if shard is None or state is None or shard.bytes != state.bytes:
            return None
        if isinstance(shard.stored, Columns):  # of an earlier version: to be stored, not to be scanned
            if self._written <= state.changed:
                return None
            facts = TarFacts(shard.bytes, shard.sha256, shard.extensions)
            return _shard(_entry(tar.name, facts, shard.stored, _write(tar, pack(shard.stored, facts))), shard.store)
        try:
            found = _columns_path(tar).stat()
        except OSError:
            return None
        newer = state.changed < found.st_mtime_ns <= self._written
        return shard if newer and found.st_size == shard.stored.bytes and shard.counts is not None else None


def _adopted(path: Path) -> Indexed | None:
    """A shard whose columns a build that was interrupted left behind; None if there are none, or older ones."""
    columns_path, state = _columns_path(path), _state(path)
    try:
        if state is None or columns_path.stat().st_mtime_ns <= state.changed:
            return None
        data = columns_path.read_bytes()
        tar, columns = unpack(data)
        if tar.bytes != state.bytes or not _fits(path, tar, columns):
            return None
    except (OSError, tarfile.TarError, *UNFIT):
        return None
    return _entry(path.name, tar, columns, StoredColumns(len(data), hashlib.sha256(data).hexdigest()))


def _fits(path: Path, tar: TarFacts, columns: Columns) -> bool:
    """Whether a few members lie where columns say: they may have come from another folder with a tar of this name.

    A name that a tar writes in more than one header does not fit, which costs no more than a scan.
    """
    if is_columns(path):
        extensions, found = read_columns(path)
        same = (np.array_equal(getattr(found, name), getattr(columns, name)) for name in ("offsets", "sizes", "keys"))
        return extensions == tar.extensions and all(same)
    with path.open("rb") as file:
        for row in {0, len(columns) // 2, len(columns) - 1} if len(columns) else ():
            number = int(columns.offsets[row].argmax())
            offset, size = int(columns.offsets[row, number]), int(columns.sizes[row, number])
            file.seek(offset - tarfile.BLOCKSIZE)
            header = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            name = f"{columns.key(row)}.{tar.extensions[number]}"
            if header.size != size or header.name.removeprefix("./").lower() != name.lower():
                return False
    return True


def _entry(name: str, tar: TarFacts, columns: Columns, stored: StoredColumns, skipped: tuple[str, ...] = ()) -> Indexed:
    return Indexed(name, tar, len(columns), listed_patterns(columns), stored, skipped)


def _shard(indexed: Indexed, store: ColumnStore) -> Shard:
    name, tar, samples, counts, stored, _ = indexed
    return Shard(name, tar.bytes, tar.sha256, samples, tar.extensions, counts, stored, store)


def _write(tar: Path, data: bytes) -> StoredColumns:
    """Write columns durably, whole or not at all. Those that are there already stay: a run may have them mapped."""
    path = _columns_path(tar)
    stored = StoredColumns(len(data), hashlib.sha256(data).hexdigest())
    with suppress(OSError):
        if path.stat().st_size == len(data) and path.read_bytes() == data:
            os.utime(path)
            return stored
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return stored


def _tidy(folder: Path, tars: set[str]) -> None:
    """Remove the columns of shards that are gone, and what dead writers left behind."""
    wanted = {Path(file_of(name)).name for name in tars}
    for path in folder.iterdir():
        gone = path.suffix == ".safetensors" and path.name not in wanted
        with suppress(FileNotFoundError):
            if gone or (path.suffix == ".tmp" and time.time() - path.stat().st_mtime > ABANDONED_S):
                path.unlink()


def _columns_path(tar: Path) -> Path:
    return tar.parent / file_of(tar.name)


class _State(NamedTuple):
    """bytes: of a file. changed: when its content, name or rights last did, in ns."""

    bytes: int
    changed: int


def _state(path: Path) -> _State | None:
    """None for a file that is not there."""
    try:
        found, link = path.stat(), path.lstat()
    except OSError:
        return None
    return _State(found.st_size, max(found.st_mtime_ns, found.st_ctime_ns, link.st_ctime_ns))


def _silent(name: str, done: int, total: int) -> None:
    pass
