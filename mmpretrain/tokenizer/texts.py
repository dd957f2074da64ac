"""The texts of one modality, one after the other, as training decodes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import numpy as np

from mmpretrain.config.data import DataConfig, ModalityConfig, Verify
from mmpretrain.config.kind import Kind
from mmpretrain.data.decode import Raw, SampleError, decode
from mmpretrain.data.index import Index, ShardError, modality_of
from mmpretrain.data.stream import Stream

TEXT_SUFFIXES = (*Kind.text.row.suffixes, "json")  # of the members that a text modality may lie in
REPORT_EVERY = 1000  # samples


class Texts:
    """The texts of a modality in a split: every caption where a sample has several.

    data: folder or URL of a data set. modality: None for its only text. limit: of a larger split only these many
    samples, evenly spaced; None: all. Raises ShardError if there is no such split or modality.

    Attributes: modality; samples: how many are read; skipped: how many of them could not be, after an iteration.
    """

    def __init__(self, data: str, split: str, modality: str | None = None, limit: int | None = None) -> None:
        name = PurePosixPath(data.rstrip("/")).name or "data"
        settings = DataConfig(name, data, classes=None, verify=Verify.never)
        self._index = Stream(settings, split, 0, 0, 1, processor=dict).index
        self.modality = _chosen(self._index, modality)
        settings.modalities = {self.modality: ModalityConfig(Kind.text)}
        self._reader = Stream(settings, split, 0, 0, 1, processor=dict).reader
        size = len(self._index)
        self.samples = size if limit is None else min(limit, size)
        self.skipped = 0

    def __call__(self, progress: Callable[[int], None] = lambda done: None) -> Iterator[str]:
        """The texts, in the order of the index, one sample in memory at a time.

        progress: called now and then with the number of samples read. Raises ShardError.
        """
        self.skipped, size = 0, len(self._index)
        for number in range(self.samples):
            if number % REPORT_EVERY == 0:
                progress(number)
            try:
                yield from self._of(number * size // self.samples)
            except SampleError:
                self.skipped += 1
        progress(self.samples)

    def _of(self, ordinal: int) -> list[str]:
        sample = self._reader.sample(ordinal)
        members = [name for name in sample if not name.startswith("__") and modality_of(name) == self.modality]
        return [text for name in members for text in _several(decode(name, sample[name], Kind.text))]


def _several(value: Raw) -> list[str]:
    return [value] if isinstance(value, str) else [str(text) for text in value]  # type: ignore[union-attr]


def _chosen(index: Index, modality: str | None) -> str:
    """``modality``, if it is a text of these shards; their only text for None. Raises ShardError."""
    extensions = {extension for shard in index.shards for extension in shard.extensions}
    texts = sorted({modality_of(name) for name in extensions if name.rpartition(".")[2] in TEXT_SUFFIXES} - {""})
    there = f"{index.folder} has the texts {', '.join(texts)}" if texts else f"{index.folder} has no texts"
    if modality is None and len(texts) == 1:
        return texts[0]
    if modality is None:
        raise ShardError(f"{there}: name one with --modality")
    if modality not in texts:
        raise ShardError(f"--modality is {modality}: {there}")
    return modality


def length_counts(lengths: Iterator[int], longest: int = 1 << 20) -> np.ndarray:
    """How many texts have 0, 1, 2, ... tokens: int64, as long as it must be. Longer ones count as ``longest``."""
    counts = np.zeros(64, dtype=np.int64)
    for length in lengths:
        place = min(length, longest)
        if place >= len(counts):
            counts = np.concatenate([counts, np.zeros(place + 1, dtype=np.int64)])
        counts[place] += 1
    return counts
