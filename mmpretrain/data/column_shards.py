"""Shards of columns: a tar whose members are tables [n, d] instead of one file per sample and modality (no torch here).

    __columns__/about.json          {"version", "samples", "columns": {"MODALITY.f16": bytes of a row, ...}}
    __columns__/keys                the samples' keys, UTF-8, a line each
    __columns__/MODALITY.f16        rows one behind the other, little-endian, without a header: float16 (.f32: float32)
    __columns__/MODALITY.f16.has    uint8 [n], where some samples lack it: the others alone have rows
    __columns__/label.cls           rows of equally many digits

The index knows of every sample where its row lies (data/index_columns.py), so whatever reads samples one by one reads
these too; :mod:`mmpretrain.data.row_reader` reads many at once. Readers of WebDataset cannot use such tars, and names
that begin with ``__`` keep them from taking the tables for samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from mmpretrain.data.index_columns import Columns, TarFacts, check
from mmpretrain.data.index_scan import LONGEST_HEADER, LONGEST_NAME, HeaderReader, ShardError
from mmpretrain.files import open_file

FOLDER = "__columns__/"
ABOUT, KEYS, HAS = f"{FOLDER}about.json", f"{FOLDER}keys", ".has"
VERSION = 1
# What reading a file that was not written here may raise.
DAMAGE = (tarfile.TarError, MemoryError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
MOST_COLUMNS = 256
LONGEST_KEY = 4 * LONGEST_NAME + 64  # bytes: of names as long as a tar of samples may have them
EXTENSION = re.compile(r"[^/\x00-\x1f]{1,200}")
# In keys, as in names of members: control characters, absolute paths and steps upwards.
UNFIT = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]|(?:^|\n)(?:/|(?:[^\n]*/)?\.\.(?:[/\n]|$))")


@dataclass(frozen=True)
class Column:
    """One table. rows: [k, d] of little-endian floats, or bytes strings of one length [k]. has: bool [n], which samples
    have a row; None: all."""

    rows: np.ndarray
    has: np.ndarray | None = None


@dataclass(frozen=True)
class Table:
    """The samples of a shard: their keys, and a column by what would follow the key in a member's name."""

    keys: Sequence[str]
    columns: Mapping[str, Column]


class _Place(NamedTuple):
    offset: int
    size: int


def joined(tables: Sequence[Table]) -> Table:
    """One table of several; a column that one of them lacks is absent there."""
    names = dict.fromkeys(name for table in tables for name in table.columns)
    keys = [key for table in tables for key in table.keys]
    return Table(keys, {name: _joined_column(name, tables) for name in names})


def write_columns(path: Path, table: Table) -> tuple[TarFacts, Columns]:
    """Write a shard of columns to the disk; the same table gives the same bytes. Returns what the index says of it.

    Raises ValueError for keys that are there twice or hold line ends, and rows that do not fit the keys.
    """
    about, members = _members(table)
    places: dict[str, _Place] = {}
    with path.open("wb") as file:
        hashed: Any = _Hashed(file)
        with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, BytesIO(data))
                # Behind a member comes the rest of its last block.
                places[name] = _Place(tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, len(data))
        file.flush()
        os.fsync(file.fileno())
    columns = _columns(about, places, members[KEYS], {n: members[n] for n in members if n.endswith(HAS)})
    return TarFacts(hashed.count, hashed.digest.hexdigest(), tuple(sorted(about["columns"]))), columns


def is_columns(path: Path) -> bool:
    """Whether a tar is a shard of columns, by the name of its first member. Raises ShardError if it cannot be read."""
    try:
        with open_file(path) as file:
            return file.read(len(ABOUT) + 1) == ABOUT.encode() + b"\0"
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror or error})") from None


def read_columns(path: Path) -> tuple[tuple[str, ...], Columns]:
    """What would follow the keys in the names of members, and where the samples of a shard of columns lie, from its few
    headers. Raises ShardError if it is damaged."""
    try:
        with open_file(path) as raw:
            total = os.fstat(raw.fileno()).st_size
            headers = HeaderReader(raw)
            places = _places(headers, total)
            headers.detach()  # it would close the file with it
            about = json.loads(_bytes(raw, places[ABOUT], LONGEST_HEADER))
            keys = _bytes(raw, places[KEYS], total)
            has = {name: _bytes(raw, place, total) for name, place in places.items() if name.endswith(HAS)}
            columns = _columns(about, places, keys, has)
            check(columns, total)
            return tuple(sorted(about["columns"])), columns
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror or error})") from None
    except DAMAGE as error:
        raise ShardError(f"{path}: is a damaged shard of columns ({error}): embed the data again") from None


