"""The manifest, index.json: one line per shard, so that it can be looked at (no torch here).

    {"version": 2, "checksum": sha256 of all further lines, "fingerprint": of the index, "limit": bytes, "shards": [
    {"bytes", "columns": {"bytes", "sha256"}, "extensions", "name", "patterns", "samples", "sha256"},
    ...
    ]}

``patterns`` says how many samples have which members (see index_shard.py), null where that would be too long; ``limit``
is the size from which on a member counts as too large there.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmpretrain.data.decode import MAX_ENCODED_BYTES
from mmpretrain.data.index_columns import Columns
from mmpretrain.data.index_earlier import EarlierShard, earlier_shards
from mmpretrain.data.index_grouping import MOST_EXTENSIONS
from mmpretrain.data.index_scan import ShardError, reindex
from mmpretrain.data.index_shard import Shard
from mmpretrain.data.index_store import ColumnStore, StoredColumns
from mmpretrain.data.index_table import Index

VERSION = 2
MOST_PATTERNS = 64
MOST_SAMPLES = 1 << 53
END = "\n]}\n"
SHA256 = 64  # digits; what opens a file by it compares all of them
STATES = re.compile(r"[-0+!]*")
UNFIT = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


def to_text(index: Index) -> str:
    """The text of index.json, for an index whose columns are in files."""
    lines = ",\n".join(_line(shard) for shard in index.shards) + END
    head = {"version": VERSION, "checksum": hashlib.sha256(lines.encode()).hexdigest()}
    head |= {"fingerprint": index.fingerprint, "limit": MAX_ENCODED_BYTES, "shards": []}
    return json.dumps(head, separators=(",", ":"))[:-2] + "\n" + lines


def from_text(folder: str | Path, text: bytes) -> Index:
    """The index of such a text, or of one of earlier versions, which then has its columns in memory.

    Raises ShardError when it is damaged.
    """
    try:
        first, _, lines = text.partition(b"\n")
        head = _head(first)
        if head is None:
            return _from_earlier(folder, text.decode())
        with _no_collecting():
            index = Index(folder, list(_shards(ColumnStore(str(folder)), head, lines)))
        # The text is gone by the time that the fingerprint is asked for, so damage must be found here.
        if index.fingerprint != head["fingerprint"]:
            raise ValueError("its fingerprint does not fit its content")
    except UNFIT as error:
        raise ShardError(f"{folder}/index.json is damaged ({error}): {reindex(folder)}") from None
    return index


@contextmanager
def _no_collecting() -> Iterator[None]:
    """While very many objects are made that all stay, looking for garbage among them takes a third of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def named(name: Any, names: set[str]) -> str:
    """The name of a shard. Raises ValueError for what is none, or is there twice."""
    if type(name) is not str or "/" in name or "\0" in name or not name.endswith(".tar") or name in names:
        raise ValueError(f"{name!r} is no name of a shard, or there twice")
    names.add(name)
    return name


def listed_patterns(columns: Columns) -> tuple[tuple[str, int], ...] | None:
    """The patterns of a shard for its line, None for too many."""
    found = columns.patterns()
    return found if len(found) <= MOST_PATTERNS else None


def _line(shard: Shard) -> str:
    assert isinstance(shard.stored, StoredColumns)
    record = {"name": shard.name, "bytes": shard.bytes, "sha256": shard.sha256, "samples": shard.samples}
    record |= {"extensions": shard.extensions, "columns": shard.stored._asdict()}
    record |= {"patterns": None if shard.counts is None else dict(shard.counts)}
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def _head(first: bytes) -> dict[str, Any] | None:
    """The first line; None if this is no text of this version."""
    try:
        head = json.loads(first + b"]}")
    except UNFIT:
        return None
    return head if isinstance(head, dict) and head.get("version") == VERSION else None


def _shards(store: ColumnStore, head: dict[str, Any], lines: bytes) -> Iterator[Shard]:
    if hashlib.sha256(lines).hexdigest() != head["checksum"]:
        raise ValueError("its checksum does not fit its content")
    text, at, total = lines.decode(), 0, 0
    decode, lines_end = json.JSONDecoder().raw_decode, len(text) - len(END)
    parse = _Lines(store, known=head["limit"] == MAX_ENCODED_BYTES)
    while at < lines_end:
        record, at = decode(text, at)
        shard = parse.shard(record)
        total += shard.samples
        yield shard
        if at != lines_end and text[at : at + 2] != ",\n":
            raise ValueError("its lines do not end where they should")
        at += 2
    if total > MOST_SAMPLES or not text.endswith(END):
        raise ValueError(f"it claims {total} samples, or has no end")


class _Lines:
    """Lines become shards; what many of them have alike is checked and kept once. A hundred thousand take a second.

    known: whether their patterns mean what they would mean if they were made now.
    """

    def __init__(self, store: ColumnStore, known: bool) -> None:
        self._store, self._known, self._names = store, known, set[str]()
        self._extensions: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._counts: dict[Any, tuple[tuple[str, int], ...]] = {}

    def shard(self, record: dict[str, Any]) -> Shard:
        """The shard of a line. Raises ValueError and the like for one that cannot be."""
        name, samples, size, sha256 = named(record["name"], self._names), *_facts(record, "samples")
        stored = StoredColumns(*_facts(record["columns"])[1:])
        extensions = self._alike(tuple(record["extensions"]))
        # Every sample has a byte in the tar (in one of columns no header), and a row in the columns.
        if not 0 <= samples <= size or samples * 8 > stored.bytes:
            raise ValueError(f"{name} claims more than it can hold")
        patterns = record["patterns"]
        counts = None if patterns is None else self._fit(extensions, samples, tuple(patterns.items()))
        return Shard(name, size, sha256, samples, extensions, counts if self._known else None, stored, self._store)

    def _alike(self, extensions: tuple[str, ...]) -> tuple[str, ...]:
        if extensions not in self._extensions:
            if len(extensions) > MOST_EXTENSIONS or not all(isinstance(entry, str) for entry in extensions):
                raise ValueError("it has too many or odd extensions")
            self._extensions[extensions] = extensions
        return self._extensions[extensions]

    def _fit(
        self, extensions: tuple[str, ...], samples: int, counts: tuple[tuple[str, int], ...]
    ) -> tuple[tuple[str, int], ...]:
        key = len(extensions), samples, counts
        if key not in self._counts:
            states = all(len(s) == len(extensions) and STATES.fullmatch(s) for s, _ in counts)
            if (
                not states
                or not all(type(n) is int and n > 0 for _, n in counts)
                or sum(n for _, n in counts) != samples
            ):
                raise ValueError("it has patterns that do not fit the samples of a shard")
            self._counts[key] = counts
        return self._counts[key]


def _facts(record: dict[str, Any], count: str = "bytes") -> tuple[int, int, str]:
    """(another count, bytes, sha256) of a file."""
    number, size, sha256 = record[count], record["bytes"], record["sha256"]
    if type(number) is not int or type(size) is not int or size < 0 or type(sha256) is not str or len(sha256) != SHA256:
        raise ValueError("it has odd numbers")
    return number, size, sha256


def _from_earlier(folder: str | Path, text: str) -> Index:
    store, names = ColumnStore(str(folder)), set[str]()
    return Index(folder, [_in_memory(store, shard, names) for shard in earlier_shards(text)])


def _in_memory(store: ColumnStore, shard: EarlierShard, names: set[str]) -> Shard:
    name, columns = named(shard.name, names), shard.held
    counts = listed_patterns(columns)
    return Shard(name, shard.bytes, shard.sha256, len(columns), shard.extensions, counts, columns, store)
