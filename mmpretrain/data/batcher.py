"""Positions and ordinals become a Batch: read, decode, replace or leave out what is unfit, process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmpretrain.config.data import DataConfig, ModalityConfig
from mmpretrain.data.batch import SOURCE, Batch, Inputs, Replacement
from mmpretrain.data.decode import Raw, SampleError, decode, decode_label
from mmpretrain.data.index import LABEL, modality_of
from mmpretrain.data.plan import Plan
from mmpretrain.data.quarantine import BadDataError
from mmpretrain.data.reader import Reader

MAX_ATTEMPTS = 16
LABEL_MEMBER = f"{LABEL}.cls"

Processor = Callable[..., Inputs]


@dataclass(frozen=True)
class _Row:
    """A decoded sample: its objects by modality (None: it lacks this one), and its class or None."""

    ordinal: int
    key: str
    objects: dict[str, Raw | None]
    label: int | None


class Batcher:
    """Makes batches; what a row holds depends on its position and ordinal alone.

    processor: called with one list of b raw objects per modality (None where a sample lacks an optional one), returns
    modality -> keyword -> tensor [b, ...]. sources: the same for modalities whose augmentations start from something
    else (images with a ``load_size``, sounds), into the view ``source``; None for no such view.
    """

    def __init__(
        self, config: DataConfig, reader: Reader, plan: Plan, processor: Processor, sources: Processor | None = None
    ) -> None:
        self._config, self._reader, self._plan, self._processor = config, reader, plan, processor
        self._sources = sources

    def batch(self, positions: np.ndarray, ordinals: np.ndarray) -> Batch:
        """The batch with these samples: int64 [b] each.

        A sample that cannot be used is replaced by one that the plan draws for its position; its ``sample_ids`` and
        ``keys`` entries are those of the substitute. Raises ShardError, and BadDataError if no substitute is found.
        """
        replaced: list[Replacement] = []
        rows = [self._row(int(p), int(o), replaced) for p, o in zip(positions, ordinals, strict=True)]
        return self._assembled(rows, positions, replaced)

    def readable(self, ordinals: np.ndarray) -> Batch:
        """The batch of those of these samples (int64 [b]) that can be used; ``positions`` are their ordinals.

        The others have no row: ``replaced`` names them, with '' as substitute. If none is left, ``inputs`` is empty.
        Raises ShardError.
        """
        left_out: list[Replacement] = []
        rows: list[_Row] = []
        for ordinal in ordinals.tolist():
            try:
                rows.append(self._decode(ordinal))
            except SampleError as error:
                left_out.append(self._replacement(ordinal, ordinal, "", error))
        return self._assembled(rows, np.array([row.ordinal for row in rows], dtype=np.int64), left_out)

    def _assembled(self, rows: list[_Row], positions: np.ndarray, replaced: list[Replacement]) -> Batch:
        objects = {m: [row.objects[m] for row in rows] for m in self._config.modalities}
        labeled = self._config.classes is not None
        return Batch(
            inputs=self._processor(**objects) if rows else {},
            labels=torch.tensor([row.label for row in rows], dtype=torch.int64) if labeled else None,
            sample_ids=torch.tensor([row.ordinal for row in rows], dtype=torch.int64),
            positions=torch.from_numpy(positions),
            keys=tuple(row.key for row in rows),
            replaced=tuple(replaced),
            views={} if self._sources is None or not rows else {SOURCE: self._source_view(self._sources, objects)},
        )

    def _source_view(self, sources: Processor, objects: dict[str, list[Raw | None]]) -> Inputs:
        modalities = self._config.modalities
        return sources(**{name: items for name, items in objects.items() if modalities[name].prepared_apart})

    def _row(self, position: int, ordinal: int, replaced: list[Replacement]) -> _Row:
        candidate, error = ordinal, None
        for attempt in range(MAX_ATTEMPTS):
            try:
                row = self._decode(candidate)
            except SampleError as failure:
                error = error or failure
                candidate = self._plan.substitute(position, attempt)
                continue
            if error is not None:
                replaced.append(self._replacement(position, ordinal, row.key, error))
            return row
        original = self._reader.index.sample(ordinal)
        raise BadDataError(
            f"sample {original.key!r} in {self._reader.index.path(original.shard)} cannot be used ({error}), and"
            f" neither can {MAX_ATTEMPTS - 1} others drawn in its place: data.modalities may not fit the shards"
        )

    def _replacement(self, position: int, ordinal: int, substitute: str, error: SampleError) -> Replacement:
        original = self._reader.index.sample(ordinal)
        return Replacement(position, original.key, substitute, self._reader.index.path(original.shard), str(error))

    def _decode(self, ordinal: int) -> _Row:
        sample = self._reader.sample(ordinal)
        extensions = [name for name in sample if not name.startswith("__")]
        objects: dict[str, Raw | None] = {}
        for name, modality in self._config.modalities.items():
            extension = _only(name, extensions, modality.optional)
            if extension is None:
                objects[name] = None
            else:
                objects[name] = _checked(extension, decode(extension, sample[extension], modality.kind), modality)
        if all(value is None for value in objects.values()):
            raise SampleError(f"it has none of its modalities, {', '.join(objects)}")
        return _Row(ordinal, sample["__key__"], objects, self._label(sample))

    def _label(self, sample: dict[str, Any]) -> int | None:
        if self._config.classes is None:
            return None
        if LABEL_MEMBER not in sample:
            raise SampleError(f"it has no {LABEL_MEMBER}")
        return decode_label(sample[LABEL_MEMBER], self._config.classes)


def _only(modality: str, extensions: Sequence[str], optional: bool) -> str | None:
    """The one member that holds a modality; None if an optional one has none."""
    found = [extension for extension in extensions if modality_of(extension) == modality]
    if optional and not found:
        return None
    if len(found) != 1:
        raise SampleError(f"it has {' and '.join(found) or 'no member'} for {modality!r}: exactly one is needed")
    return found[0]


def _checked(extension: str, value: Raw, modality: ModalityConfig) -> Raw:
    """``value``, if its shape is the configured one (images are resized, texts and sequences cut by the processor)."""
    if not isinstance(value, np.ndarray):
        return value
    shape, size, kind = list(value.shape), list(modality.size), modality.kind.value
    if modality.kind.row.tokens:
        if len(shape) != len(size) or not shape[0] or shape[1:] != size[1:]:
            needed = ", ".join([modality.kind.row.size[0], *map(str, size[1:])])
            raise SampleError(f"{extension}: has shape {shape}, but a {kind} needs [{needed}]")
    elif shape != size:
        raise SampleError(f"{extension}: has shape {shape}, but {kind}s of shape {size} are expected")
    return value
