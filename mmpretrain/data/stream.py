"""The stream: one rank's batches, a function of (index, seed, step).

Loader processes get step numbers and return finished batches in order, so that neither their number nor the number
of ranks changes what a step holds, and the state of the stream is one integer: the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mmpretrain.config.data import DataConfig
from mmpretrain.data.batch import Batch
from mmpretrain.data.batcher import Batcher, Processor
from mmpretrain.data.cache import Cache, cache_folder
from mmpretrain.data.counters import Counts
from mmpretrain.data.index import ShardError, is_remote
from mmpretrain.data.loader import BATCHES_AHEAD, Watch, load
from mmpretrain.data.mixture import Mixture
from mmpretrain.data.pictures import Training
from mmpretrain.data.quarantine import Quarantine
from mmpretrain.data.reader import Reader
from mmpretrain.data.sources import OpenedData, open_data
from mmpretrain.data.stores import Remote
from mmpretrain.words import without_secrets

MAX_OPEN = 64  # local shards
WINDOWS_IN_CACHE = 3  # the one being read, the one that slower ranks still read, the one being fetched

Rows = tuple[np.ndarray, ...]  # what a batch is made of: positions and ordinals, or ordinals alone


class Stream:
    """The batches of one rank.

    config: data section. split: folder below config.path, or below those of the sources. seed: of the order. processor:
    raw objects of a batch -> tensors, sources: the same for what augmentations start from, None for nothing (see
    :class:`Batcher`). quarantine: log of replaced samples, None for none. device: where batches are moved, and where
    the second half of a processor with halves (:class:`Halves`) finishes them; None: where they are made. training:
    what is done to pictures for training alone, None for other streams.

    Attributes: index, plan, reader.

    Raises:
        ShardError: the index is missing, damaged or empty, no member holds a modality, or the cache is too small for
            the window.
    """

    def __init__(
        self,
        config: DataConfig,
        split: str,
        seed: int,
        rank: int,
        world_size: int,
        processor: Processor,
        quarantine: Path | None = None,
        sources: Processor | None = None,
        device: torch.device | None = None,
        training: Training | None = None,
    ) -> None:
        self._device = device
        self.config, self.rank, self.world_size = config, rank, world_size
        opened = open_data(config, split)
        self.index = opened.index
        self.plan = opened.plan(config, split, seed)
        self._cache = _open_cache(config, opened)
        self._quarantine = Quarantine(quarantine, config.max_bad_fraction)
        self._asked: set[int] = set()
        window = config.window * len(opened.parts)
        max_open = window if self._cache else max(MAX_OPEN, window)
        self.reader = Reader(self.index, config.verify, self._cache, opened.members, max_open, config.build)
        self._batcher = Batcher(config, self.reader, self.plan, processor, sources, training)

    def key(self, ordinal: int) -> str:
        """The key of a sample, as it is recorded: of a mixture ``SOURCE/KEY``, since sources may share keys."""
        key = self.index.sample(ordinal).key
        return f"{self.plan.source_name(ordinal)}/{key}" if isinstance(self.plan, Mixture) else key

    def batches(self, first: int, stop: int) -> Iterator[Batch]:
        """This rank's share of steps [first, stop). Any first step starts at once; nothing is replayed.

        Raises:
            ShardError: a shard is missing or is not the one that was indexed.
            BadDataError: more samples were replaced than config.max_bad_fraction allows.
            LoaderError: a loader process died, or config.prefetch_mb is too small for a batch.
        """
        rows = partial(self.plan.slice, rank=self.rank, world_size=self.world_size)
        steps = range(first, stop)
        started = partial(self._prefetch, first)
        for step, batch in zip(steps, self._load(rows, steps, started=started), strict=True):
            self._prefetch(step + 1 + BATCHES_AHEAD * self.config.workers)
            yield batch

    def split_batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """The split once in index order: every rank yields equally many batches of ``batch_size`` rows.

        limit: of a larger split only this many samples, evenly spaced. Batch i of rank r starts at the chosen sample
        number (i * world_size + r) * batch_size, so that gathering a batch over the ranks keeps the order.
        ``positions`` are ordinals; rows past the end repeat the last sample, and the row
        of a replaced sample has its substitute's ordinal: whoever drops repeated positions counts each sample once.
        Raises as :meth:`batches` does.
        """
        size, stride = len(self.index), batch_size * self.world_size
        count = size if limit is None else min(size, limit)
        first = self.rank * batch_size
        rows = partial(_split_rows, first=first, stride=stride, batch_size=batch_size, size=size, count=count)
        first_texts = partial(self._batcher.batch, drawn=False)
        for batch in self._load(rows, range(-(-count // stride)), first_texts):
            yield replace(batch, positions=batch.sample_ids, on_host=None)

    def listed_batches(self, batches: Sequence[np.ndarray | Sequence[int]]) -> Iterator[Batch]:
        """The samples with these ordinals ([b] each), a batch at a time, the same whatever the rank.

        ``positions`` are the ordinals. Samples that cannot be used have no substitute and no row, and ``replaced``
        names them (see :meth:`Batcher.readable`). Raises as :meth:`batches` does.
        """
        rows = partial(_listed_rows, batches=batches)
        return self._load(rows, range(len(batches)), self._batcher.readable)

    def _load(
        self,
        rows: Callable[[int], Rows],
        numbers: range,
        make: Callable[..., Batch] | None = None,
        started: Callable[[], None] | None = None,
    ) -> Iterator[Batch]:
        """Batches by number, in order, made in the loader processes; counts what they replaced or left out.

        make: rows -> batch, by default with substitutes. started: called once the loader processes are there.
        """
        limit = self.config.prefetch_mb
        watch = Watch(self.reader.show, self._named)
        ahead = None if limit is None else int(limit * 1e6)
        make = make or self._batcher.batch
        for batch in load(make, rows, numbers, self.config.workers, ahead, watch, started):
            left_out = sum(not entry.substitute for entry in batch.replaced)
            self._quarantine.record(len(batch) + left_out, batch.replaced, self._sources_in(batch))
            # Of other ranks nothing is known here: a sample that could not be read has another one in its place.
            distinct = self.world_size == 1 and len(np.unique(batch.sample_ids.numpy())) == len(batch)
            batch = replace(batch, copies=not distinct)
            yield self._batcher.finished(batch if self._device is None else batch.to(self._device))

    def store_counts(self) -> Counts | None:
        """What fetching took on this rank, since the stream was opened; None for local data."""
        return None if self._cache is None else self._cache.counters.counts()

    def _named(self, ordinal: int) -> str:
        sample = self.index.sample(ordinal)
        return f"sample {sample.key!r} in {without_secrets(self.index.path(sample.shard))}"

    def _sources_in(self, batch: Batch) -> dict[str, int]:
        """Of a mixture, how many of the samples are of each source."""
        if not isinstance(self.plan, Mixture):
            return {}
        found = np.bincount(self.plan.source_of(batch.sample_ids.numpy()), minlength=len(self.plan.sources))
        return {source.name: count for source, count in zip(self.plan.sources, found.tolist(), strict=True)}

    def _prefetch(self, step: int) -> None:
        """Ask the cache for the shards that are read from this step on."""
        if self._cache is None:
            return
        ahead = self.plan.shards_ahead(step * self.config.global_batch)
        fresh = [self.index.shards[number] for number in ahead if number not in self._asked]
        self._asked = set(ahead)
        files = [file for shard in fresh for file in reversed(self.index.files(shard))]  # columns are needed first
        self._cache.prefetch([Remote(url, f.bytes, f.sha256) for url, f in files if is_remote(url)])


def _split_rows(number: int, first: int, stride: int, batch_size: int, size: int, count: int) -> Rows:
    """Rows of one batch among ``count`` ordinals of ``size``, evenly spaced, in order; positions equal ordinals."""
    start = first + number * stride
    ordinals = np.minimum(np.arange(start, start + batch_size), count - 1) * size // count
    return ordinals, ordinals


def _listed_rows(number: int, batches: Sequence[np.ndarray | Sequence[int]]) -> Rows:
    return (np.asarray(batches[number], np.int64),)


def _open_cache(config: DataConfig, opened: OpenedData) -> Cache | None:
    """The node's cache, if the shards are remote and it can hold what is in use at one time."""
    if not any(is_remote(path) for path in config.paths):
        return None
    limit = int(config.cache_gb * 1e9)
    needed = 0
    for part in opened.parts.values():  # each is read in windows of its own
        sizes = sorted((sum(c.bytes for _, c in part.index.files(shard)) for shard in part.index.shards), reverse=True)
        needed += sum(sizes[: WINDOWS_IN_CACHE * config.window])
    if needed > limit:
        raise ShardError(
            f"data.cache_gb is {config.cache_gb}, but {WINDOWS_IN_CACHE} windows of {config.window} shards of"
            f" {config.place if config.sources else opened.index.folder} may need {needed / 1e9:.3g}: raise it or lower"
            " data.window"
        )
    return Cache(cache_folder(), limit)
