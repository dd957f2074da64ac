"""The index in memory and as JSON (no torch here)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.index_scan import Member, ScannedShard, ShardError
from mmpretrain.words import command

VERSION = 1

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Shard:
    """One tar.

    keys: [samples]. spans: int64 [samples, extensions, 2], (offset, size) in bytes, offset -1 where absent.
    """

    name: str
    bytes: int
    sha256: str
    keys: tuple[str, ...]
    extensions: tuple[str, ...]
    spans: np.ndarray

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.keys)

    def members(self, row: int) -> dict[str, Span]:
        """Extension -> (offset, size) of the row-th sample."""
        spans = self.spans[row].tolist()
        return {name: (at, size) for name, (at, size) in zip(self.extensions, spans, strict=True) if at >= 0}

    def holds(self, modality: str) -> np.ndarray:
        """bool [samples]: which samples have a member of this modality (or ``label``)."""
        columns = [i for i, extension in enumerate(self.extensions) if modality_of(extension) == modality]
        return np.any(self.spans[:, columns, 0] >= 0, axis=1)

    def canonical_json(self) -> str:
        """The shard as JSON, the same text for the same content."""
        record = {"name": self.name, "bytes": self.bytes, "sha256": self.sha256, "samples": self.samples}
        record |= {"extensions": self.extensions, "keys": self.keys, "spans": self.spans.reshape(-1).tolist()}
        return json.dumps(record, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Sample:
    """Where one sample lies.

    members: extension (``left.png``) -> (offset, size) in bytes inside the shard.
    """

    shard: Shard
    key: str
    members: dict[str, Span]


class Index:
    """All samples of a folder; a sample's ordinal counts through the shards in the order of their names.

    folder: local path or fsspec URL. fingerprint: sha256 of the content, the same wherever the folder lies.
    starts: int64 [shards + 1], first ordinal of each shard, and the number of samples at the end.
    """

    def __init__(self, folder: str | Path, shards: Sequence[Shard]) -> None:
        """Raises ShardError when two shards share a key."""
        self.folder = str(folder)
        self.shards = tuple(shards)
        self.starts = np.cumsum([0, *(shard.samples for shard in shards)], dtype=np.int64)
        self.fingerprint = _fingerprint(self.shards)
        _refuse_shared_keys(self)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def locate(self, ordinal: int) -> tuple[int, int]:
        """(shard number, row in it) of a sample. Raises IndexError when there is no such sample."""
        if not 0 <= ordinal < len(self):
            raise IndexError(f"{self.folder} has {len(self)} samples: there is no sample number {ordinal}")
        number = int(np.searchsorted(self.starts, ordinal, side="right")) - 1
        return number, ordinal - int(self.starts[number])

    def sample(self, ordinal: int) -> Sample:
        """Where a sample lies. Raises IndexError when there is no such sample."""
        number, row = self.locate(ordinal)
        shard = self.shards[number]
        return Sample(shard, shard.keys[row], shard.members(row))

    def path(self, shard: Shard) -> str:
        """Full path or URL of a shard."""
        return f"{self.folder.rstrip('/')}/{shard.name}"

    def to_json(self) -> str:
        """Text of index.json: one line per shard, so that it can be looked at."""
        shards = ",\n".join(shard.canonical_json() for shard in self.shards)
        return f'{{"version":{VERSION},"fingerprint":"{self.fingerprint}","shards":[\n{shards}\n]}}\n'

    @classmethod
    def from_json(cls, folder: str | Path, text: str) -> Index:
        """The index that :meth:`to_json` wrote. Raises ShardError when the text is damaged."""
        try:
            document = json.loads(text, object_hook=_shard_from_record)
            index = cls(folder, document["shards"])
            if document["version"] != VERSION or document["fingerprint"] != index.fingerprint:
                raise ValueError("its version or fingerprint do not fit its content")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise ShardError(f"{folder}/index.json is damaged ({error}): {reindex(folder)}") from None
        return index


def modality_of(extension: str) -> str:
    """``left`` of ``left.png``; '' for a member without modality (``png``)."""
    return extension.rpartition(".")[0]


def reindex(folder: str | Path) -> str:
    """The advice to index a folder again."""
    return f"run `{command('mmpretrain', 'shards', 'index', folder)}`"


def group_members(folder: Path, scanned: ScannedShard) -> Shard:
    """Group a tar's members into samples, as WebDataset readers do.

    Raises:
        ShardError: a key comes back later in the tar (readers make two half samples of it), or a member is
            there twice.
    """
    where = f"{folder / scanned.name}: member"
    rows: dict[str, dict[str, Span]] = {}
    current = None
    for member in scanned.members:
        if member.key != current and member.key in rows:
            raise ShardError(f"{where} {_name(member)} is apart from its sample: write its members side by side")
        current = member.key
        row = rows.setdefault(current, {})
        if member.extension in row:
            raise ShardError(f"{where} {_name(member)} is there twice: write it once")
        row[member.extension] = (member.offset, member.size)
    extensions = tuple(sorted({extension for row in rows.values() for extension in row}))
    spans = [[row.get(extension, (-1, 0)) for extension in extensions] for row in rows.values()]
    array = np.array(spans, dtype=np.int64).reshape(len(rows), len(extensions), 2)
    return Shard(scanned.name, scanned.bytes, scanned.sha256, tuple(rows), extensions, array)


def _name(member: Member) -> str:
    return f"'{member.key}.{member.extension}'"


def _refuse_shared_keys(index: Index) -> None:
    seen: set[str] = set()
    for shard in index.shards:
        before = len(seen)
        seen.update(shard.keys)
        if len(seen) != before + shard.samples:
            earlier = {key for other in index.shards if other is not shard for key in other.keys}
            key = next((key for key in shard.keys if key in earlier), shard.keys[0])
            raise ShardError(f"{index.path(shard)}: key {key!r} is there twice: keys must be unique in a folder")


def _fingerprint(shards: Sequence[Shard]) -> str:
    """sha256 of the canonical JSON of all shards, fed piecewise because the whole may be large."""
    digest = hashlib.sha256(b"[")
    for number, shard in enumerate(shards):
        digest.update((("," if number else "") + shard.canonical_json()).encode())
    digest.update(b"]")
    return digest.hexdigest()


def _shard_from_record(record: dict[str, Any]) -> Any:
    """JSON hook: each shard becomes compact as soon as it is parsed."""
    if "spans" not in record:
        return record
    name, keys, extensions = record["name"], tuple(record["keys"]), tuple(record["extensions"])
    spans = np.array(record["spans"], dtype=np.int64).reshape(len(keys), len(extensions), 2)
    if "/" in name or not name.endswith(".tar"):
        raise ValueError(f"{name!r} is no name of a shard")
    offsets, sizes = spans[..., 0], spans[..., 1]
    if (offsets < -1).any() or (sizes < 0).any() or (offsets > record["bytes"] - sizes).any():
        raise ValueError(f"a member lies outside {name}")
    return Shard(name, record["bytes"], record["sha256"], keys, extensions, spans)
