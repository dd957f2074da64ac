"""The texts of one modality, one after the other, as training decodes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from mmpretrain.config.data import DataConfig, ModalityConfig, Verify
from mmpretrain.config.kind import Kind
from mmpretrain.data.decode import SampleError
from mmpretrain.data.discovery import Discovery, no_shards
from mmpretrain.data.index import ShardError, is_remote
from mmpretrain.data.samples import captions_of
from mmpretrain.data.split import holds_shards, split_folder
from mmpretrain.data.stream import Stream
from mmpretrain.words import listed

REPORT_EVERY = 1000  # samples


class Texts:
    """The texts of a modality in a split: every caption where a sample has several.

    data: folder or URL of a data set. modality: None for its only text. limit: of a larger split only these many
    samples, evenly spaced; None: all. member, field: as in ``data.modalities.NAME``; empty: as the names of members
    say. Raises ShardError if there is no such split or modality.

    Attributes: modality; samples: how many are read; skipped: how many of them could not be, after an iteration, and
    cause: why the first of them.
    """

    def __init__(
        self,
        data: str,
        split: str,
        modality: str | None = None,
        limit: int | None = None,
        member: Sequence[str] = (),
        field: Sequence[str] = (),
    ) -> None:
        _refuse_raw(data, split)
        found = _texts_in(data) if not member else {}
        self.modality = _chosen(data, modality, found)
        entry = found.get(self.modality, ModalityConfig(Kind.text))
        entry.member, entry.field = list(member) or entry.member, list(field) or entry.field
        name = PurePosixPath(data.rstrip("/")).name or "data"
        settings = DataConfig(name, data, modalities={self.modality: entry}, classes=None, verify=Verify.never)
        self._reader = Stream(settings, split, 0, 0, 1, processor=dict).reader
        size = len(self._reader.index)
        self.samples = size if limit is None else min(limit, size)
        self.skipped, self.cause = 0, ""

    def __call__(self, progress: Callable[[int], None] = lambda done: None) -> Iterator[str]:
        """The texts, in the order of the index, one sample in memory at a time.

        progress: called now and then with the number of samples read. Raises ShardError.
        """
        self.skipped, size = 0, len(self._reader.index)
        for number in range(self.samples):
            if number % REPORT_EVERY == 0:
                progress(number)
            try:
                yield from self._of(number * size // self.samples)
            except SampleError as error:
                self.skipped += 1
                self.cause = self.cause or str(error)
        progress(self.samples)

    def _of(self, ordinal: int) -> list[str]:
        holders = self._reader.members_of(ordinal).modalities[self.modality]
        texts = captions_of(self._reader.sample(ordinal), Kind.text, holders)
        if not texts:
            raise SampleError(f"it has no text for {self.modality!r}")
        return texts


def _refuse_raw(data: str, split: str) -> None:
    """Raise ShardError for what is no data set of shards; one that lacks an index or this split is told so later."""
    if not is_remote(data) and not holds_shards(split_folder(data, split)) and not any(Path(data).rglob("*.tar")):
        raise no_shards(data)


def _texts_in(data: str) -> dict[str, ModalityConfig]:
    """The texts of a data set that a run would find by itself; none where it would ask for more."""
    try:
        modalities = Discovery().data(data, {})["modalities"]
    except ShardError:
        return {}
    return {
        name: ModalityConfig(Kind.text, field=list(entry.get("field", [])))
        for name, entry in modalities.items()
        if entry["kind"] == Kind.text.value
    }


def _chosen(data: str, modality: str | None, found: dict[str, ModalityConfig]) -> str:
    """``modality``, or the only text that there is. Raises ShardError."""
    if modality is not None:
        return modality
    if len(found) == 1:
        return next(iter(found))
    there = f"{data} has the texts {listed(sorted(found))}" if found else f"{data}: no text is found by itself"
    raise ShardError(f"{there}: name one with --modality")


def length_counts(lengths: Iterator[int], longest: int = 1 << 20) -> np.ndarray:
    """How many texts have 0, 1, 2, ... tokens: int64, as long as it must be. Longer ones count as ``longest``."""
    counts = np.zeros(64, dtype=np.int64)
    for length in lengths:
        place = min(length, longest)
        if place >= len(counts):
            counts = np.concatenate([counts, np.zeros(place + 1, dtype=np.int64)])
        counts[place] += 1
    return counts
