"""Many rows at once from shards of columns, which are mapped: the time is that of copying them (no torch here)."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmpretrain.data.index_columns import Columns
from mmpretrain.data.kinds.rows import DTYPES
from mmpretrain.data.members import Holders, suffix_of
from mmpretrain.data.reader import Reader


class RowReader:
    """Vectors of one split by ordinal, [k, d] at a time.

    reader: of the split; its checks hold here, and shards stay mapped while it has them open. A pickled copy starts
    without maps.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def extension(self, holders: Holders) -> str | None:
        """The column that holds a modality of every sample of every shard; None where there is no such column."""
        index = self._reader.index
        found = [member for member in holders.members if member in index.extensions]
        if len(found) != 1 or suffix_of(found[0]) not in DTYPES or index.count(found) != len(index):
            return None
        return found[0]

    def read(self, ordinals: np.ndarray, extension: str) -> np.ndarray | None:
        """[k, d] of the stored type: the rows of the samples ordinals (int64 [k]), in their order.

        None where they do not lie in tables of rows of one length; then they are to be read one by one. Raises
        ShardError as the reader does, IndexError for a sample that there is not.
        """
        index, dtype = self._reader.index, DTYPES[suffix_of(extension)]
        numbers = self._shards_of(ordinals)
        found: np.ndarray | None = None
        # Neighbors are mostly of one shard: shards in the order of their first sample, each once.
        for number in np.unique(numbers).tolist():
            chosen = np.flatnonzero(numbers == number)
            part = self._rows(number, ordinals[chosen] - index.starts[number], extension, dtype)
            if part is None or (found is not None and part.shape[1] != found.shape[1]):
                return None
            if found is None:
                found = np.empty((len(ordinals), part.shape[1]), dtype)
            found[chosen] = part
        return found

    def keys(self, ordinals: np.ndarray) -> tuple[str, ...]:
        """The keys of the samples ordinals (int64 [k]), in their order. Raises ShardError and IndexError as the index
        does."""
        index = self._reader.index
        numbers = self._shards_of(ordinals)
        found = np.empty(len(ordinals), object)
        for number in np.unique(numbers).tolist():
            chosen = np.flatnonzero(numbers == number)
            found[chosen] = index.shards[number].columns().keys_of(ordinals[chosen] - index.starts[number])
        return tuple(found)

    def _shards_of(self, ordinals: np.ndarray) -> np.ndarray:
        """int64 [k]: the numbers of their shards. Numbers of another index, or below 0, would find other rows."""
        index = self._reader.index
        for ordinal in ordinals[(ordinals < 0) | (ordinals >= len(index))][:1].tolist():
            index.locate(ordinal)  # which raises
        return np.searchsorted(index.starts, ordinals, side="right") - 1

    def _rows(self, number: int, rows: np.ndarray, extension: str, dtype: np.dtype[Any]) -> np.ndarray | None:
        shard = self._reader.index.shards[number]
        if extension not in shard.extensions:
            return None
        columns: Columns = shard.columns()
        column = shard.extensions.index(extension)
        offsets, sizes = columns.offsets[rows, column], columns.sizes[rows, column]
        stride = int(sizes[0]) if len(sizes) else 0
        if not stride or stride % dtype.itemsize or (sizes != stride).any() or (offsets < 0).any():
            return None
        first = int(offsets.min())
        places, rest = np.divmod(offsets - first, stride)
        if rest.any():  # members of an ordinary tar, between headers
            return None
        count = int(places[-1]) + 1 if (np.diff(places) == 1).all() else int(places.max()) + 1
        table = np.ndarray((count, stride // dtype.itemsize), dtype, self._reader.mapped(number), first)
        return table if count == len(rows) and (np.diff(places) == 1).all() else table[places]
