"""One tar of an index: what the manifest says of it, and its columns, which open when they are needed (no torch)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mmpretrain.data.index_columns import ABSENT, Columns
from mmpretrain.data.index_store import ColumnStore, StoredColumns
from mmpretrain.data.sides import Side

LABEL = "label"

Span = tuple[int, int]


class Pattern(NamedTuple):
    """What samples have in common: which members they have, and which of these are empty or too large.

    states: one letter per extension (see :meth:`mmpretrain.data.index_columns.Columns.states`).
    """

    extensions: tuple[str, ...]
    states: str

    def of(self, members: Collection[str]) -> list[str]:
        """The states of those of these members that are there."""
        pairs = zip(self.extensions, self.states, strict=True)
        return [state for extension, state in pairs if state != ABSENT and extension in members]


@dataclass(frozen=True, eq=False, slots=True)
class Shard:
    """One tar, or some of its samples.

    bytes, sha256: of the whole tar. samples: how many count. counts: the states of its samples (see :class:`Pattern`)
    and how many have each, sorted; None: too many to be listed. stored: its columns, or what their file is. kept: the
    states of the samples that count, None for all. side: of these the ones whose keys' hashes count, None for all.
    """

    name: str
    bytes: int
    sha256: str
    samples: int
    extensions: tuple[str, ...]
    counts: tuple[tuple[str, int], ...] | None
    stored: Columns | StoredColumns
    store: ColumnStore
    kept: tuple[str, ...] | None = None
    side: Side | None = None

    @property
    def folder(self) -> str:
        """Where it lies: local path or fsspec URL."""
        return self.store.folder

    @property
    def patterns(self) -> tuple[tuple[str, int], ...]:
        """States -> samples, sorted; of a shard with very many the columns are opened."""
        return self.store.patterns(self) if self.counts is None else self.counts

    def columns(self) -> Columns:
        """Keys and members of the samples that count. Raises ShardError if they cannot be read or are damaged."""
        return self.store.columns(self)

    def members(self, row: int) -> dict[str, Span]:
        """Extension -> (offset, size) of the row-th sample. Raises as :meth:`columns` does."""
        columns = self.columns()
        places = zip(self.extensions, columns.offsets[row].tolist(), columns.sizes[row].tolist(), strict=True)
        return {extension: (at, size) for extension, at, size in places if at >= 0}

    def count(self, members: Collection[str]) -> int:
        """How many samples have any of these members."""
        return sum(count for states, count in self.patterns if Pattern(self.extensions, states).of(members))

    def holds(self, modality: str) -> np.ndarray:
        """bool [samples]: which samples have a member of this modality (or ``label``). Raises as :meth:`columns`."""
        return self.having([extension for extension in self.extensions if modality_of(extension) == modality])

    def having(self, members: Collection[str]) -> np.ndarray:
        """bool [samples]: which samples have any of these members. Opens the columns only where they differ in that."""
        count = self.count(members)
        if count in (0, self.samples):
            return np.full(self.samples, count > 0)
        return np.any(self.sizes(members) >= 0, axis=1)

    def sizes(self, extensions: Collection[str]) -> np.ndarray:
        """int64 [samples, k]: bytes of the members with those of these extensions that the shard has; -1: absent.

        Raises as :meth:`columns` does.
        """
        wanted, columns = set(extensions), self.columns()
        numbers = [number for number, extension in enumerate(self.extensions) if extension in wanted]
        return np.where(columns.offsets[:, numbers] >= 0, columns.sizes[:, numbers], -1)

    def on_side(self, side: Side) -> Shard:
        """The shard with the samples on that side alone; opens the columns."""
        columns = self.columns()
        columns = columns.rows(side.of(columns.key_hashes()))
        return replace(self, samples=len(columns), counts=columns.patterns(), side=side)

    def shares_samples(self, other: Shard) -> bool:
        """Whether samples may be in both: of one tar, unless they are on sides that have nothing in common."""
        if self.sha256 != other.sha256:
            return False
        return self.side is None or other.side is None or self.side.meets(other.side)

    def only(self, keep: Callable[[Pattern], bool]) -> Shard:
        """The shard with the samples of these patterns alone."""
        counts = tuple((states, n) for states, n in self.patterns if keep(Pattern(self.extensions, states)))
        if counts == self.patterns:
            return self
        kept = tuple(states for states, _ in counts)
        return replace(self, samples=sum(count for _, count in counts), counts=counts, kept=kept)


def modality_of(extension: str) -> str:
    """``left`` of ``left.png``; '' for a member without modality (``png``)."""
    return extension.rpartition(".")[0]
