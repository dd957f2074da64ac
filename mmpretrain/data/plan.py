"""The order of the stream: a pure function of (samples per shard, seed, window, global batch, position).

The stream is endless: epoch after epoch, each a permutation of the data set. Epoch e permutes the shards with
Philox(seed, e), takes them in groups of ``window`` and permutes the samples inside each group. Only the group
that holds a position is ever materialized, so a billion samples cost nothing at the start. Ranks and loader workers
do not enter: step n is positions [n * global_batch, (n + 1) * global_batch) and rank r takes a contiguous slice,
so that every sample comes once per epoch and all ranks make the same number of steps, for any number of ranks.

Terms: a sample's *ordinal* is its number in the index; a *position* is a place in the stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_SUBSTITUTES = 2**64 - 1  # a second key word that no epoch reaches
_NEARBY_ATTEMPTS = 8


class Order(ABC):
    """A stream of samples by position. global_batch: samples per step over all ranks."""

    global_batch: int

    @abstractmethod
    def samples(self, start: int, stop: int) -> np.ndarray:
        """The ordinals at positions [start, stop): int64 [stop - start].

        Raises ValueError unless 0 <= start <= stop.
        """

    def sample(self, position: int) -> int:
        """The ordinal at ``position``."""
        return int(self.samples(position, position + 1)[0])

    def slice(self, step: int, rank: int, world_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Rank ``rank``'s share of step ``step``: positions and ordinals, int64 [global_batch / world_size] each.

        Raises ValueError if the ranks do not divide the global batch.
        """
        local, rest = divmod(self.global_batch, world_size)
        if rest:
            raise ValueError(f"global_batch {self.global_batch} is not divisible by the {world_size} ranks")
        start = step * self.global_batch + rank * local
        return np.arange(start, start + local), self.samples(start, start + local)


@dataclass(frozen=True)
class Plan(Order):
    """Which sample stands at which position.

    shard_sizes: samples per shard, in index order. seed: any integer, taken modulo 2**64. window: shards whose
    samples are shuffled together. global_batch: samples per step over all ranks; it may exceed the data set.
    Raises ValueError if there is no sample, or if window or global_batch is below 1.
    """

    shard_sizes: tuple[int, ...]
    seed: int
    window: int
    global_batch: int
    _recent: Recent = field(default_factory=lambda: Recent(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(self.shard_sizes, default=0) < 0 or sum(self.shard_sizes) == 0:
            raise ValueError(
                f"the plan has no sample: {len(self.shard_sizes)} shards with {sum(self.shard_sizes)} samples"
            )
        if min(self.window, self.global_batch) < 1:
            raise ValueError(f"window is {self.window} and global_batch {self.global_batch}: both must be at least 1")

    @property
    def epoch_size(self) -> int:
        """Samples per epoch."""
        return int(self._offsets[-1])

    def samples(self, start: int, stop: int) -> np.ndarray:
        """The ordinals at positions [start, stop): int64 [stop - start].

        Raises ValueError unless 0 <= start <= stop.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"positions [{start}, {stop}) are not a range of the stream")
        return np.concatenate([np.empty(0, np.int64), *self._pieces(start, stop)])

    def substitute(self, position: int, attempt: int) -> int:
        """The ordinal that stands in at ``position`` when what came before could not be read.

        The first attempts stay inside the position's window, whose shards are at hand; later ones go anywhere.
        """
        drawn = int(self._bits(_SUBSTITUTES, (attempt, position)).random_raw())
        if attempt >= _NEARBY_ATTEMPTS:
            return drawn % self.epoch_size
        ordinals = self._ordinals(*self._window_at(position)[:2])
        return int(ordinals[drawn % len(ordinals)])

    def shards_ahead(self, position: int, windows: int = 2) -> list[int]:
        """Numbers of the shards in the window of ``position`` and in the ``windows - 1`` after it, in reading order."""
        found: list[int] = []
        for _ in range(windows):
            shards, position = self.window_at(position)
            found += shards
        return list(dict.fromkeys(found))

    def window_at(self, position: int) -> tuple[list[int], int]:
        """Numbers of the shards in the window of ``position``, and the position at which the next one starts."""
        epoch, window, first = self._window_at(position)
        return self._shards(epoch, window).tolist(), first + len(self._ordinals(epoch, window))

    def by_source(self, position: int) -> dict[str, tuple[int, int]]:
        """Of a mixture, source -> (its samples before ``position``, samples that it has); here there is no source."""
        return {}

    @property
    def facts(self) -> dict[str, Any]:
        """Of a mixture, what its order follows from; here everything stands in index and config."""
        return {}

    def _pieces(self, start: int, stop: int) -> Iterator[np.ndarray]:
        while start < stop:
            epoch, window, first = self._window_at(start)
            piece = self._ordinals(epoch, window)[start - first : stop - first]
            start += len(piece)
            yield piece

    def _window_at(self, position: int) -> tuple[int, int, int]:
        """Epoch, window in it, and the position at which that window starts."""
        epoch, inside = divmod(position, self.epoch_size)
        starts = self._epoch(epoch)[1]
        window = int(np.searchsorted(starts, inside, side="right")) - 1
        return epoch, window, position - inside + int(starts[window])

    def _shards(self, epoch: int, window: int) -> np.ndarray:
        return self._epoch(epoch)[0][window * self.window : (window + 1) * self.window]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Shard order of an epoch, and where in the epoch each window starts."""

        def make() -> tuple[np.ndarray, np.ndarray]:
            order = permutation(self._bits(epoch, (0, 0)), len(self.shard_sizes))
            sizes = np.diff(self._offsets)[order]
            per_window = np.add.reduceat(sizes, np.arange(0, len(sizes), self.window))
            return order, np.cumsum(per_window) - per_window

        return self._recent.get(("epoch", epoch), make)

    def _ordinals(self, epoch: int, window: int) -> np.ndarray:
        """The samples of one window in stream order: int64 [samples in its shards]."""

        def make() -> np.ndarray:
            offsets = self._offsets
            parts = [np.arange(offsets[shard], offsets[shard + 1]) for shard in self._shards(epoch, window)]
            ordinals = np.concatenate(parts)
            return ordinals[permutation(self._bits(epoch, (0, window + 1)), len(ordinals))]

        return self._recent.get((epoch, window), make)

    @property
    def _offsets(self) -> np.ndarray:
        """Ordinal of each shard's first sample, and the total: int64 [shards + 1]."""
        return self._recent.get("offsets", lambda: np.concatenate([[0], np.cumsum(self.shard_sizes, dtype=np.int64)]))

    def _bits(self, stream: int, counter: tuple[int, int]) -> np.random.Philox:
        """Random bits that belong to (seed, stream, counter): streams with different counters never overlap."""
        key = np.array([self.seed % 2**64, stream], dtype=np.uint64)
        return np.random.Philox(key=key, counter=np.array([0, 0, *counter], dtype=np.uint64))


class Recent:
    """The values used last (epochs, windows), by key. A pickled copy starts empty: workers make their own."""

    capacity = 8

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of ``key``, made now if it is not among the recent ones."""
        if key not in self._values:
            value = make()
            self._values[key] = value
            if len(self._values) > self.capacity:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"_values": OrderedDict()}


def permutation(bits: np.random.Philox, size: int) -> np.ndarray:
    """A permutation of ``range(size)``: int64 [size].

    Sorting raw bits, because numpy promises that those never change, which it does not for ``Generator.permutation``.
    """
    return np.argsort(bits.random_raw(size), kind="stable")
