"""The stream: one rank's batches, a function of (index, seed, step).

Loader processes get step numbers and return finished batches in order, so that neither their number nor the number
of ranks changes what a step holds, and the state of the stream is one integer: the next step.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mmpretrain.config.data import DataConfig
from mmpretrain.data.batch import Batch
from mmpretrain.data.batcher import Batcher, Processor
from mmpretrain.data.cache import Cache, cache_folder
from mmpretrain.data.index import Index, ShardError, is_remote
from mmpretrain.data.pictures import Training
from mmpretrain.data.plan import Plan
from mmpretrain.data.quarantine import BadDataError, Quarantine
from mmpretrain.data.reader import Reader
from mmpretrain.data.split import open_split

BATCHES_AHEAD = 2  # per loader process
MAX_OPEN = 64  # local shards
WINDOWS_IN_CACHE = 3  # the one being read, the one that slower ranks still read, the one being fetched

Rows = tuple[np.ndarray, ...]  # what a batch is made of: positions and ordinals, or ordinals alone


class Stream:
    """The batches of one rank.

    config: data section. split: folder below config.path. seed: of the order. processor: raw objects of a batch ->
    tensors, sources: the same for what augmentations start from, None for nothing (see :class:`Batcher`).
    quarantine: log of replaced samples, None for none. device: where batches are moved, and where the second half of a
    processor with halves (:class:`Halves`) finishes them; None: where they are made. training: what is done to pictures
    for training alone, None for other streams.

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
        opened = open_split(config, split)
        self.index = opened.index
        sizes = tuple(shard.samples for shard in self.index.shards)
        self.plan = Plan(sizes, seed, config.window, config.global_batch)
        self._cache = _open_cache(config, self.index)
        self._quarantine = Quarantine(quarantine, config.max_bad_fraction)
        self._asked: set[int] = set()
        max_open = config.window if self._cache else max(MAX_OPEN, config.window)
        self.reader = Reader(self.index, config.verify, self._cache, opened.members, max_open, config.build)
        self._batcher = Batcher(config, self.reader, self.plan, processor, sources, training)

    def batches(self, first: int, stop: int) -> Iterator[Batch]:
        """This rank's share of steps [first, stop). Any first step starts at once; nothing is replayed.

        Raises:
            ShardError: a shard is missing or is not the one that was indexed.
            BadDataError: more samples were replaced than config.max_bad_fraction allows.
        """
        rows = partial(self.plan.slice, rank=self.rank, world_size=self.world_size)
        steps = range(first, stop)
        for step, batch in zip(steps, self._load(rows, steps), strict=True):
            self._prefetch(step)
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
        chosen = np.arange(size) if limit is None or size <= limit else np.arange(limit) * size // limit
        rows = partial(_split_rows, first=self.rank * batch_size, stride=stride, batch_size=batch_size, chosen=chosen)
        first_texts = partial(self._batcher.batch, drawn=False)
        for batch in self._load(rows, range(-(-len(chosen) // stride)), first_texts):
            yield replace(batch, positions=batch.sample_ids)

    def listed_batches(self, batches: Sequence[np.ndarray | Sequence[int]]) -> Iterator[Batch]:
        """The samples with these ordinals ([b] each), a batch at a time, the same whatever the rank.

        ``positions`` are the ordinals. Samples that cannot be used have no substitute and no row, and ``replaced``
        names them (see :meth:`Batcher.readable`). Raises as :meth:`batches` does.
        """
        rows = partial(_listed_rows, batches=batches)
        return self._load(rows, range(len(batches)), self._batcher.readable)

    def _load(
        self, rows: Callable[[int], Rows], numbers: range, make: Callable[..., Batch] | None = None
    ) -> Iterator[Batch]:
        """Batches by number, in order, made in the loader processes; counts what they replaced or left out.

        make: rows -> batch, by default with substitutes.
        """
        workers = self.config.workers
        if workers:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # fast tokenizers warn at each fork without it
        loader = DataLoader(
            _Batches(make or self._batcher.batch, rows),
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=BATCHES_AHEAD if workers else None,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # else the loader draws from the global one, which training relies on
        )
        for batch in loader:
            if isinstance(batch, Exception):
                raise batch
            left_out = sum(not entry.substitute for entry in batch.replaced)
            self._quarantine.record(len(batch) + left_out, batch.replaced)
            yield self._batcher.finished(batch if self._device is None else batch.to(self._device))

    def _prefetch(self, step: int) -> None:
        """Ask the cache for the shards that the loader reads next."""
        if self._cache is None:
            return
        position = (step + 1 + BATCHES_AHEAD * self.config.workers) * self.config.global_batch
        ahead = self.plan.shards_ahead(position)
        fresh = [self.index.shards[number] for number in ahead if number not in self._asked]
        self._asked = set(ahead)
        places = [place for shard in fresh for place in reversed(self.index.files(shard))]  # columns are needed first
        self._cache.prefetch([place for place in places if is_remote(place[0])])


class _Batches(Dataset):
    """Batches by number. What ends the run is returned: raised in a loader process, its message would be buried."""

    def __init__(self, make: Callable[..., Batch], rows: Callable[[int], Rows]) -> None:
        self._make, self._rows = make, rows

    def __getitem__(self, number: int) -> Batch | ShardError | BadDataError:
        try:
            return self._make(*self._rows(number))
        except (ShardError, BadDataError) as error:
            return error


def _split_rows(number: int, first: int, stride: int, batch_size: int, chosen: np.ndarray) -> Rows:
    """Rows of one batch among the chosen ordinals, in order; positions equal ordinals."""
    start = first + number * stride
    ordinals = chosen[np.minimum(np.arange(start, start + batch_size), len(chosen) - 1)]
    return ordinals, ordinals


def _listed_rows(number: int, batches: Sequence[np.ndarray | Sequence[int]]) -> Rows:
    return (np.asarray(batches[number], np.int64),)


def _open_cache(config: DataConfig, index: Index) -> Cache | None:
    """The node's cache, if the shards are remote and it can hold what is in use at one time."""
    if not any(is_remote(path) for path in config.paths):
        return None
    limit = int(config.cache_gb * 1e9)
    sizes = sorted((sum(content.bytes for _, content in index.files(shard)) for shard in index.shards), reverse=True)
    needed = sum(sizes[: WINDOWS_IN_CACHE * config.window])
    if needed > limit:
        raise ShardError(
            f"data.cache_gb is {config.cache_gb}, but {WINDOWS_IN_CACHE} windows of {config.window} shards of"
            f" {index.folder} may need {needed / 1e9:.3g}: raise it or lower data.window"
        )
    return Cache(cache_folder(), limit)


def _start_worker(_: int) -> None:
    """Slurm signals every process of a step; the warning before the end is for the training process alone."""
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
