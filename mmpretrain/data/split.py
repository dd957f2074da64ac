"""The samples of a split that a run learns from: of every folder of the data set, without those that are dropped.

No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mmpretrain.config.data import DataConfig, Incomplete, Kind, remote_problem
from mmpretrain.data.decode import MAX_ENCODED_BYTES
from mmpretrain.data.index import INDEX_NAME, Index, IndexMissingError, ShardError, is_remote, load_index
from mmpretrain.data.index_scan import is_litter
from mmpretrain.data.index_table import LABEL, Shard
from mmpretrain.data.members import Holders, Members, find_members, suffix_of

TRAIN = "train"

Faults = list[np.ndarray]  # bool [samples] for each shard


@dataclass(frozen=True)
class Split:
    """A split, opened.

    index: the samples that count. members: where everything lies. dropped: cause -> how many samples are not in the
    index because of it; a sample with several causes counts for each. problems: what no member holds. held: what
    follows the keys in the names of all members, those of dropped samples too.
    """

    index: Index
    members: Members
    dropped: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


def split_folder(path: str, split: str) -> str:
    """The folder of a split's shards: ``PATH/SPLIT``, or PATH itself, whose tars all are for training."""
    folder = f"{path.rstrip('/')}/{split}"
    if is_remote(path) or split != TRAIN or Path(folder).is_dir():
        return folder
    return path if holds_shards(path) else folder


def holds_shards(folder: str) -> bool:
    """Whether a local folder has an index, or tars that may be indexed."""
    root = Path(folder)
    return (root / INDEX_NAME).is_file() or any(not is_litter(tar.name) for tar in root.glob("*.tar"))


def split_folders(config: DataConfig, split: str) -> list[str]:
    """The folders that hold the split: of ``path`` in any case, of further paths where there is one."""
    first, *more = [split_folder(path, split) for path in config.paths]
    return [first, *(folder for folder in more if split == TRAIN or is_remote(folder) or Path(folder).is_dir())]


def open_split(config: DataConfig, split: str) -> Split:
    """Open a split for reading.

    Raises ShardError if its index is missing, damaged or empty, if nothing is left of it, or if no member holds what
    the config wants.
    """
    opened = look_at(config, split)
    if opened.problems:
        raise ShardError("; ".join(opened.problems))
    return opened


def look_at(config: DataConfig, split: str) -> Split:
    """As :func:`open_split`, but what no member holds is in ``problems``."""
    for path in config.paths:
        if problem := remote_problem(path):
            raise ShardError(f"data.path is {path!r}, which {problem}")
    first, *more = split_folders(config, split)
    others = [_index_if_any(folder, split) for folder in more]
    return of_indexes(config, [load_index(first), *(index for index in others if index is not None)])


def of_indexes(config: DataConfig, indexes: list[Index]) -> Split:
    """As :func:`look_at`, of the indexes of all folders."""
    index = _joined(indexes)
    if not len(index):
        raise ShardError(f"{index.folder} has no samples: {again(config.build)}")
    held = tuple(index.extensions)
    members, problems = find_members(config, held)
    if problems or config.incomplete is Incomplete.refuse:
        return Split(index, members, problems=tuple(problems), held=held)
    faults = find_faults(config, index, members)
    keep = [~np.any([rows[number] for rows in faults.values()], axis=0) for number in range(len(index.shards))]
    kept = index if all(rows.all() for rows in keep) else index.kept(keep)
    dropped = {cause: count for cause, rows in faults.items() if (count := int(sum(map(np.sum, rows))))}
    if not len(kept):
        causes = ", ".join(f"{cause} ({count})" for cause, count in dropped.items())
        raise ShardError(f"{index.folder}: data.incomplete=drop leaves none of its {len(index)} samples: {causes}")
    return Split(kept, members, dropped, held=held)


def find_faults(config: DataConfig, index: Index, members: Members) -> dict[str, Faults]:
    """Cause -> which samples the index shows to be unusable for it."""
    found: dict[str, Faults] = {}
    for name, holders in members.modalities.items():
        modality = config.modalities[name]
        found |= _faults(name, holders, modality.kind, modality.optional, index)
    return found | (_faults(LABEL, members.label, None, False, index) if members.label else {})


def again(build: str | None) -> str:
    """The advice to make a data set again."""
    return f"run `{build}`" if build else "build the dataset again"


def _index_if_any(folder: str, split: str) -> Index | None:
    """The index of a further folder; only asking a store tells whether a split is there that need not be."""
    try:
        return load_index(folder)
    except IndexMissingError:
        if split == TRAIN or not is_remote(folder):
            raise
        return None


def _joined(indexes: list[Index]) -> Index:
    """All shards as one index, in the order of the folders."""
    first, *more = indexes
    if not more:
        return first
    others = [replace(shard, folder=index.folder) for index in more for shard in index.shards]
    return Index(first.folder, [*first.shards, *others])


def _faults(name: str, holders: Holders, kind: Kind | None, optional: bool, index: Index) -> dict[str, Faults]:
    found: dict[str, Faults] = {}
    for shard in index.shards:
        for cause, rows in _shard_faults(name, holders, kind, optional, shard):
            found.setdefault(cause, []).append(rows)
    return found


def _shard_faults(
    name: str, holders: Holders, kind: Kind | None, optional: bool, shard: Shard
) -> Iterator[tuple[str, np.ndarray]]:
    sizes = shard.sizes(holders.members)
    held = np.sum(sizes >= 0, axis=1)
    yield f"no {name}", (held == 0) & (not optional)
    yield f"several {name}", (held > 1) & (not holders.several)
    yield f"empty {name}", (held > 0) & (sizes.max(axis=1, initial=-1) == 0)
    yield f"{name} above {MAX_ENCODED_BYTES >> 20} MiB", sizes.max(axis=1, initial=-1) > MAX_ENCODED_BYTES
    if kind is not None:
        unfit = [member for member in holders.members if suffix_of(member) not in kind.row.suffixes]
        yield f"{name} not of kind {kind.value}", shard.sizes(unfit).max(axis=1, initial=-1) >= 0
