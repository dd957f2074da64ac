"""Embeddings in shards: written one by one, read back as the rows of a matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpretrain.config.data import Kind
from mmpretrain.data.decode import SampleError, decode
from mmpretrain.data.index import LABEL, Index, ShardError, load_index, modality_of
from mmpretrain.data.info import load_info
from mmpretrain.data.kinds.rows import DTYPES
from mmpretrain.data.members import Holders, Members, suffix_of
from mmpretrain.data.reader import Reader
from mmpretrain.data.row_reader import RowReader
from mmpretrain.embedding.output import embedded_from


class Vectors:
    """The vectors of a modality, by the number of the sample that has them.

    folder: data set; split: folder below it. modality: None for the only one there is.
    Attributes: index, modality, width, ordinals (int64 [n], of the samples that have the modality), origin (what
    dataset.json says that they were made from, {} if nothing), source (fingerprint of the data that was embedded, None
    if that is not known).
    Raises ShardError if there are none, or the modality is unknown, ambiguous or not of vectors.
    """

    def __init__(self, folder: str, split: str, modality: str | None = None) -> None:
        self.index: Index = load_index(f"{folder.rstrip('/')}/{split}")
        self.modality = _the_one(self.index, modality)
        held_by = tuple(e for e in self.index.extensions if modality_of(e) == self.modality)
        self.ordinals = np.concatenate(list(self.index.holding(held_by)))
        try:
            self.origin = load_info(folder).provenance
        except FileNotFoundError:
            self.origin = {}
        self.source = embedded_from(self.index.folder)
        holders = Holders(held_by)
        # A few shards stay open: they are read one after the other.
        self._reader = Reader(self.index, members=Members({self.modality: holders}), max_open=4)
        self._rows = RowReader(self._reader)
        self._column = self._rows.extension(holders)
        self.width = len(self._vector(int(self.ordinals[0]), None))

    def __len__(self) -> int:
        return len(self.ordinals)

    @property
    def title(self) -> str:
        """Where they are, for messages."""
        return f"{self.index.folder} ({self.modality!r})"

    @property
    def stored(self) -> np.dtype[Any] | None:
        """The type of values that lie in columns, of every sample; None where they are files of single samples."""
        return None if self._column is None else DTYPES[suffix_of(self._column)]

    def keys(self, ordinals: np.ndarray | None = None) -> list[str]:
        """Keys of these samples (int64 [k]), of all that have the modality by default."""
        return list(self._rows.keys(self.ordinals if ordinals is None else ordinals))

    def read(self, ordinals: Sequence[int] | np.ndarray) -> Tensor:
        """float32 [k, d] of these samples. Raises ShardError for a vector of another width or not finite."""
        wanted = np.asarray(ordinals, np.int64)
        found = None if self._column is None else self._rows.read(wanted, self._column)
        if found is not None and found.shape[1] == self.width and np.isfinite(found).all():
            return torch.from_numpy(found.astype(np.float32, copy=False))
        rows = np.empty((len(wanted), self.width), np.float32)
        for row, ordinal in enumerate(wanted.tolist()):  # finds out which one is unfit, too
            rows[row] = self._vector(ordinal, self.width)
        return torch.from_numpy(rows)

    def share(self, rank: int, size: int) -> np.ndarray:
        """int64 [n_r]: every size-th shard's samples from shard ``rank`` on, so that a file is read by one rank."""
        starts = self.index.starts
        number = np.searchsorted(starts, self.ordinals, side="right") - 1
        return self.ordinals[number % size == rank]

    def _vector(self, ordinal: int, width: int | None) -> np.ndarray:
        sample = self._reader.sample(ordinal)
        extension = next(key for key in sample if modality_of(key) == self.modality)
        try:
            value = decode(extension, sample[extension], Kind.vector)
        except SampleError as error:
            raise ShardError(f"{sample['__url__']}: {sample['__key__']}: {error}") from None
        assert isinstance(value, np.ndarray)
        if value.ndim != 1 or (width is not None and len(value) != width):
            wanted = "one dimension" if width is None else f"[{width}]"
            raise ShardError(
                f"{sample['__url__']}: {sample['__key__']}.{extension} has shape {list(value.shape)}, not {wanted}"
            )
        return value


class MappedRows:
    """Rows of a memory that stay in their files: what a sweep reads of them comes as it goes, and goes again.

    vectors: in columns. ordinals: int64 [n], which of them. Like a tensor [n, d], as far as a sweep asks.
    """

    def __init__(self, vectors: Vectors, ordinals: np.ndarray) -> None:
        self._vectors, self._ordinals = vectors, ordinals
        self.shape, self.dtype = (len(ordinals), vectors.width), torch.float32

    def __len__(self) -> int:
        return len(self._ordinals)

    def split(self, size: int) -> Iterator[Tensor]:
        """float32 [size, d], one after the other, the last one shorter. Raises ShardError as :meth:`Vectors.read`."""
        for start in range(0, len(self._ordinals), size):
            yield self._vectors.read(self._ordinals[start : start + size])


def _the_one(index: Index, modality: str | None) -> str:
    """The modality that is meant. Raises ShardError where that is not clear."""
    extensions = index.extensions
    held = sorted({name for extension in extensions if (name := modality_of(extension)) not in ("", LABEL)})
    vectors = sorted({modality_of(e) for e in extensions if suffix_of(e) in Kind.vector.row.suffixes} - {""})
    if modality is None and len(vectors) == 1:
        return vectors[0]
    if modality is None:
        raise ShardError(f"{index.folder} holds {', '.join(held) or 'nothing'}: say which, FOLDER:MODALITY")
    if modality not in vectors:
        raise ShardError(f"{index.folder} has no vectors {modality!r}: it holds {', '.join(held) or 'nothing'}")
    return modality
