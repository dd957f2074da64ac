"""Embeddings in shards: written one by one, read back as the rows of a matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmpretrain.config.data import Kind
from mmpretrain.data.decode import decode
from mmpretrain.data.index import LABEL, Index, ShardError, load_index, modality_of
from mmpretrain.data.info import load_info
from mmpretrain.data.members import Holders, Members
from mmpretrain.data.reader import Reader
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
        # A few shards stay open: they are read one after the other.
        self._reader = Reader(self.index, members=Members({self.modality: Holders(held_by)}), max_open=4)
        self.width = len(self._vector(int(self.ordinals[0]), None))

    def __len__(self) -> int:
        return len(self.ordinals)

    @property
    def title(self) -> str:
        """Where they are, for messages."""
        return f"{self.index.folder} ({self.modality!r})"

    def keys(self) -> list[str]:
        """Keys of the samples, [n]."""
        keys = list(self.index.all_keys())
        return keys if len(keys) == len(self) else [keys[ordinal] for ordinal in self.ordinals.tolist()]

    def read(self, ordinals: Sequence[int] | np.ndarray) -> Tensor:
        """float32 [k, d] of these samples. Raises ShardError for a vector of another width or not finite."""
        rows = np.empty((len(ordinals), self.width), np.float32)
        for row, ordinal in enumerate(np.asarray(ordinals).tolist()):
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
        value = decode(extension, sample[extension], Kind.vector)
        assert isinstance(value, np.ndarray)
        if value.ndim != 1 or (width is not None and len(value) != width):
            wanted = "one dimension" if width is None else f"[{width}]"
            raise ShardError(
                f"{sample['__url__']}: {sample['__key__']}.{extension} has shape {list(value.shape)}, not {wanted}"
            )
        return value


def _the_one(index: Index, modality: str | None) -> str:
    """The modality that is meant. Raises ShardError where that is not clear."""
    extensions = index.extensions
    held = sorted({name for extension in extensions if (name := modality_of(extension)) not in ("", LABEL)})
    vectors = sorted({modality_of(extension) for extension in extensions if extension.endswith(".npy")} - {""})
    if modality is None and len(vectors) == 1:
        return vectors[0]
    if modality is None:
        raise ShardError(f"{index.folder} holds {', '.join(held) or 'nothing'}: say which, FOLDER:MODALITY")
    if modality not in vectors:
        raise ShardError(f"{index.folder} has no vectors {modality!r}: it holds {', '.join(held) or 'nothing'}")
    return modality
