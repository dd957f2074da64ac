"""The index of versions 0.1 and earlier: one JSON with all keys and spans, still read, and its fingerprint.

    {"version": 1, "fingerprint", "shards": [{"name", "bytes", "sha256", "samples", "extensions", "keys", "spans"}]}

Runs and embeddings of those versions hold such fingerprints, so it is computed again where one of them is to be known.
No torch here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmpretrain.data.index_columns import Columns, OfTar, check, columns_of

VERSION = 1


class EarlierShard(NamedTuple):
    """One shard of such an index."""

    name: str
    bytes: int
    sha256: str
    extensions: tuple[str, ...]
    held: Columns

    def columns(self) -> Columns:
        """Its columns, which are in memory."""
        return self.held


class Columned(OfTar, Protocol):
    """A shard whose columns can be had."""

    def columns(self) -> Columns:
        """Keys and places of members."""


def earlier_fingerprint(shards: Iterable[Columned]) -> str:
    """sha256 of the canonical JSON of all shards, fed piecewise because the whole may be large."""
    digest = hashlib.sha256(b"[")
    for number, shard in enumerate(shards):
        digest.update((("," if number else "") + canonical_json(shard)).encode())
    digest.update(b"]")
    return digest.hexdigest()


def canonical_json(shard: Columned) -> str:
    """A shard as JSON, the same text for the same content."""
    columns = shard.columns()
    spans = np.stack([columns.offsets, columns.sizes], axis=-1)
    record = {"name": shard.name, "bytes": shard.bytes, "sha256": shard.sha256, "samples": len(columns)}
    record |= {"extensions": shard.extensions, "keys": columns.all_keys(), "spans": spans.reshape(-1).tolist()}
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def earlier_shards(text: str) -> list[EarlierShard]:
    """The shards of the text of such an index. Raises ValueError, TypeError or the like when it is damaged."""
    document = json.loads(text, object_hook=_from_record)
    shards = document["shards"]
    if not all(isinstance(shard, EarlierShard) for shard in shards):
        raise ValueError("a shard has no keys or no spans")
    if document["version"] != VERSION or document["fingerprint"] != earlier_fingerprint(shards):
        raise ValueError("its version or fingerprint do not fit its content")
    return shards


def _from_record(record: dict[str, Any]) -> Any:
    """JSON hook: each shard becomes compact as soon as it is parsed."""
    if "spans" not in record:
        return record
    keys, extensions = record["keys"], tuple(record["extensions"])
    spans = np.array(record["spans"], dtype=np.int64).reshape(len(keys), len(extensions), 2)
    columns = columns_of(keys, spans)
    try:
        check(columns, record["bytes"])
    except ValueError as error:
        raise ValueError(f"{record['name']}: {error}") from None
    return EarlierShard(record["name"], record["bytes"], record["sha256"], extensions, columns)
