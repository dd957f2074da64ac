"""The manifest, index.json: one line per shard, so that it can be looked at (no torch here).

    {"version": 2, "checksum": sha256 of all further lines, "fingerprint": of the index, "limit": bytes, "shards": [
    {"bytes", "columns": {"bytes", "sha256"}, "extensions", "name", "patterns", "samples", "sha256"},
    ...
    ]}

``patterns`` says how many samples have which members (see index_shard.py), null where that would be too long; ``limit``
is the size from which on a member counts as too large there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmpretrain.data.decode import MAX_ENCODED_BYTES
from mmpretrain.data.index_columns import Columns
from mmpretrain.data.index_earlier import EarlierShard, earlier_shards
from mmpretrain.data.index_grouping import MOST_EXTENSIONS
from mmpretrain.data.index_scan import BLOCK, ShardError, reindex
from mmpretrain.data.index_shard import Shard
from mmpretrain.data.index_store import ColumnStore, StoredColumns
from mmpretrain.data.index_table import Index

VERSION = 2
MOST_PATTERNS = 64
MOST_SAMPLES = 1 << 53
SHA256 = re.compile(r"[0-9a-f]{64}")
STATES = re.compile(r"[-0+!]*")
UNFIT = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


def to_text(index: Index) -> str:
    """The text of index.json, for an index whose columns are in files."""
    lines = ",\n".join(_line(shard) for shard in index.shards) + "\n]}\n"
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
        index = Index(folder, list(_shards(ColumnStore(str(folder)), head, lines)))
        # The text is gone by the time that the fingerprint is asked for, so damage must be found here.
        if index.fingerprint != head["fingerprint"]:
            raise ValueError("its fingerprint does not fit its content")
    except UNFIT as error:
        raise ShardError(f"{folder}/index.json is damaged ({error}): {reindex(folder)}") from None
    return index


def named(name: Any, names: set[str]) -> str:
    """The name of a shard. Raises ValueError for what is none, or is there twice."""
    if not isinstance(name, str) or "/" in name or not name.endswith(".tar") or name in names:
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
    body = lines.removesuffix(b"\n]}\n").split(b"\n") if lines != b"\n]}\n" else []
    known = head["limit"] == MAX_ENCODED_BYTES
    seen: dict[Any, Any] = {}
    names: set[str] = set()
    total = 0
    for line in body:
        shard = _shard(store, json.loads(line.removesuffix(b",")), names, seen, known)
        total += shard.samples
        yield shard
    if total > MOST_SAMPLES:
        raise ValueError(f"it claims {total} samples")


def _shard(store: ColumnStore, record: dict[str, Any], names: set[str], seen: dict[Any, Any], known: bool) -> Shard:
    """One line. seen: what many shards have alike, kept once. known: whether its patterns mean what they mean here."""
    name, samples, size = named(record["name"], names), record["samples"], record["bytes"]
    stored = StoredColumns(record["columns"]["bytes"], record["columns"]["sha256"])
    extensions = tuple(record["extensions"])
    extensions = seen.setdefault(extensions, extensions)
    if not all(type(number) is int and number >= 0 for number in (samples, size, stored.bytes)):
        raise ValueError(f"{name} has odd numbers")
    # Every sample has a header in the tar, and a row in the columns.
    if samples * BLOCK > size or samples * 8 > stored.bytes or len(extensions) > MOST_EXTENSIONS:
        raise ValueError(f"{name} claims more than it can hold")
    if not (SHA256.fullmatch(record["sha256"]) and SHA256.fullmatch(stored.sha256)):
        raise ValueError(f"{name} has an odd sha256")
    counts = None if record["patterns"] is None else tuple(record["patterns"].items())
    if counts is not None and counts not in seen:
        seen[counts] = counts
    counts = None if counts is None else seen[counts]
    if counts is not None and not _fit(counts, extensions, samples):
        raise ValueError(f"{name} has patterns that do not fit its samples")
    return Shard(name, size, record["sha256"], samples, extensions, counts if known else None, stored, store)


def _fit(counts: tuple[tuple[str, int], ...], extensions: tuple[str, ...], samples: int) -> bool:
    numbers = [count for _, count in counts]
    states = all(len(s) == len(extensions) and STATES.fullmatch(s) for s, _ in counts)
    return states and all(type(n) is int and n > 0 for n in numbers) and sum(numbers) == samples


def _from_earlier(folder: str | Path, text: str) -> Index:
    store, names = ColumnStore(str(folder)), set[str]()
    return Index(folder, [_in_memory(store, shard, names) for shard in earlier_shards(text)])


def _in_memory(store: ColumnStore, shard: EarlierShard, names: set[str]) -> Shard:
    name, columns = named(shard.name, names), shard.held
    counts = listed_patterns(columns)
    return Shard(name, shard.bytes, shard.sha256, len(columns), shard.extensions, counts, columns, store)
