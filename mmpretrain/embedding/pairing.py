"""The work of ``mmpretrain pair``: for each text of a corpus, its pseudo-consistent partners in two spaces.

C-MCR (arXiv 2305.14381), section 3.1: with t_i the corpus in space 1 (or 2) and v_k the memory of the same space,

    partner_i = n(sum_k softmax_k(t_i . v_k / temperature) v_k)

All ranks answer together: each holds a share of both memories, brings a shard's worth of queries per round, and writes
that shard. What is written does not depend on the number of ranks, up to rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpretrain.data.column_shards import Column, Table
from mmpretrain.data.index import Index, ShardError
from mmpretrain.data.info import DatasetInfo, load_info
from mmpretrain.data.kinds.rows import DTYPES
from mmpretrain.distributed.world import World
from mmpretrain.embedding.jobs import SUFFIXES, PairJob
from mmpretrain.embedding.output import Output, SplitOrigin, form_of, known_as
from mmpretrain.embedding.perplexity import RetrievalFigures
from mmpretrain.embedding.soft_retrieval import Memory, Retrieved, soft_retrieve
from mmpretrain.embedding.vectors import MappedRows, Vectors
from mmpretrain.losses.similarity import unit_rows

SIDES = ("first", "second")
RESIDENT_BYTES = 2 << 30  # of a rank's share of a memory, as float32: a larger one is read again for every tile

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairedSpace:
    """One space: the corpus in it, and the memory of its other modality. ordinals: the corpus in the first's order."""

    corpus: Vectors
    memory: Vectors
    ordinals: np.ndarray


def pair_share(job: PairJob, world: World) -> None:
    """Answer with all ranks, and write this rank's shards of those that are missing. A collective.

    Raises:
        ShardError: a folder cannot be used, the corpora do not hold the same keys or are of different data, or spaces
            are mixed up.
    """
    sides = open_sides(job)
    output = Output(job.out, job.split, _describe(job, sides), _origin(job, sides))
    figures = RetrievalFigures(output.folder, [len(side.memory) for side in sides])
    todo = _agreed(output, world)
    if todo:
        memories = [_share(side.memory, world) for side in sides]
    for number in _rounds(todo, world):
        rows = range(0) if number is None else output.rows(number)
        answers = [_answer(side, rows, memory, job, world) for side, memory in zip(sides, memories, strict=True)]
        if number is not None:
            figures.note(number, *(_column(answers, part) for part in ("effective", "nearest")))
            output.write(number, _table(sides[0], rows, answers, SUFFIXES[job.dtype]))
    world.barrier()
    if world.rank == 0 and output.finish(changed=bool(todo)) is not None:
        figures.summarize(output.shards)


def open_sides(job: PairJob) -> tuple[PairedSpace, PairedSpace]:
    """Both spaces, checked. Raises ShardError with what does not fit together."""
    corpora = [Vectors(folder, job.split, job.shared) for folder in (job.first, job.second)]
    memories = [Vectors(*_place(entry, job.split)) for entry in (job.first_memory, job.second_memory)]
    for name, corpus, memory in zip(SIDES, corpora, memories, strict=True):
        _check_space(name, corpus, memory)
    second = align(corpora[0], corpora[1])
    if not job.allow_other_data:
        _check_data(corpora[0], corpora[1])
    return PairedSpace(corpora[0], memories[0], corpora[0].ordinals), PairedSpace(corpora[1], memories[1], second)


def align(first: Vectors, second: Vectors) -> np.ndarray:
    """int64 [n]: the second's ordinals in the order of the first's keys. Raises ShardError for other keys."""
    if _same_keys(first, second):
        return second.ordinals
    ours, theirs = first.keys(), second.keys()
    if ours == theirs:
        return second.ordinals
    for keys, vectors in ((ours, first), (theirs, second)):
        if len(set(keys)) != len(keys):
            raise ShardError(f"{vectors.title} has keys that are there twice, so samples cannot be told by them")
    place = dict(zip(theirs, second.ordinals.tolist(), strict=True))
    known = set(ours)
    lonely = next(((key, first, second) for key in ours if key not in place), None)
    lonely = lonely or next(((key, second, first) for key in theirs if key not in known), None)
    if lonely is not None:
        key, there, absent = lonely
        raise ShardError(
            f"{there.title} has the key {key!r}, and {absent.title} has not: embed the same data by both releases"
        )
    return np.array([place[key] for key in ours], dtype=np.int64)


def _same_keys(first: Vectors, second: Vectors) -> bool:
    """Whether shard by shard the same keys stand in the same order, in every sample: no key becomes a string then."""
    ours, theirs = first.index.shards, second.index.shards
    whole = all(len(vectors) == len(vectors.index) for vectors in (first, second))
    if not whole or [shard.samples for shard in ours] != [shard.samples for shard in theirs]:
        return False
    pairs = ((a.columns(), b.columns()) for a, b in zip(ours, theirs, strict=True))
    return all(
        np.array_equal(a.keys, b.keys) and np.array_equal(a.begins, b.begins) and np.array_equal(a.ends, b.ends)
        for a, b in pairs
    )


