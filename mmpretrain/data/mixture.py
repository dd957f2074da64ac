"""The order of a stream of several sources: a pure function of (their shards, shares, seed, position).

Every source has a plan of its own (see ``Plan``): its own epochs and windows, and a seed that follows from the run's
seed and its name, so that adding a source leaves the order inside the others alone. A block is one global batch. How
many samples of it are of which source, ``Quotas`` says; which of its positions, a permutation drawn by (seed, block).
The r-th sample of a source in the stream is the r-th of its own plan, so that the samples of a source come once per
epoch of it, whatever its share is.

Ordinals count through the joined index: all shards of the first source, then those of the second, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from mmpretrain.data.plan import Order, Plan, Recent, permutation
from mmpretrain.data.quotas import Quotas, Stage, whole_shares
from mmpretrain.data.seeds import sub_seed

LOOK_AHEAD = 64  # blocks: the shards of sources that begin within so many are fetched


@dataclass(frozen=True)
class MixedSource:
    """One source of a mixture.

    shard_sizes: samples per shard, in index order. weights: (stream position, weight from there on), by position, the
    first at 0; relative to those of the other sources at the same position.
    """

    name: str
    shard_sizes: tuple[int, ...]
    weights: tuple[tuple[int, Fraction], ...]

    def weight(self, position: int) -> Fraction:
        """The weight at a position of the stream."""
        return [weight for first, weight in self.weights if first <= position][-1]


class Mixture(Order):
    """Which sample stands at which position, of several sources. Asked as :class:`Plan` is.

    sources: in the order of the joined index. window, global_batch: as of :class:`Plan`.

    Raises ValueError if a source has no sample, or if at some position no weight is above 0.
    """

    def __init__(self, sources: tuple[MixedSource, ...], seed: int, window: int, global_batch: int) -> None:
        self.sources, self.seed, self.global_batch = sources, seed, global_batch
        seeds = [sub_seed(seed, 0, "source", source.name) for source in sources]
        pairs = zip(sources, seeds, strict=True)
        self._plans = [Plan(source.shard_sizes, own, window, global_batch) for source, own in pairs]
        self._quotas = Quotas(_stages(sources, global_batch), global_batch)
        sizes = [plan.epoch_size for plan in self._plans]
        self._first_ordinals = np.cumsum([0, *sizes]).tolist()
        self._first_shards = np.cumsum([0, *(len(source.shard_sizes) for source in sources)]).tolist()
        self._recent = Recent()

    @property
    def epoch_size(self) -> int:
        """Samples of all sources together."""
        return int(self._first_ordinals[-1])

    def samples(self, start: int, stop: int) -> np.ndarray:
        """The ordinals at positions [start, stop): int64 [stop - start].

        Raises ValueError unless 0 <= start <= stop.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"positions [{start}, {stop}) are not a range of the stream")
        pieces = [np.empty(0, np.int64)]
        while start < stop:
            block, inside = divmod(start, self.global_batch)
            count = min(self.global_batch - inside, stop - start)
            pieces.append(self._of_block(block, inside, inside + count))
            start += count
        return np.concatenate(pieces)

    def substitute(self, position: int, attempt: int) -> int:
        """The ordinal that stands in at ``position``: of the same source, and as :meth:`Plan.substitute` chooses."""
        block, inside = divmod(position, self.global_batch)
        layout = self._layout(block)
        number = int(layout[inside])
        own = self._quotas.before(block)[number] + int(np.count_nonzero(layout[:inside] == number))
        return int(self._first_ordinals[number]) + self._plans[number].substitute(own, attempt)

    def shards_ahead(self, position: int, windows: int = 2) -> list[int]:
        """Numbers of the shards in the windows of every source that is read at ``position`` or soon after: the one that
        it is in and the ``windows - 1`` after it; all by the position at which they are needed."""
        block = position // self.global_batch
        now, soon = self._quotas.shares(block), self._quotas.shares(block + LOOK_AHEAD)
        needed: list[tuple[Fraction, int]] = []
        for number, (before, _) in enumerate(self.by_source(position).values()):
            share = now[number] or soon[number]
            start = before
            for _ in range(windows if share else 0):
                shards, end = self._plans[number].window_at(start)
                first = int(self._first_shards[number])
                needed += [(max(0, start - before) / share, first + shard) for shard in shards]
                start = end
        return list(dict.fromkeys(shard for _, shard in sorted(needed, key=lambda entry: entry[0])))

    def source_of(self, ordinals: np.ndarray) -> np.ndarray:
        """The number of the source of each sample: int64 [n]."""
        return np.searchsorted(self._first_ordinals, ordinals, side="right") - 1

    def source_name(self, ordinal: int) -> str:
        """The name of the source that a sample is of."""
        return self.sources[int(self.source_of(np.array([ordinal]))[0])].name

    def by_source(self, position: int) -> dict[str, tuple[int, int]]:
        """Source -> (its samples before ``position``, samples that it has)."""
        block, inside = divmod(position, self.global_batch)
        counts = np.array(self._quotas.before(block))
        if inside:
            counts += np.bincount(self._layout(block)[:inside], minlength=len(counts))
        named = zip(self.sources, counts.tolist(), self._plans, strict=True)
        return {source.name: (count, plan.epoch_size) for source, count, plan in named}

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the order follows from, as plain values: for a checkpoint, which fits no other mixture."""
        return {
            "sources": {source.name: sum(source.shard_sizes) for source in self.sources},
            "stages": [[stage.first * self.global_batch, list(stage.shares)] for stage in self._quotas.stages],
        }

    def stages(self) -> list[tuple[int, Mapping[str, Fraction]]]:
        """(first position, source -> share) of every stage."""
        names = [source.name for source in self.sources]
        return [
            (stage.first * self.global_batch, dict(zip(names, self._quotas.shares(stage.first), strict=True)))
            for stage in self._quotas.stages
        ]

    def _of_block(self, block: int, start: int, stop: int) -> np.ndarray:
        """The ordinals at places [start, stop) of a block."""
        layout, before = self._layout(block), self._quotas.before(block)
        ordinals = np.empty(stop - start, np.int64)
        for number in np.unique(layout[start:stop]).tolist():
            rows = layout[start:stop] == number
            own = before[number] + int(np.count_nonzero(layout[:start] == number))
            found = self._plans[number].samples(own, own + int(np.count_nonzero(rows)))
            ordinals[rows] = found + self._first_ordinals[number]
        return ordinals

    def _layout(self, block: int) -> np.ndarray:
        """The number of the source at each place of a block: int64 [global_batch]."""

        def make() -> np.ndarray:
            sources = np.repeat(np.arange(len(self.sources)), self._quotas.of(block))
            key = np.array([sub_seed(self.seed, 0, "mixture"), block], dtype=np.uint64)
            return sources[permutation(np.random.Philox(key=key), len(sources))]

        return self._recent.get(block, make)


def _stages(sources: tuple[MixedSource, ...], block: int) -> list[Stage]:
    """Stages by block: one that is asked for inside a block starts with the next; later ones for the same block win."""
    found: dict[int, Stage] = {}
    for position in sorted({first for source in sources for first, _ in source.weights}):
        first = -(-position // block)
        found[first] = Stage(first, whole_shares([source.weight(position) for source in sources], block))
    return list(found.values())
