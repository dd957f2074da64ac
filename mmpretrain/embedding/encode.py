"""One rank's share of ``mmpretrain embed``: shards r, r + W, ... of those that are missing."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor

from mmpretrain.data.batch import PRESENT, Batch, Inputs
from mmpretrain.data.column_shards import Column, Table, joined
from mmpretrain.data.decode import MAX_LABEL_DIGITS, Raw
from mmpretrain.data.index import LABEL, load_index
from mmpretrain.data.info import DatasetInfo, load_info
from mmpretrain.data.kinds.rows import DTYPES
from mmpretrain.data.members import LABEL_MEMBERS
from mmpretrain.data.split import split_folder
from mmpretrain.data.stream import Stream
from mmpretrain.embedding.bad_samples import LeftOut
from mmpretrain.embedding.choice import choose_towers, holders, other_label, reading
from mmpretrain.embedding.jobs import SUFFIXES, EmbedJob, VectorPrecision
from mmpretrain.embedding.output import Output, SplitOrigin, form_of, known_as
from mmpretrain.embedding.space import Space
from mmpretrain.embedding.spaces import open_space
from mmpretrain.losses.similarity import unit_rows
from mmpretrain.problems import UnusableError
from mmpretrain.words import listed

LOG_EVERY_S = 10.0
TRIES = 100  # samples that may be unreadable before one shows how wide an embedding is

log = logging.getLogger(__name__)


def embed_share(job: EmbedJob, rank: int, size: int, device: torch.device) -> None:
    """Write this rank's share of the shards that are missing, and the index once all are there.

    Raises:
        UnusableError: the release cannot be opened, or does not fit the data.
        ShardError: the data or the output folder cannot be used.
        BadDataError: more samples are unreadable than the job allows, here or in all finished shards together.
    """
    stream, encoder = _open(job, rank, device)
    sources = known_as(job.out, job.split, {"data": stream.index})
    form = form_of(job.out, job.split, job.form)
    origin = SplitOrigin(sources, len(stream.index), job.samples_per_shard, form)
    output = Output(job.out, job.split, _describe(job, stream, encoder), origin)
    # By number: what is missing changes while the other ranks work.
    numbers = [number for number in output.missing() if number % size == rank]
    held = _held(stream, encoder)
    left_out = LeftOut(len(held), job.max_bad_fraction)
    turns = [_turns(held, output.rows(number), job.batch) for number in numbers]
    batches = stream.listed_batches([turn for shard in turns for turn in shard])
    encoded = (encoder.table(batch, _keys(stream, batch), left_out) for batch in batches)
    started = said = time.monotonic()
    for done, (number, shard) in enumerate(zip(numbers, turns, strict=True), start=1):
        output.write(number, joined([next(encoded) for _ in shard]))
        if time.monotonic() - said > LOG_EVERY_S:
            said = time.monotonic()
            rate = done * job.samples_per_shard / (said - started)
            log.info("rank %d: %d of %d shards, %.0f samples per second", rank, done, len(numbers), rate)
    output.finish(changed=bool(numbers), accept=left_out.judge)


@dataclass(frozen=True)
class SampleEncoder:
    """Samples of a data set -> members of embedding shards. towers: modality of the data -> tower of the space."""

    space: Space
    towers: dict[str, str]
    dtype: VectorPrecision

    def tensors(self, **objects: list[Raw | None]) -> Inputs:
        """The stream's processor. A modality's tensors are of the samples that have it; ``present`` says which."""
        return {name: self._present(name, items) for name, items in objects.items()}

    def table(self, batch: Batch, keys: Sequence[str], left_out: LeftOut) -> Table:
        """Keys (of ``keys``, one per row), embeddings of unit norm of what each sample has, labels; unreadable samples,
        and those that have nothing, are left out.

        Raises BadDataError if the unreadable ones are too many.
        """
        left_out.note(batch)
        found = {name: self._vectors(name, tensors) for name, tensors in batch.inputs.items()}
        vectors = {name: entry for name, entry in found.items() if len(entry[0])}
        if not vectors:
            return Table([], {})
        some = np.any([present for _, present in vectors.values()], axis=0)
        columns = {
            f"{name}.{SUFFIXES[self.dtype]}": _column(rows, here[some]) for name, (rows, here) in vectors.items()
        }
        if batch.classes is not None:
            columns[f"{LABEL}.cls"] = Column(_digits(batch.classes.numpy()[some]))
        return Table([keys[row] for row in np.flatnonzero(some).tolist()], columns)

    def widths(self, stream: Stream) -> dict[str, int]:
        """Modality -> width of its embedding, found by encoding the first readable sample that has it.

        Raises UnusableError if the first TRIES samples with a modality cannot be read.
        """
        return {name: self._width(stream, name) for name in self.towers}

    def _width(self, stream: Stream, name: str) -> int:
        parts = holders(stream.index, stream.reader.members_of(0), [name])
        first = list(islice(chain.from_iterable(parts), TRIES))
        for batch in stream.listed_batches([np.array([ordinal]) for ordinal in first]):
            if len(batch):
                return self._vectors(name, batch.inputs[name])[0].shape[1]
        raise UnusableError([f"none of the first {len(first)} samples with {name!r} can be read: repair the shards"])

    def _present(self, name: str, items: list[Raw | None]) -> dict[str, Tensor]:
        given = [item for item in items if item is not None]
        tensors = self.space.tensors(self.towers[name], given) if given else {}
        return {**tensors, PRESENT: torch.tensor([item is not None for item in items])}

    def _vectors(self, name: str, tensors: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of unit norm [k, d] in the type of the shards, and bool [b], whose they are; [0] if nobody's."""
        present = tensors[PRESENT].numpy()
        if not present.any():
            return np.empty(0), present
        given = {key: tensor for key, tensor in tensors.items() if key != PRESENT}
        found = unit_rows(self.space.features(self.towers[name], given)).float().cpu().numpy()
        if not np.isfinite(found).all():
            raise ValueError(f"{self.space.name} gives embeddings of {name!r} that are not finite: train it again")
        return found.astype(DTYPES[SUFFIXES[self.dtype]]), present


