"""Where the new shards begin and end: by samples or by bytes, from the index alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmpretrain.data.index import Index, Shard
from mmpretrain.data.writing import BuildError
from shards.build_plan import SHARD_BYTES

BLOCK = 512
MEGABYTE = 1_000_000


class Piece(NamedTuple):
    """One new shard: the places [start, stop) of a split.

    split: its folder below the data set, '' for the data set's own.
    """

    split: str
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The shard's path below the data set, without its suffix."""
        return f"{self.split}/shard-{self.number:06d}".lstrip("/")


@dataclass(frozen=True)
class ShardSize:
    """How large the new shards become: a number of samples, else of bytes."""

    samples: int | None = None
    bytes: int = SHARD_BYTES

    @classmethod
    def of(cls, samples: int | None, megabytes: float | None) -> ShardSize:
        """As the options say. Raises BuildError if both are given."""
        if samples is not None and megabytes is not None:
            raise BuildError("--samples-per-shard and --mb-per-shard: give one of them")
        return cls(samples) if megabytes is None else cls(bytes=int(megabytes * MEGABYTE))


def cut_pieces(split: str, indexes: Iterable[Index], size: ShardSize) -> list[Piece]:
    """Shards that hold as many samples as fit; one that is larger than a shard gets its own."""
    indexes = list(indexes)
    total = sum(map(len, indexes))
    if size.samples is not None:
        starts = list(range(0, total, size.samples))
    else:
        starts = list(_starts_by_bytes(indexes, size.bytes))
    return _pieces(split, [*starts, total])


def cut_evenly(split: str, indexes: Iterable[Index], size: ShardSize) -> list[Piece]:
    """Shards of the same number of samples, which is as many as fit on average: for an order that mixes sizes."""
    indexes = list(indexes)
    total = sum(map(len, indexes))
    if size.samples is not None:
        return cut_pieces(split, indexes, size)
    needed = sum(int(tar_bytes(shard).sum()) for index in indexes for shard in index.shards)
    fitting = max(1, size.bytes * total // max(1, needed))
    return cut_pieces(split, indexes, ShardSize(fitting))


def tar_bytes(shard: Shard) -> np.ndarray:
    """int64 [samples]: what each sample takes in a tar, headers and padding included (but for those of long names)."""
    sizes = shard.sizes(shard.extensions)
    return np.where(sizes >= 0, BLOCK + -(-sizes // BLOCK) * BLOCK, 0).sum(axis=1)


def _starts_by_bytes(indexes: list[Index], limit: int) -> Iterator[int]:
    """Where each shard begins; one source shard's sizes are in memory at a time."""
    at, used = 0, 0
    for index in indexes:
        for shard in index.shards:
            for size in tar_bytes(shard).tolist():
                if at == 0 or used + size > limit:
                    yield at
                    used = 0
                used += size
                at += 1


def _pieces(split: str, bounds: list[int]) -> list[Piece]:
    return [Piece(split, number, bounds[number], bounds[number + 1]) for number in range(len(bounds) - 1)]
