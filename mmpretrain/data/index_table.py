"""The index in memory and as JSON (no torch here)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.index_scan import Member, ScannedShard, ShardError
from mmpretrain.words import command

VERSION = 1

LABEL = "label"

# A tar of photos named 2024.05.17.jpg has as many "extensions" as photos: each would be a column of all samples.
MOST_EXTENSIONS = 256

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Shard:
    """One tar.

    keys: [samples]. spans: int64 [samples, extensions, 2], (offset, size) in bytes, offset -1 where absent.
    folder: where it lies, '' for the index's own folder.
    """

    name: str
    bytes: int
    sha256: str
    keys: tuple[str, ...]
    extensions: tuple[str, ...]
    spans: np.ndarray
    folder: str = ""

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
        return self.sizes(e for e in self.extensions if modality_of(e) == modality).max(axis=1, initial=-1) >= 0

    def sizes(self, extensions: Iterable[str]) -> np.ndarray:
        """int64 [samples, k]: bytes of the members with those of these extensions that the shard has; -1: absent."""
        wanted = set(extensions)
        columns = [number for number, extension in enumerate(self.extensions) if extension in wanted]
        spans = self.spans[:, columns]
        return np.where(spans[..., 0] >= 0, spans[..., 1], -1)

    def kept(self, rows: np.ndarray) -> Shard:
        """The shard with these rows alone (bool [samples])."""
        keys = tuple(key for key, keep in zip(self.keys, rows.tolist(), strict=True) if keep)
        return replace(self, keys=keys, spans=self.spans[rows])

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

    A sample is known by its shard and its key: keys may start again in the next shard.

    folder: local path or fsspec URL. fingerprint: sha256 of the content, the same wherever the folder lies.
    starts: int64 [shards + 1], first ordinal of each shard, and the number of samples at the end.
    """

    def __init__(self, folder: str | Path, shards: Sequence[Shard]) -> None:
        self.folder = str(folder)
        self.shards = tuple(shards)
        self.starts = np.cumsum([0, *(shard.samples for shard in shards)], dtype=np.int64)
        self.fingerprint = _fingerprint(self.shards)

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

    def unique_key(self, ordinal: int) -> str:
        """A sample's key; where shards share keys, the number of the shard and the key: ``000003/KEY``."""
        number, row = self.locate(ordinal)
        key = self.shards[number].keys[row]
        return key if self._keys_differ else f"{number:06d}/{key}"

    @cached_property
    def _keys_differ(self) -> bool:
        return len({key for shard in self.shards for key in shard.keys}) == len(self)

    def path(self, shard: Shard) -> str:
        """Full path or URL of a shard."""
        return f"{(shard.folder or self.folder).rstrip('/')}/{shard.name}"

    @property
    def extensions(self) -> list[str]:
        """What follows the key in the names of all members, sorted."""
        return sorted({extension for shard in self.shards for extension in shard.extensions})

    def kept(self, rows: Sequence[np.ndarray]) -> Index:
        """The index of some of the samples: bool [samples] for each shard; shards without any stay out."""
        shards = [shard if keep.all() else shard.kept(keep) for shard, keep in zip(self.shards, rows, strict=True)]
        return Index(self.folder, [shard for shard in shards if shard.samples])

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
        ShardError: a key comes back later in the tar (readers make two half samples of it), a member is
            there twice, or keys contain dots.
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
    if len(extensions) > MOST_EXTENSIONS:
        raise ShardError(
            f"{folder / scanned.name}: has {len(extensions)} different endings after the keys"
            f" ({', '.join(f'.{e}' for e in extensions[:3])}, ...): the names contain dots, and readers end a key at"
            " the first one: write the shards with other names"
        )
    spans = [[row.get(extension, (-1, 0)) for extension in extensions] for row in rows.values()]
    array = np.array(spans, dtype=np.int64).reshape(len(rows), len(extensions), 2)
    return Shard(scanned.name, scanned.bytes, scanned.sha256, tuple(rows), extensions, array)


def _name(member: Member) -> str:
    return f"'{member.key}.{member.extension}'"


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