def _digits(labels: np.ndarray) -> np.ndarray:
    """Labels as texts of one length, since a column's rows are equally long."""
    return np.char.rjust(labels.astype(f"S{MAX_LABEL_DIGITS}"), MAX_LABEL_DIGITS)


def _column(rows: np.ndarray, present: np.ndarray) -> Column:
    return Column(rows, None if present.all() else present)


def _open(job: EmbedJob, rank: int, device: torch.device) -> tuple[Stream, SampleEncoder]:
    space = open_space(job.release, device, job.pool)
    index = load_index(split_folder(job.data, job.split))
    towers = choose_towers(space, index, job.wanted)
    encoder = SampleEncoder(space, towers, job.dtype)
    config = reading(job, space, index, towers)
    # The order of the stream is not used, only its reading, so neither seed nor ranks matter.
    stream = Stream(config, job.split, 0, 0, 1, encoder.tensors)
    if rank == 0 and (left := _left_behind(stream, encoder)):
        log.warning(
            "%s: %s not passed on, since embedding shards hold embeddings and one class per sample",
            job.data,
            f"{listed(left)} {'is' if len(left) == 1 else 'are'}",
        )
    other = other_label(stream.reader) if config.labeled else None
    if other is None:
        return stream, encoder
    if rank == 0:
        log.warning(
            "%s: labels such as %s are not passed on, since embedding shards hold one class per sample", job.data, other
        )
    stream.reader.close()
    return Stream(replace(config, classes=None), job.split, 0, 0, 1, encoder.tensors), encoder


def _left_behind(stream: Stream, encoder: SampleEncoder) -> list[str]:
    """Members of samples that are neither embedded nor their class: other modalities, and measured values."""
    members = stream.reader.members_of(0)
    kept = {member for name in encoder.towers for member in members.modalities[name].members} | set(LABEL_MEMBERS)
    return [extension for extension in stream.index.extensions if extension not in kept]


def _keys(stream: Stream, batch: Batch) -> list[str]:
    """Different ones even where shards share keys: samples of several shards may come into one."""
    return [stream.index.unique_key(ordinal) for ordinal in batch.sample_ids.tolist()]


def _held(stream: Stream, encoder: SampleEncoder) -> Sequence[int] | np.ndarray:
    """Ordinals of the samples with anything to embed, in order; if that is all of them, nothing is stored."""
    parts = stream.reader.members_of(0).modalities
    if stream.index.count([member for name in encoder.towers for member in parts[name].members]) == len(stream.index):
        return range(len(stream.index))
    return np.concatenate(list(holders(stream.index, stream.reader.members_of(0), encoder.towers)))


def _turns(held: Sequence[int] | np.ndarray, rows: range, batch: int) -> list[Sequence[int] | np.ndarray]:
    """A shard's samples, of those with anything to embed (``held``, sorted), in batches.

    Batches never span two shards: so the ranks do not show in the numbers.
    """
    first, stop = bisect_left(held, rows.start), bisect_left(held, rows.stop)
    return [held[start : min(start + batch, stop)] for start in range(first, stop, batch)]


def _describe(job: EmbedJob, stream: Stream, encoder: SampleEncoder) -> DatasetInfo:
    """dataset.json of the shards: the same for every split, rank and machine."""
    try:
        source = load_info(job.data)
    except FileNotFoundError:
        name = job.data.rstrip("/").rpartition("/")[2]
        source = DatasetInfo(name, title=name, source="not recorded", license="not recorded", modalities={})
    space = encoder.space
    return DatasetInfo(
        name=f"{source.name}-in-{space.name}",
        title=f"{source.title}, embedded by {space.name}",
        source=source.source,
        license=source.license,
        modalities={name: {"kind": "vector", "size": [n]} for name, n in encoder.widths(stream).items()},
        classes=source.classes,
        factors=source.factors,
        provenance={
            "release": space.name,
            "weights_sha256": space.sha256,
            "data": source.name,
            "towers": encoder.towers,
            "dtype": encoder.dtype.value,
            **space.choices,
        },
    )
