"""Which modalities of a data set a space embeds, and how its samples are read for that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

import numpy as np

from mmpretrain.assembly.sounds import lacking_packages
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.data.decode import DECODERS, SampleError
from mmpretrain.data.discovery import placed
from mmpretrain.data.index import LABEL, Index, ShardError, is_remote, modality_of
from mmpretrain.data.members import LABEL_MEMBERS, Members, usual_members
from mmpretrain.data.reader import Reader, read_sample
from mmpretrain.embedding.jobs import EmbedJob
from mmpretrain.embedding.space import Space
from mmpretrain.problems import UnusableError

ANY_CLASS = 10**9  # labels are passed on, not judged


def choose_towers(space: Space, index: Index, wanted: Mapping[str, str | None] | None) -> dict[str, str]:
    """Modality of the data -> tower of the space.

    wanted: modality -> tower, or None for the one that fits; None: every modality that a tower fits.
    Raises UnusableError for a modality that the data or the space does not know, or of another kind or width.
    """
    kinds = held_kinds(index)
    fitting = {name: tower for name, held in kinds.items() if (tower := space.tower_for(name, held)) is not None}
    if wanted is None and not fitting:
        raise UnusableError([f"{_both(space, kinds)}: say which is which, --modalities NAME=TOWER"])
    chosen = {name: tower or fitting.get(name) for name, tower in (wanted or fitting).items()}
    problems = [p for name, tower in chosen.items() if (p := _misfit(space, kinds, name, tower)) is not None]
    towers = {name: tower for name, tower in chosen.items() if tower is not None}
    problems = problems or [p for name, tower in towers.items() for p in lacking_packages(name, space.towers[tower])]
    problems = problems or [p for name, tower in towers.items() if (p := _other_size(space, index, name, towers))]
    if problems:
        raise UnusableError(problems)
    return towers


def reading(job: EmbedJob, space: Space, index: Index, towers: Mapping[str, str]) -> DataConfig:
    """The config by which the stream reads the chosen modalities; those that some samples lack are optional."""
    found, members = _members(space, index, towers)
    modalities = {
        name: replace(modality, optional=index.count(members.modalities[name].members) < len(index))
        for name, modality in found.items()
    }
    label = [member for member in LABEL_MEMBERS if member in index.extensions][:1]
    labeled = bool(label) and index.count(label) == len(index)
    return DataConfig(
        name=job.data,
        path=job.data,
        modalities=modalities,
        classes=ANY_CLASS if labeled else None,
        global_batch=job.batch,
        workers=job.workers,
        max_bad_fraction=1.0,  # LeftOut judges
    )


def other_label(reader: Reader) -> str | None:
    """The label of the first sample if it is no single class but several, or a measured value; None for a class, and
    for what cannot be read, which counts when it is its turn. Raises ShardError.
    """
    label = reader.members_of(0).label
    members = label.members if label else ()
    try:
        sample = reader.sample(0)
    except SampleError:
        return None
    text: bytes = next((sample[member].strip() for member in members if member in sample), b"")
    return text[:40].decode() if text and not text.isdigit() and _numbers_alone(text) else None


def _numbers_alone(text: bytes) -> bool:
    """Whether it is a finite number, or a list of them as labels of several classes are written."""
    entries = text.removeprefix(b"[").removesuffix(b"]").replace(b",", b" ").split()
    try:
        return all(math.isfinite(float(entry)) for entry in entries)
    except ValueError:
        return False


def holders(index: Index, members: Members, modalities: Iterable[str]) -> Iterator[np.ndarray]:
    """Shard by shard, int64: ordinals of the samples that have any of these modalities, in order.

    members: where they lie.
    """
    return index.holding([member for name in modalities for member in members.modalities[name].members])


def _members(space: Space, index: Index, towers: Mapping[str, str]) -> tuple[dict[str, ModalityConfig], Members]:
    """How the modalities are read, and where they lie. Raises UnusableError."""
    try:
        return placed({name: space.towers[tower] for name, tower in towers.items()}, index)
    except ShardError as error:
        raise UnusableError([str(error)]) from None


def held_kinds(index: Index) -> dict[str, tuple[Kind, ...]]:
    """Modality -> what its files may hold, of all that any sample has; as for training, ``KEY.jpg`` is an image."""
    found: dict[str, tuple[Kind, ...]] = {}
    for extension in index.extensions:
        decoder = DECODERS.get(extension.rpartition(".")[2])
        name = modality_of(extension)
        if decoder is not None and name not in ("", LABEL):
            found[name] = (*found.get(name, ()), *decoder.kinds)
    taken = {kind for kinds in found.values() for kind in kinds}
    return found | {name: (kind,) for name, (kind, _) in usual_members(found, taken, index.extensions).items()}


def _misfit(space: Space, kinds: Mapping[str, tuple[Kind, ...]], name: str, tower: str | None) -> str | None:
    """What is wrong with a choice, as one sentence; None if nothing is."""
    if name not in kinds:
        return f"unknown modality {name!r}: {_both(space, kinds)}"
    if tower is None:
        return f"{space.name} has no tower for {name!r}: {_both(space, kinds)}; choose one by --modalities {name}=TOWER"
    if tower not in space.towers:
        return f"unknown tower {tower!r}: {_both(space, kinds)}"
    if space.towers[tower].kind not in kinds[name]:
        return f"{name!r} holds {_either(kinds[name])}, and the tower {tower!r} takes {space.towers[tower].kind.value}"
    return None


def _other_size(space: Space, index: Index, name: str, towers: Mapping[str, str]) -> str | None:
    """A sentence if the first readable vector or sequence has not as many features as the tower takes."""
    modality = space.towers[towers[name]]
    # Through a cache, a look at one sample would fetch a shard; the stream then says what does not fit.
    if not modality.kind.row.size or modality.kind.row.resized or is_remote(index.folder):
        return None
    shape = _first_shape(index, _members(space, index, {name: towers[name]})[1], name, modality.kind)
    if shape is None or (shape and shape[-1] == modality.size[-1] and len(shape) == len(modality.size)):
        return None
    form = f"{modality.kind.value}s of size {list(modality.size)}"
    return f"{name!r} has arrays of shape {list(shape)}, and {space.name} was trained on {form}: embed other data"


def _first_shape(index: Index, members: Members, name: str, kind: Kind) -> tuple[int, ...] | None:
    """Of a modality's array in the first sample where it can be read; None if there is none."""
    reader = Reader(index, members=members)
    for ordinal in chain.from_iterable(part.tolist() for part in holders(index, members, [name])):
        try:
            return read_sample(reader, {name: kind}, ordinal)[name].shape  # type: ignore[union-attr]
        except SampleError:
            continue  # it counts when it is its turn
    return None


def _both(space: Space, kinds: Mapping[str, tuple[Kind, ...]]) -> str:
    held = ", ".join(f"{name} ({_either(held)})" for name, held in kinds.items())
    taken = ", ".join(f"{name} ({reading.kind.value})" for name, reading in space.towers.items())
    return f"the shards hold {held or 'no modality'}; {space.name} embeds {taken}"


def _either(kinds: tuple[Kind, ...]) -> str:
    return " or ".join(dict.fromkeys(kind.value for kind in kinds))
