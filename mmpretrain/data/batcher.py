"""Positions and ordinals become a Batch: read, decode, replace or leave out what is unfit, process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from mmpretrain.config.data import DataConfig
from mmpretrain.data.batch import SOURCE, Batch, Inputs, Replacement
from mmpretrain.data.decode import Raw, SampleError
from mmpretrain.data.mixture import Mixture
from mmpretrain.data.plan import Plan
from mmpretrain.data.quarantine import BadDataError
from mmpretrain.data.random import uniform
from mmpretrain.data.reader import Reader
from mmpretrain.data.samples import label_of, objects_of
from mmpretrain.data.seeds import sub_seed

MAX_ATTEMPTS = 16

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

    reader: one that knows the members of ``config``. processor: called with one list of b raw objects per modality
    (None where a sample lacks an optional one), returns modality -> keyword -> tensor [b, ...]. sources: the same for
    modalities whose augmentations start from something else (images with a ``load_size``, sounds), into the view
    ``source``; None for no such view.
    """

    def __init__(
        self,
        config: DataConfig,
        reader: Reader,
        plan: Plan | Mixture,
        processor: Processor,
        sources: Processor | None = None,
    ) -> None:
        self._config, self._reader, self._plan, self._processor = config, reader, plan, processor
        self._sources = sources

    def batch(self, positions: np.ndarray, ordinals: np.ndarray, *, drawn: bool = True) -> Batch:
        """The batch with these samples: int64 [b] each. drawn: whether one of several texts is drawn for the position,
        instead of the first being taken.

        A sample that cannot be used is replaced by one that the plan draws for its position; its ``sample_ids`` and
        ``keys`` entries are those of the substitute. Raises ShardError, and BadDataError if no substitute is found.
        """
        replaced: list[Replacement] = []
        rows = [self._row(int(p), int(o), replaced, drawn) for p, o in zip(positions, ordinals, strict=True)]
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
                rows.append(self._decode(ordinal, None))
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

    def _row(self, position: int, ordinal: int, replaced: list[Replacement], drawn: bool) -> _Row:
        candidate, error = ordinal, None
        for attempt in range(MAX_ATTEMPTS):
            try:
                row = self._decode(candidate, position if drawn else None)
            except SampleError as failure:
                error = error or failure
                candidate = self._plan.substitute(position, attempt)
                continue
            if error is not None:
                replaced.append(self._replacement(position, ordinal, row.key, error))
            return row
        original = self._reader.index.sample(ordinal)
        source = self._source(ordinal)
        raise BadDataError(
            f"sample {original.key!r} in {self._reader.index.path(original.shard)} cannot be used ({error}), and"
            f" neither can {MAX_ATTEMPTS - 1} others{f' of source {source}' if source else ''} drawn in its place:"
            " data.modalities may not fit the shards"
        )

    def _replacement(self, position: int, ordinal: int, substitute: str, error: SampleError) -> Replacement:
        original = self._reader.index.sample(ordinal)
        shard = self._reader.index.path(original.shard)
        return Replacement(position, original.key, substitute, shard, str(error), self._source(ordinal))

    def _source(self, ordinal: int) -> str:
        """The name of the source that a sample is of; '' without sources."""
        return self._plan.source_name(ordinal) if isinstance(self._plan, Mixture) else ""

    def _decode(self, ordinal: int, position: int | None) -> _Row:
        """position: draws one of several texts; None: the first."""
        sample, config, members = self._reader.sample(ordinal), self._config, self._reader.members_of(ordinal)
        draw = None if position is None else partial(self._number, position)
        objects = objects_of(sample, config.modalities, members, draw)
        label = None if members.label is None else label_of(sample, members.label, config.classes or 0)
        return _Row(ordinal, sample["__key__"], objects, label)

    def _number(self, position: int, modality: str) -> float:
        """A number of [0, 1): a function of the seed, the position in the stream and the modality."""
        return uniform(sub_seed(self._plan.seed, 0, "captions", modality), torch.tensor([position])).item()
