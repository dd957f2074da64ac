"""The samples of one split in their new order, whichever data sets they come from."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mmpretrain.data.index import is_remote
from mmpretrain.data.reader import Identity, Reader
from mmpretrain.data.writing import RawSample
from shards.rewrite.order import Order, in_place


@dataclass(frozen=True)
class Origin:
    """One folder of tars that samples come from. prefixes: what is put before the keys of each of its shards."""

    reader: Reader
    prefixes: tuple[str, ...]

    def sample(self, ordinal: int) -> RawSample:
        """One sample with its new key, each of its members byte for byte.

        Raises:
            ShardError: its shard is missing, or not the one that was indexed, or changes while it is read.
            SampleError: one of its members is too large to be read.
        """
        number, _ = self.reader.index.locate(ordinal)
        found = self.reader.sample(ordinal)
        self.reader.check(number)
        members = {name: value for name, value in found.items() if not name.startswith("__")}
        return {"__key__": self.prefixes[number] + found["__key__"], **members}


@dataclass(frozen=True)
class SplitSamples:
    """A split of the new data set: all samples of its origins, one origin after the other, put in order."""

    origins: tuple[Origin, ...]
    order: Order = in_place

    def __len__(self) -> int:
        return int(self._starts[-1])

    def samples(self, start: int, stop: int) -> Iterator[RawSample]:
        """Those at the places [start, stop), one in memory at a time; raises as :meth:`Origin.sample`."""
        starts = self._starts
        for ordinal in self.order(np.arange(start, stop)).tolist():
            number = int(np.searchsorted(starts, ordinal, side="right")) - 1
            yield self.origins[number].sample(ordinal - int(starts[number]))

    def new_keys(self) -> Iterator[str]:
        """The key of every sample, in the order of the origins."""
        for origin in self.origins:
            for shard, prefix in zip(origin.reader.index.shards, origin.prefixes, strict=True):
                yield from (prefix + key for key in shard.columns().all_keys())

    @property
    def bytes(self) -> int:
        """Of all shards that are read."""
        return sum(shard.bytes for origin in self.origins for shard in origin.reader.index.shards)

    @property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(len(origin.reader.index) for origin in self.origins)], dtype=np.int64)


Place = tuple[int, int]
"""Number of an origin, and of a shard in it."""


def verify(samples: SplitSamples, known: dict[Place, Identity], workers: int) -> Iterator[tuple[Place, Identity]]:
    """Hash every local shard, so that no process has to do so again. known: those that were hashed before.

    What is yielded is remembered by the readers. Raises ShardError for a shard that is not the one that was indexed.
    """
    todo = []
    for at, origin in enumerate(samples.origins):
        for number, shard in enumerate(origin.reader.index.shards):
            if (at, number) in known:
                origin.reader.verified[number] = known[at, number]
            elif not is_remote(origin.reader.index.path(shard)):
                todo.append((at, number))
    with ThreadPoolExecutor(workers) as pool:
        hashed = pool.map(lambda place: _hashed(samples.origins[place[0]].reader, place[1]), todo)
        try:
            for (at, number), identity in zip(todo, hashed, strict=True):
                samples.origins[at].reader.verified[number] = identity
                yield (at, number), identity
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _hashed(reader: Reader, number: int) -> Identity:
    own = Reader(reader.index)  # a reader belongs to one thread
    own.check(number)
    own.close()
    return own.verified[number]
