"""Counts of a split: what its samples measure, what is dropped and why, the labels."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch, Inputs
from mmpretrain.data.samples import captions_of
from mmpretrain.data.stream import Stream
from mmpretrain.preview.opening import OpenedConfig, looking
from mmpretrain.preview.plain import KindPreview

BATCH = 64
BINS = 24
CAUSES, EXAMPLES = 12, 5  # that are listed
MOST_WORDS = 8


@dataclass(frozen=True)
class Histogram:
    """Of one quantity. counts: samples per bin. limit: what is above it is cut, None for no limit."""

    counts: list[int]
    samples: int
    smallest: float
    median: float
    mean: float
    largest: float
    limit: float | None = None
    above: int = 0


@dataclass
class Dropped:
    """Samples that cannot be used for one reason. cause: of the first one. examples: (key, shard) of some."""

    cause: str
    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class ModalityCounts:
    """Of one modality. numbers: quantity -> values. words: property -> how often each value. absent: samples without
    it."""

    numbers: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    words: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    absent: int = 0

    def histograms(self, limits: dict[str, float]) -> dict[str, Histogram]:
        """Quantity -> histogram. limits: quantity -> the most that reaches the model."""
        return {name: histogram(np.array(values), limits.get(name)) for name, values in self.numbers.items()}


@dataclass
class SplitCounts:
    """Of one split, counted on ``looked_at`` of its ``samples``, of all captions of each. sizes: extension -> bytes of
    members."""

    samples: int
    looked_at: int = 0
    usable: int = 0
    dropped: dict[str, Dropped] = field(default_factory=dict)
    labels: Counter[int] = field(default_factory=Counter)
    modalities: dict[str, ModalityCounts] = field(default_factory=lambda: defaultdict(ModalityCounts))
    sizes: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    @property
    def unusable(self) -> int:
        """How many of those looked at are dropped."""
        return self.looked_at - self.usable

    @property
    def causes(self) -> list[Dropped]:
        """The commonest reasons, commonest first."""
        return sorted(self.dropped.values(), key=lambda entry: -entry.count)[:CAUSES]


def count_split(
    opened: OpenedConfig, split: str, most: int | None, progress: Callable[[int, int], None] = lambda done, total: None
) -> SplitCounts:
    """Read samples of a split, evenly spaced, through the code of training.

    most: how many, None for all. progress: called now and then with how many have been read, and of how many. Raises
    ShardError if the split has no samples or a shard is not the one that was indexed.
    """
    config = opened.config
    found: SplitCounts | None = None

    def measure(**objects: list[Any]) -> Inputs:
        assert found is not None
        for name, values in objects.items():
            found.modalities[name].absent += sum(value is None for value in values)
            if not config.data.modalities[name].kind.row.listed:  # of texts all count, not only the one at hand
                _measure(found.modalities[name], opened.previews[name], values)
        return {}

    stream = Stream(looking(config.data), split, config.seed, 0, 1, measure)
    size = len(stream.index)
    number = size if most is None else min(most, size)
    chosen = np.arange(number) * size // number
    found = SplitCounts(size, number)
    for ordinal in chosen.tolist():
        for extension, (_, length) in stream.index.sample(ordinal).members.items():
            found.sizes[extension].append(length)
    for batch in stream.listed_batches([chosen[at : at + BATCH] for at in range(0, number, BATCH)]):
        _count(found, batch)
        for name, texts in captions(config, stream, batch.sample_ids.tolist()).items():
            _measure(found.modalities[name], opened.previews[name], [text for several in texts for text in several])
        progress(found.usable + sum(entry.count for entry in found.dropped.values()), number)
    return found


def captions(config: Config, stream: Stream, ordinals: Sequence[int]) -> dict[str, list[list[str]]]:
    """Modality -> all texts of each of these samples, of which training draws one. Raises ShardError."""
    modalities, reader = config.data.modalities, stream.reader
    texts = {name: modality.kind for name, modality in modalities.items() if modality.kind.row.listed}
    samples = [(reader.sample(o), reader.members_of(o)) for o in ordinals] if texts else []
    return {
        name: [captions_of(sample, kind, members.modalities[name]) for sample, members in samples]
        for name, kind in texts.items()
    }


def histogram(values: np.ndarray, limit: float | None = None) -> Histogram:
    """Of values [n], n > 0. Whole numbers that lie close together get a bin each."""
    least, most = float(values.min()), float(values.max())
    whole = bool((values == np.round(values)).all())
    # Bins of whole numbers hold equally many of them.
    width = -(-(most - least + 1) // BINS) if whole else (most - least) / BINS
    bins = int((most - least) // width) + 1 if whole else BINS if width else 1
    top = least + bins * width if width else least + 1
    counts = np.histogram(values, bins=bins, range=(least, top))[0].tolist()
    above = 0 if limit is None else int((values > limit).sum())
    middle, mean = float(np.median(values)), float(values.mean())
    return Histogram(counts, len(values), least, middle, mean, most, limit, above)


def commonest(counter: Counter[str]) -> Iterator[tuple[str, int]]:
    """The commonest values with their counts, and how many are left as one more."""
    yield from counter.most_common(MOST_WORDS)
    rest = counter.most_common()[MOST_WORDS:]
    if rest:
        yield f"{len(rest)} others", sum(count for _, count in rest)


def _measure(counts: ModalityCounts, preview: KindPreview, values: Sequence[Any]) -> None:
    for value in values:
        if value is None:
            continue
        measured = preview.measured(value)
        for quantity, number in measured.numbers.items():
            counts.numbers[quantity].append(number)
        for quality, word in measured.words.items():
            counts.words[quality][word] += 1


def _count(found: SplitCounts, batch: Batch) -> None:
    found.usable += len(batch)
    if batch.classes is not None:
        found.labels.update(batch.classes.tolist())
    for entry in batch.replaced:
        # The same cause with other numbers, or another part of a file, is one cause.
        kind = re.sub(r"0x[0-9a-f]+|\d+|'[^']*'|\"[^\"]*\"", "#", entry.error)[:160]
        dropped = found.dropped.setdefault(kind, Dropped(re.sub(r" at 0x[0-9a-f]+", "", entry.error)))
        dropped.count += 1
        if len(dropped.examples) < EXAMPLES:
            dropped.examples.append((entry.key, entry.shard))