def _check_data(first: Vectors, second: Vectors) -> None:
    """Raises ShardError if the corpora are known to be of different data: of numbered samples the keys say nothing."""
    corpora = (first, second)
    made = [corpus.source for corpus in corpora]
    names = [corpus.origin.get("data") for corpus in corpora]
    known = made if None not in made else names
    if None in known or known[0] == known[1]:
        return
    said = [f"{name or 'data'} ({source[:12]})" if source else name for name, source in zip(names, made, strict=True)]
    raise ShardError(
        f"{first.title} was embedded from {said[0]} and {second.title} from {said[1]}: embed the same data by both"
        " releases, or add --allow-other-data if equal keys mean equal samples there"
    )


def _place(entry: str, split: str) -> tuple[str, str, str | None]:
    """Folder, split and modality of FOLDER or FOLDER:MODALITY; names of folders may have colons."""
    folder, colon, modality = entry.rpartition(":")
    return (folder, split, modality) if colon and not Path(entry).is_dir() else (entry, split, None)


def _check_space(name: str, corpus: Vectors, memory: Vectors) -> None:
    if corpus.width != memory.width:
        raise ShardError(
            f"{corpus.title} has {corpus.width} features and {memory.title} has {memory.width}: --{name} and"
            f" --{name}-memory must be of one space"
        )
    makers = [vectors.origin.get("weights_sha256") for vectors in (corpus, memory)]
    if None not in makers and makers[0] != makers[1]:
        names = [vectors.origin.get("release") for vectors in (corpus, memory)]
        raise ShardError(
            f"{corpus.title} was embedded by {names[0]} and {memory.title} by {names[1]}, whose weights differ:"
            f" --{name} and --{name}-memory must be of one space"
        )


def _agreed(output: Output, world: World) -> list[int]:
    """The shards that any rank misses: file systems may show a new file to some ranks first."""
    absent = torch.zeros(output.shards, dtype=torch.int64, device=world.device)
    absent[output.missing()] = 1
    return world.all_reduce_max(absent).nonzero().flatten().tolist()


def _rounds(todo: list[int], world: World) -> Iterator[int | None]:
    """This rank's shard of each round; None where there is none left for it, and it only answers."""
    for start in range(0, len(todo), world.size):
        mine = start + world.rank
        yield todo[mine] if mine < len(todo) else None


def _share(memory: Vectors, world: World) -> tuple[Tensor | Memory, Tensor]:
    """This rank's items [n_r, d], and their numbers in the whole memory [n_r]. Large ones in columns stay in files."""
    ordinals = memory.share(world.rank, world.size)
    numbers = torch.from_numpy(ordinals).to(world.device)
    if memory.stored is not None and 4 * memory.width * len(ordinals) > RESIDENT_BYTES:
        return MappedRows(memory, ordinals), numbers
    return memory.read(ordinals).to(world.device), numbers


def _answer(
    side: PairedSpace, rows: range, memory: tuple[Tensor | Memory, Tensor], job: PairJob, world: World
) -> tuple[Tensor, Retrieved]:
    """Queries of unit norm [b, d], and what their memory holds about them."""
    queries = unit_rows(side.corpus.read(side.ordinals[rows.start : rows.stop]).to(world.device))
    return queries, soft_retrieve(queries, memory[0], temperature=job.temperature, world=world, numbers=memory[1])


def _column(answers: list[tuple[Tensor, Retrieved]], name: str) -> np.ndarray:
    """[b, 2]: a figure of every query in both memories."""
    return torch.stack([getattr(found, name) for _, found in answers], dim=1).cpu().numpy()


def _table(first: PairedSpace, rows: range, answers: list[tuple[Tensor, Retrieved]], suffix: str) -> Table:
    columns = {
        f"{side}_{part}.{suffix}": Column(values.cpu().numpy().astype(DTYPES[suffix]))
        for side, (queries, found) in zip(SIDES, answers, strict=True)
        for part, values in (("shared", queries), ("partner", found.values))
    }
    return Table(first.corpus.keys(first.ordinals[rows.start : rows.stop]), columns)


def _origin(job: PairJob, sides: tuple[PairedSpace, PairedSpace]) -> SplitOrigin:
    indexes: dict[str, Index] = {}
    for name, side in zip(SIDES, sides, strict=True):
        indexes |= {name: side.corpus.index, f"{name}_memory": side.memory.index}
    sources = known_as(job.out, job.split, indexes)
    return SplitOrigin(sources, len(sides[0].corpus), job.samples_per_shard, form_of(job.out, job.split, job.form))


def _describe(job: PairJob, sides: tuple[PairedSpace, PairedSpace]) -> DatasetInfo:
    """dataset.json of the pairs."""
    try:
        source = load_info(job.first)
    except FileNotFoundError:
        source = DatasetInfo("corpus", title="a corpus", source="not recorded", license="not recorded", modalities={})
    made_from: dict[str, Any] = {"shared": job.shared, "temperature": job.temperature, "dtype": job.dtype.value}
    modalities: dict[str, dict[str, Any]] = {}
    for name, side in zip(SIDES, sides, strict=True):
        made_from[name] = side.corpus.origin
        made_from[f"{name}_memory"] = {"modality": side.memory.modality, **side.memory.origin}
        vector = {"kind": "vector", "size": [side.corpus.width]}
        modalities |= {f"{name}_shared": vector, f"{name}_partner": vector}
    return DatasetInfo(
        name=f"{source.name}-pairs",
        title=f"{source.title}, with pseudo partners in two spaces",
        source=source.source,
        license=source.license,
        modalities=modalities,
        provenance=made_from,
    )
