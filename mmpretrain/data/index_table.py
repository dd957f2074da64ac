"""The index in memory: the shards of a folder, and where each sample lies (no torch here).

What is known of every shard is what the manifest says; keys and members are in columns that open when a sample is asked
for. So an index costs time and memory by its shards, however many samples they hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mmpretrain.data.cache import Cache
from mmpretrain.data.index_columns import Columns
from mmpretrain.data.index_earlier import earlier_fingerprint
from mmpretrain.data.index_scan import Content
from mmpretrain.data.index_shard import Pattern, Shard, Span
from mmpretrain.data.index_store import ColumnStore
from mmpretrain.data.sides import Side

MOST_KEYS_COMPARED = 10_000_000  # 80 MB of hashes


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

    A sample is known by its shard and its key: keys may start again in the next shard. What opens columns raises
    ShardError where those are missing or damaged.

    folder: local path or fsspec URL. starts: int64 [shards + 1], first ordinal of each shard, and the number of samples
    at the end.
    """

    def __init__(self, folder: str | Path, shards: Sequence[Shard]) -> None:
        self.folder = str(folder)
        self.shards = tuple(shards)
        self.starts = np.cumsum([0, *(shard.samples for shard in shards)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of which tars these are and which of their samples count, the same wherever the folder lies."""
        digest = hashlib.sha256()
        for shard in self.shards:
            kept = "" if shard.kept is None else ",".join(f"{states}{count}" for states, count in shard.patterns)
            kept += "" if shard.side is None else f" {shard.side.low} {shard.side.high}"
            # The name is the one part that may hold anything.
            line = f"{len(shard.name)} {shard.name} {shard.bytes} {shard.sha256} {shard.samples} {kept}\n"
            digest.update(line.encode())
        return digest.hexdigest()

    def is_known_as(self, fingerprint: str) -> bool:
        """Whether a fingerprint is of this index: as it is now, or as versions 0.1 and earlier computed it.

        The latter reads the columns of all shards, but only if the former is another one.
        """
        return fingerprint == self.fingerprint or fingerprint == self._earlier_fingerprint

    @cached_property
    def _earlier_fingerprint(self) -> str:
        return earlier_fingerprint(self.shards)

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
        return Sample(shard, shard.columns().key(row), shard.members(row))

    def key(self, ordinal: int) -> str:
        """A sample's key. Raises IndexError when there is no such sample."""
        number, row = self.locate(ordinal)
        return self.shards[number].columns().key(row)

    def all_keys(self) -> Iterator[str]:
        """The keys of all samples, in order."""
        return (key for shard in self.shards for key in shard.columns().all_keys())

    def find(self, key: str) -> int | None:
        """The ordinal of the first sample with this key, None if there is none; opens the columns up to there."""
        for number, shard in enumerate(self.shards):
            row = shard.columns().find(key)
            if row is not None:
                return int(self.starts[number]) + row
        return None

    def unique_key(self, ordinal: int) -> str:
        """A sample's key; where shards share keys, the number of the shard and the key: ``000003/KEY``.

        Of more than MOST_KEYS_COMPARED samples, the keys count as shared unread.
        """
        number, row = self.locate(ordinal)
        key = self.shards[number].columns().key(row)
        return key if self._keys_differ else f"{number:06d}/{key}"

    @cached_property
    def _keys_differ(self) -> bool:
        if len(self) > MOST_KEYS_COMPARED:
            return False
        hashes = np.concatenate([np.empty(0, np.uint64), *(shard.columns().key_hashes() for shard in self.shards)])
        hashes.sort()
        return not (hashes[1:] == hashes[:-1]).any()

    def path(self, shard: Shard) -> str:
        """Full path or URL of a shard."""
        return f"{shard.folder}/{shard.name}"

    def files(self, shard: Shard) -> list[tuple[str, Content]]:
        """(path or URL, what it is) of a shard and of its columns."""
        stored = shard.stored
        columns = [] if isinstance(stored, Columns) else [(shard.store.path(shard.name), stored)]
        return [(self.path(shard), shard), *columns]

    def read_through(self, cache: Cache | None, most_open: int) -> None:
        """From here on keep the columns of so many shards open, and fetch those of URLs through a cache, if any."""
        for store in self._stores:
            store.cache, store.most_open = cache or store.cache, most_open

    def close(self) -> None:
        """Close all columns; they open again when they are needed."""
        for store in self._stores:
            store.close()

    @cached_property
    def _stores(self) -> list[ColumnStore]:
        return list({id(shard.store): shard.store for shard in self.shards}.values())

    @cached_property
    def extensions(self) -> list[str]:
        """What follows the key in the names of all members, sorted."""
        return sorted({extension for several in {shard.extensions for shard in self.shards} for extension in several})

    @cached_property
    def patterns(self) -> dict[Pattern, int]:
        """How many samples have each pattern."""
        found: dict[Pattern, int] = {}
        for shard in self.shards:
            for states, count in shard.patterns:
                pattern = Pattern(shard.extensions, states)
                found[pattern] = found.get(pattern, 0) + count
        return found

    def count(self, members: Collection[str]) -> int:
        """How many samples have any of these members."""
        return sum(count for pattern, count in self.patterns.items() if pattern.of(members))

    def holding(self, members: Collection[str]) -> Iterator[np.ndarray]:
        """Shard by shard, int64: the ordinals of the samples that have any of these members, in order."""
        for number, shard in enumerate(self.shards):
            yield np.flatnonzero(shard.having(members)) + int(self.starts[number])

    def first(self, patterns: Collection[Pattern]) -> Sample:
        """The first sample with one of these patterns. Raises LookupError if there is none."""
        for number, shard in enumerate(self.shards):
            wanted = tuple(s for s, _ in shard.patterns if Pattern(shard.extensions, s) in patterns)
            if wanted:
                return self.sample(int(self.starts[number]) + int(shard.columns().having(wanted)[0]))
        raise LookupError(f"{self.folder} has no such sample")

    def on_side(self, side: Side) -> Index:
        """The index of the samples on that side, by the hashes of their keys; shards without any stay out. Opens all
        columns."""
        shards = [shard.on_side(side) for shard in self.shards]
        return Index(self.folder, [shard for shard in shards if shard.samples])

    def kept(self, keep: Callable[[Pattern], bool]) -> Index:
        """The index of the samples with these patterns; shards without any stay out."""
        known: dict[Pattern, bool] = {}

        def asked(pattern: Pattern) -> bool:
            if pattern not in known:
                known[pattern] = keep(pattern)
            return known[pattern]

        shards = [shard.only(asked) for shard in self.shards]
        return Index(self.folder, [shard for shard in shards if shard.samples])