def _members(table: Table) -> tuple[dict[str, Any], dict[str, Any]]:
    """about.json as a dictionary, and all members by name, in their order."""
    count = len(table.keys)
    keys = "\n".join(table.keys).encode()
    if len(set(table.keys)) != count or keys.count(b"\n") != max(0, count - 1) or not all(table.keys):
        raise ValueError("keys of samples must differ, and hold no line ends")
    about: dict[str, Any] = {"version": VERSION, "samples": count, "columns": {}}
    members: dict[str, Any] = {ABOUT: b"", KEYS: keys}
    for extension, column in sorted(table.columns.items()):
        rows = np.ascontiguousarray(column.rows)
        given = count if column.has is None else int(column.has.sum())
        if len(rows) != given or (column.has is not None and len(column.has) != count):
            raise ValueError(f"{extension} has {len(rows)} rows for {given} of {count} samples")
        about["columns"][extension] = rows.itemsize * int(np.prod(rows.shape[1:], dtype=int))
        if column.has is not None and given < count:
            members[f"{FOLDER}{extension}{HAS}"] = column.has.astype(np.uint8).tobytes()
        members[f"{FOLDER}{extension}"] = rows.tobytes()
    members[ABOUT] = json.dumps(about, sort_keys=True).encode()
    return about, members


def _columns(about: Mapping[str, Any], places: Mapping[str, _Place], keys: bytes, has: Mapping[str, bytes]) -> Columns:
    """Spans of all samples by arithmetic. Raises ValueError and the like for what does not fit together."""
    samples, strides = about["samples"], about["columns"]
    if about["version"] != VERSION or type(samples) is not int or not 0 <= samples <= len(keys) + 1:
        raise ValueError("it claims another version or more samples than keys")
    if len(strides) > MOST_COLUMNS or not all(EXTENSION.fullmatch(name) for name in strides):
        raise ValueError("it has too many or odd columns")
    blob = np.frombuffer(keys, np.uint8)
    ends = np.concatenate([np.flatnonzero(blob == ord("\n")), np.full(1, len(blob))]) if samples else np.empty(0, int)
    begins = np.concatenate([np.zeros(min(samples, 1), np.int64), ends[:-1] + 1])
    if len(ends) != samples or (ends <= begins).any() or (ends - begins > LONGEST_KEY).any():
        raise ValueError("it has another number of keys than of samples, or empty or endless ones")
    if UNFIT.search(keys.decode()):
        raise ValueError("a key has control characters, or reads as a path upwards")
    found = [_spans(places[f"{FOLDER}{e}"], strides[e], samples, has.get(f"{FOLDER}{e}{HAS}")) for e in sorted(strides)]
    spans = np.array(found, np.int64).reshape(len(found), 2, samples)
    # The stored form of an index has keys one right behind the other.
    blob, lengths = blob[blob != ord("\n")] if samples else blob, ends - begins
    stops = np.cumsum(lengths)
    offsets, sizes = np.ascontiguousarray(spans[:, 0].T), np.ascontiguousarray(spans[:, 1].T)
    columns = Columns(blob, stops - lengths, stops, offsets, sizes)
    if len(np.unique(columns.key_hashes())) != samples:
        raise ValueError("a key is there twice")
    return columns


def _spans(place: _Place, stride: int, samples: int, has: bytes | None) -> tuple[np.ndarray, np.ndarray]:
    """int64 [samples] each: where every sample's row begins (-1: it has none), and its bytes."""
    there = np.ones(samples, bool) if has is None else np.frombuffer(has, np.uint8) == 1
    rows = int(there.sum())
    if type(stride) is not int or stride < 1 or len(there) != samples or rows * stride != place.size:
        raise ValueError("a table has other rows than it promises")
    numbers = np.cumsum(there, dtype=np.int64) - 1
    return np.where(there, place.offset + numbers * stride, -1), np.where(there, stride, 0)


def _places(file: IO[bytes], total: int) -> dict[str, _Place]:
    """Where the members lie. Raises ValueError or TarError for others than those of a shard of columns."""
    found: dict[str, _Place] = {}
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (info := tar.next()) is not None:
            if not info.isreg() or info.issparse() or not info.name.startswith(FOLDER) or info.name in found:
                raise ValueError(f"its member {info.name[:200]!r} is none of columns")
            if not 0 <= info.size <= total - info.offset_data or len(found) > 2 * MOST_COLUMNS + 2:
                raise ValueError("it is cut off, or has too many members")
            found[info.name] = _Place(info.offset_data, info.size)
    return found


def _bytes(file: IO[bytes], place: _Place, most: int) -> bytes:
    if place.size > most:
        raise ValueError("a member is too large")
    file.seek(place.offset)
    data = file.read(place.size)
    if len(data) != place.size:
        raise ValueError("it is cut off")
    return data


def _joined_column(name: str, tables: Sequence[Table]) -> Column:
    parts = [(len(table.keys), table.columns.get(name)) for table in tables]
    rows = np.concatenate([column.rows for _, column in parts if column is not None])
    if all(column is not None and column.has is None for _, column in parts):
        return Column(rows)
    return Column(rows, np.concatenate([_mask(count, column) for count, column in parts]))


def _mask(count: int, column: Column | None) -> np.ndarray:
    if column is None:
        return np.zeros(count, bool)
    return np.ones(count, bool) if column.has is None else column.has


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest, self.count = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        """Write and hash."""
        self.digest.update(data)
        self.count += len(data)
        return self._file.write(data)
