"""Positions and ordinals become a Batch: read, decode, replace or leave out what is unfit, process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from mmpretrain.config.data import DataConfig, Kind, LabelForm
from mmpretrain.data.augment.boxes import BoxDraws
from mmpretrain.data.batch import NEGATIVES, SOURCE, Batch, Inputs, Replacement
from mmpretrain.data.decode import SampleError
from mmpretrain.data.hard_negatives import Texts, drawn_negatives, hard_negatives_of, stacked
from mmpretrain.data.mixture import Mixture
from mmpretrain.data.pictures import Halves, PictureRows, Training, picture_readers
from mmpretrain.data.plan import Plan
from mmpretrain.data.quarantine import BadDataError
from mmpretrain.data.random import uniform
from mmpretrain.data.reader import Reader
from mmpretrain.data.row_reader import RowReader
from mmpretrain.data.samples import label_of, objects_of
from mmpretrain.data.seeds import sub_seed
from mmpretrain.words import without_secrets

MAX_ATTEMPTS = 16

Processor = Callable[..., Mapping[str, dict[str, torch.Tensor]]]
_Readers = dict[str, Callable[[bytes], bool]]


@dataclass(frozen=True)
class _Row:
    """A decoded sample: its objects by modality (None: it lacks this one), and its label or None. Of a picture that
    lies in the batch's array already the object is True. negatives: hard negatives that its position uses."""

    ordinal: int
    key: str
    objects: dict[str, Any]
    label: int | list[int] | float | list[float] | None
    negatives: Texts = field(default_factory=dict)


