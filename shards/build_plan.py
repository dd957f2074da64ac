"""Which rows go into which shard: a function of the source and the options, not of who writes it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np

from mmpretrain.config.sources import LabelForm
from mmpretrain.data.writing import BuildError
from shards.sources.keys import key_hash
from shards.sources.labels import class_names
from shards.sources.sample import Content, Source
from shards.sources.values import label_name, sorted_classes

SHARD_BYTES = 128 << 20
SHARD_SAMPLES = tuple(128 << n for n in range(7))  # 128 to 8192
LOOKED_AT = 64
MOST_CLASSES = 100_000


@dataclass(frozen=True)
class Job:
    """One shard. rows: ascending row numbers of the source's split, one per sample.

    renamed: row -> key, where keys come again. further: row -> rows with further texts of the same sample.
    """

    split: str
    number: int
    source_split: str
    rows: np.ndarray
    renamed: Mapping[int, str]
    further: Mapping[int, list[int]]

    @property
    def name(self) -> str:
        """The shard's path below the dataset, without its suffix."""
        return f"{self.split}/shard-{self.number:06d}"


def parse_shares(options: list[str]) -> dict[str, float]:
    """``test=0.02`` ... -> split -> share. Raises BuildError unless the shares are above 0 and below 1 together."""
    shares: dict[str, float] = {}
    for option in options:
        name, _, text = option.partition("=")
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        usable = name.isidentifier() and name != "train" and name not in shares
        if not usable or not 0 < share < 1 or sum(shares.values()) + share >= 1:
            raise BuildError(f"--split {option}: write NAME=SHARE, such as test=0.02 (shares add up to less than 1)")
        shares[name] = share
    return shares


def with_classes(source: Source) -> Source:
    """The source with the names of its classes, which takes one pass over the column of labels."""
    if source.label is None or source.classes is not None or source.label_form is LabelForm.value:
        return source
    names: set[str] = set()
    for rows in source.splits.values():
        for _, where, row in rows.read(np.arange(len(rows)), [source.label]):
            value = row.get(source.label)
            several = source.label_form is LabelForm.several
            names.update((class_names(where, value) or []) if several else [label_name(value)])
            if len(names) > MOST_CLASSES:
                raise BuildError(f"column {source.label!r} has more than {MOST_CLASSES} different labels: no classes")
    names.discard("")
    if twice := sorted(name for name in names if name.endswith(".0") and name.removesuffix(".0") in names):
        raise BuildError(
            f"column {source.label!r} has the labels {twice[0].removesuffix('.0')!r} and {twice[0]!r}, one class"
            " written in two ways, as integers are where a column has gaps: write them alike"
        )
    return replace(source, classes=sorted_classes(names)) if names else replace(source, label=None)


def samples_per_shard(source: Source) -> int:
    """As many as make about 128 MiB, by the size of the first ones; from 128 to 8192."""
    split, rows = next(iter(source.splits.items()))
    sizes = [
        sum(map(_size, sample.contents.values()))
        for _, sample in source.samples(split, np.arange(min(LOOKED_AT, len(rows))))
    ]
    fitting = SHARD_BYTES / max(1.0, float(np.mean(sizes)))
    return max([count for count in SHARD_SAMPLES if count <= fitting], default=SHARD_SAMPLES[0])


def plan_jobs(source: Source, shares: Mapping[str, float], per_shard: int) -> list[Job]:
    """The shards of all splits. shares: what is taken out of ``train``, by the hash of each key.

    Raises BuildError: a share is of a split that is there or would be empty, or the column of keys is not unique.
    """
    there = sorted(set(shares) & set(source.splits))
    if there:
        raise BuildError(f"--split {there[0]}: the source has a split of this name already: leave the option out")
    if shares and "train" not in source.splits:
        raise BuildError(f"--split: the source has no split train, only {', '.join(source.splits)}")
    jobs: list[Job] = []
    for split in source.splits:
        jobs += _jobs_of(source, split, shares if split == "train" else {}, per_shard)
    return jobs


def _jobs_of(source: Source, split: str, shares: Mapping[str, float], per_shard: int) -> Iterator[Job]:
    hashes = _key_hashes(source, split)
    sides = np.searchsorted(_bounds(shares), hashes, side="right")
    repeats = _find_repeats(source, split, hashes)
    names = [*shares, split]
    first = np.ones(len(hashes), bool)
    first[[row for rows in repeats.further.values() for row in rows]] = False
    for side in [len(shares), *range(len(shares))]:
        rows = np.flatnonzero((sides == side) & first)
        if not len(rows) and len(hashes):
            raise BuildError(f"split {names[side]!r} would be empty: {len(hashes)} samples are too few for this share")
        for number, start in enumerate(range(0, len(rows), per_shard)):
            part = rows[start : start + per_shard]
            renamed, further = _only(repeats.renamed, part), _only(repeats.further, part)
            yield Job(names[side], number, split, part, renamed, further)


def _bounds(shares: Mapping[str, float]) -> np.ndarray:
    """uint64 [shares]: the hash below which a sample belongs to each."""
    return np.array([min(int(end * 2**64), 2**64 - 1) for end in accumulate(shares.values())], dtype=np.uint64)


def _key_hashes(source: Source, split: str) -> np.ndarray:
    """uint64 [rows]; 8 bytes per sample is all that planning holds."""
    rows = source.splits[split]
    found = array("Q")
    for number, _, row in rows.read(np.arange(len(rows)), source.key_columns):
        found.append(key_hash(source.key_of(number, row)))
    return np.frombuffer(found, np.uint64) if len(found) else np.empty(0, np.uint64)


@dataclass(frozen=True)
class _Repeats:
    """What becomes of rows whose key has come before, as in Job."""

    renamed: dict[int, str]
    further: dict[int, list[int]]


def _find_repeats(source: Source, split: str, hashes: np.ndarray) -> _Repeats:
    """Rows with the same files and label as an earlier one are its further captions; others of the same key are
    ``KEY~2``, ``KEY~3``, ... All of them keep the side of their key.
    """
    values, counts = np.unique(hashes, return_counts=True)
    again = np.flatnonzero(np.isin(hashes, values[counts > 1]))
    repeats, seen = _Repeats({}, {}), dict[str, int]()
    first: dict[tuple[Any, ...], int] = {}
    for number, where, row in source.splits[split].read(again, source.all_columns if len(again) else []):
        key, sameness = source.key_of(number, row), source.sameness_of(number, row)
        if sameness is not None and sameness in first:
            repeats.further.setdefault(first[sameness], []).append(number)
            continue
        if sameness is not None:
            first[sameness] = number
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1 and source.key is not None and not source.key.startswith("__"):
            raise BuildError(f"{where}: key {key!r} of column {source.key!r} is there twice: choose a unique column")
        if seen[key] > 1:
            repeats.renamed[number] = f"{key}~{seen[key]}"
    return repeats


def _only(found: Mapping[int, Any], rows: np.ndarray) -> dict[int, Any]:
    return {row: found[row] for row in rows.tolist() if row in found} if found else {}


def _size(content: Content) -> int:
    """Bytes of a member that nobody has read yet; 0 where there is none."""
    if content.path is not None:
        try:
            return content.path.stat().st_size
        except (OSError, ValueError):
            return 0
    return (
        len(content.data)
        if content.data is not None
        else sum(len(text.encode("utf-8", "replace")) for text in content.texts or ())
    )