class Batcher:
    """Makes batches; what a row holds depends on its position and ordinal alone.

    reader: one that knows the members of ``config``. processor: called with one list of b raw objects per modality
    (None where a sample lacks an optional one), returns modality -> keyword -> tensor [b, ...]. sources: the same for
    modalities whose augmentations start from something else (images with a ``load_size``, sounds), into the view
    ``source``; None for no such view. Of processors with halves (:class:`Halves`) only the first is done: ``finished``
    does the second. training: what only the batches of training get; None for other batches.
    """

    def __init__(
        self,
        config: DataConfig,
        reader: Reader,
        plan: Plan | Mixture,
        processor: Processor,
        sources: Processor | None = None,
        training: Training | None = None,
    ) -> None:
        self._config, self._reader, self._plan, self._processor = config, reader, plan, processor
        self._sources, self._training = sources, training
        self._pictures = picture_readers(config.modalities, processor, sources)
        self._rows = RowReader(reader)
        other = config.labeled or config.hard_negatives or config.sources or sources is not None
        self._tables = None if other else self._columns()

    def finished(self, batch: Batch) -> Batch:
        """What encoders take, of a batch as it was made, wherever its tensors lie now."""
        views = dict(batch.views)
        if isinstance(self._sources, Halves) and SOURCE in views:
            views[SOURCE] = self._sources.finished(views[SOURCE])
        inputs = self._processor.finished(batch.inputs) if isinstance(self._processor, Halves) else batch.inputs
        return replace(batch, inputs=inputs, views=views)

    def batch(self, positions: np.ndarray, ordinals: np.ndarray, *, drawn: bool = True) -> Batch:
        """The batch with these samples: int64 [b] each. drawn: whether one of several texts is drawn for the position,
        instead of the first being taken.

        A sample that cannot be used is replaced by one that the plan draws for its position; its ``sample_ids`` and
        ``keys`` entries are those of the substitute. Raises ShardError, and BadDataError if no substitute is found.
        """
        if (found := self._from_tables(positions, ordinals)) is not None:
            return found
        replaced: list[Replacement] = []
        pictures = self._picture_rows(positions, drawn)
        rows: list[_Row] = []
        for position, ordinal in zip(positions.tolist(), ordinals.tolist(), strict=True):
            rows.append(self._row(position, ordinal, replaced, drawn, _readers(pictures, len(rows), len(rows))))
        batch = self._assembled(rows, positions, replaced, pictures)
        if drawn and self._config.hard_negatives:
            batch = replace(batch, views=batch.views | {NEGATIVES: self._negatives(rows)})
        cropped = self._training.crops.keys() & pictures.keys() if drawn and self._training else ()
        return replace(batch, cropped=frozenset(cropped))

    def _columns(self) -> dict[str, str] | None:
        """Modality -> the column that holds its vectors, where every modality has one; else None."""
        if not len(self._reader.index):
            return None
        members = self._reader.members_of(0).modalities
        found = {
            name: self._rows.extension(members[name])
            for name, modality in self._config.modalities.items()
            if modality.kind is Kind.vector and name in members
        }
        columns = {name: column for name, column in found.items() if column is not None}
        return columns if columns.keys() == self._config.modalities.keys() else None

    def _from_tables(self, positions: np.ndarray, ordinals: np.ndarray) -> Batch | None:
        """The batch, read as rows of tables; None where there are none, or where a row is unfit and is to be found."""
        if self._tables is None:
            return None
        values: dict[str, Any] = {}
        for name, column in self._tables.items():
            rows = self._rows.read(ordinals, column)
            if rows is None or list(rows.shape[1:]) != list(self._config.modalities[name].size):
                return None
            values[name] = rows.astype(np.float32, copy=False)
            if not np.isfinite(values[name]).all():
                return None
        return Batch(
            inputs=_first_half(self._processor, values),
            labels=None,
            sample_ids=torch.from_numpy(ordinals),
            positions=torch.from_numpy(positions),
            keys=self._rows.keys(ordinals),
        )

    def readable(self, ordinals: np.ndarray) -> Batch:
        """The batch of those of these samples (int64 [b]) that can be used; ``positions`` are their ordinals.

        The others have no row: ``replaced`` names them, with '' as substitute. If none is left, ``inputs`` is empty.
        Raises ShardError.
        """
        left_out: list[Replacement] = []
        pictures = self._picture_rows(ordinals, drawn=False)
        rows: list[_Row] = []
        for place, ordinal in enumerate(ordinals.tolist()):
            try:
                rows.append(self._decode(ordinal, None, _readers(pictures, len(rows), place)))
            except SampleError as error:
                left_out.append(self._replacement(ordinal, ordinal, "", error))
        return self._assembled(rows, np.array([row.ordinal for row in rows], dtype=np.int64), left_out, pictures)

    def _picture_rows(self, positions: np.ndarray, drawn: bool) -> dict[str, PictureRows]:
        """Room for the batch's pictures, and what is cut out of each."""
        training = self._training if drawn else None
        found: dict[str, PictureRows] = {}
        for name, reader in self._pictures.items():
            crop = training.crops.get(name) if training else None
            boxes = None if crop is None or training is None else BoxDraws(crop, training.seed, name, positions)
            found[name] = PictureRows(reader, len(positions), boxes, drawn)
        return found

    def _assembled(
        self, rows: list[_Row], positions: np.ndarray, replaced: list[Replacement], pictures: dict[str, PictureRows]
    ) -> Batch:
        objects: dict[str, Any] = {m: [row.objects[m] for row in rows] for m in self._config.modalities}
        larger: dict[str, Any] = dict(objects)
        for name, held in pictures.items():
            objects[name], *others = held.pictures([found is not None for found in objects[name]])
            larger[name] = others[0] if others else objects[name]
        return Batch(
            inputs=_first_half(self._processor, objects) if rows else {},
            labels=self._labels(rows) if self._config.labeled else None,
            sample_ids=torch.tensor([row.ordinal for row in rows], dtype=torch.int64),
            positions=torch.from_numpy(positions),
            keys=tuple(row.key for row in rows),
            replaced=tuple(replaced),
            views={} if self._sources is None or not rows else {SOURCE: self._source_view(self._sources, larger)},
        )

    def _labels(self, rows: list[_Row]) -> torch.Tensor:
        """int64 [b], int64 [b, C] of 0 and 1, or float32 [b] or [b, numbers], by the form of the labels."""
        form, labels = self._config.label.form, [row.label for row in rows]
        if form is not LabelForm.several:
            return torch.tensor(labels, dtype=torch.float32 if form is LabelForm.value else torch.int64)
        found = torch.zeros(len(rows), self._config.classes or 0, dtype=torch.int64)
        for row, numbers in enumerate(labels):
            assert isinstance(numbers, list)
            found[row, torch.tensor(numbers, dtype=torch.int64)] = 1
        return found

    def _source_view(self, sources: Processor, objects: dict[str, Any]) -> Inputs:
        apart = {name: items for name, items in objects.items() if self._config.modalities[name].prepared_apart}
        return _first_half(sources, apart)

    def _row(self, position: int, ordinal: int, replaced: list[Replacement], drawn: bool, readers: _Readers) -> _Row:
        candidate, error = ordinal, None
        for attempt in range(MAX_ATTEMPTS):
            try:
                row = self._decode(candidate, position if drawn else None, readers)
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
        shard = without_secrets(self._reader.index.path(original.shard))
        return Replacement(position, original.key, substitute, shard, str(error), self._source(ordinal))

    def _source(self, ordinal: int) -> str:
        """The name of the source that a sample is of; '' without sources."""
        return self._plan.source_name(ordinal) if isinstance(self._plan, Mixture) else ""

    def _decode(self, ordinal: int, position: int | None, readers: _Readers) -> _Row:
        """position: draws one of several texts; None: the first."""
        sample, config, members = self._reader.sample(ordinal), self._config, self._reader.members_of(ordinal)
        draw = None if position is None else partial(self._number, position)
        objects = objects_of(sample, config.modalities, members, draw, readers)
        label = None
        if members.label is not None:
            said = config.label
            label = label_of(sample, members.label, config.classes or 0, said.form, said.numbers)
        # Also where no batch has a use for them: what cannot be used is to be found before training.
        negatives = hard_negatives_of(sample, config.modalities, members)
        used = {} if position is None else drawn_negatives(negatives, config.modalities, self._plan.seed, position)
        return _Row(ordinal, sample["__key__"], objects, label, used)

    def _negatives(self, rows: list[_Row]) -> Inputs:
        captions = {name: [row.objects[name] for row in rows] for name in self._config.hard_negatives}
        processed = partial(_first_half, self._processor)
        return stacked([row.negatives for row in rows], captions, self._config.modalities, processed)

    def _number(self, position: int, modality: str) -> float:
        """A number of [0, 1): a function of the seed, the position in the stream and the modality."""
        return uniform(sub_seed(self._plan.seed, 0, "captions", modality), torch.tensor([position])).item()


def _readers(pictures: dict[str, PictureRows], row: int, place: int) -> _Readers:
    """Modality -> what puts a picture into this row."""
    return {name: partial(rows.read, row, place) for name, rows in pictures.items()}


def _first_half(processor: Processor, objects: dict[str, Any]) -> Inputs:
    return processor.encoded(**objects) if isinstance(processor, Halves) else dict(processor(**objects))
