"""The data sets that a command reads: their splits, in the layout of the new one, and what lies beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from mmpretrain.config.data import DataConfig, remote_problem
from mmpretrain.data.cache import Cache, cache_folder
from mmpretrain.data.decode import MAX_ENCODED_BYTES
from mmpretrain.data.discovery import TOKENIZER
from mmpretrain.data.index import INDEX_NAME, INFO_NAME, Index, ShardError, is_remote, load_index
from mmpretrain.data.index_columns import LARGE
from mmpretrain.data.index_scan import is_litter
from mmpretrain.data.index_store import FOLDER
from mmpretrain.data.reader import Reader
from mmpretrain.data.split import TRAIN
from mmpretrain.data.writing import BuildError
from shards.inspection import split_folders
from shards.report import REPORT_NAME
from shards.rewrite.order import Order, in_place
from shards.rewrite.samples import Origin, SplitSamples
from shards.sources.findings import Findings
from shards.sources.keys import key_of_text

REMOTE_OPEN = 2
"""Shards of a URL that a process keeps in use: more of them could fill the cache."""


@dataclass(frozen=True)
class DataSet:
    """One data set that is read. folder: local path or URL. splits: folder below it ('' for its own) -> index."""

    folder: str
    splits: dict[str, Index]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return (
            PurePath(os.path.realpath(self.folder)).name if not is_remote(self.folder) else PurePath(self.folder).name
        )


def open_data_set(folder: str) -> DataSet:
    """Read the indexes of a data set. Raises ShardError if it has none, or no samples."""
    if problem := remote_problem(folder):
        raise ShardError(f"{folder} {problem}")
    root = folder.rstrip("/")
    indexes = [(path, load_index(path)) for path in split_folders(root)]
    splits = {path.removeprefix(root).strip("/"): index for path, index in indexes if len(index)}
    if not splits:
        raise ShardError(f"{folder} has no samples")
    return DataSet(root, splits)


def in_one_layout(data_sets: Sequence[DataSet]) -> list[DataSet]:
    """The data sets with bare folders of tars, which are for training, as ``train`` where any has splits."""
    if not any(set(data_set.splits) - {""} for data_set in data_sets):
        return list(data_sets)
    for data_set in data_sets:
        if "" in data_set.splits and TRAIN in data_set.splits:
            raise BuildError(f"{data_set.folder} holds tars and a folder {TRAIN} of tars: name one of them")
    return [DataSet(d.folder, {split or TRAIN: index for split, index in d.splits.items()}) for d in data_sets]


def prefixes_by_shard(data_set: DataSet) -> dict[str, tuple[str, ...]]:
    """Split -> the name of each of its shards as a prefix of keys."""
    return {
        split: tuple(f"{key_of_text(shard.name.removesuffix('.tar'))}/" for shard in index.shards)
        for split, index in data_set.splits.items()
    }


def prefixes_by_name(data_sets: Sequence[DataSet]) -> list[str]:
    """The name of each data set as a prefix of keys; of several with the same name, all but the first get a number."""
    found: list[str] = []
    for data_set in data_sets:
        name = key_of_text(data_set.name)
        again = [prefix for prefix in found if prefix == f"{name}/" or prefix.startswith(f"{name}~")]
        found.append(f"{name}~{len(again) + 1}/" if again else f"{name}/")
    return found


def origin(index: Index, prefixes: tuple[str, ...] | None) -> Origin:
    """Samples of one folder; None: keys as they are."""
    if is_remote(index.folder):
        cache = Cache(cache_folder(), int(DataConfig.cache_gb * 1e9))
        reader = Reader(index, cache=cache, max_open=REMOTE_OPEN)
    else:
        reader = Reader(index)
    return Origin(reader, prefixes or ("",) * len(index.shards))


def split_samples(origins: Sequence[Origin], order: Order = in_place) -> SplitSamples:
    """A split of the new data set. Raises BuildError for members that no reader takes, before anything is written."""
    for one in origins:
        _refuse_large(one.reader.index)
    return SplitSamples(tuple(origins), order)


def note_what_stays(data_set: DataSet, taken: Sequence[str], notes: Findings) -> None:
    """Name what lies beside the shards and is not taken along."""
    if is_remote(data_set.folder):
        return
    known = {*data_set.splits, *taken, INDEX_NAME, FOLDER, REPORT_NAME}
    for path in sorted(Path(data_set.folder).iterdir()):
        shard = "" in data_set.splits and path.suffix == ".tar"
        if path.name not in known and not is_litter(path.name) and not shard:
            notes.add("files beside the shards that are not taken along", f"{data_set.folder}/{path.name}")


BESIDE = (INFO_NAME, TOKENIZER)
"""What is taken along from beside the shards, where one data set becomes one."""


def _refuse_large(index: Index) -> None:
    large = [pattern for pattern in index.patterns if LARGE in pattern.states]
    if large:
        sample = index.first(large)
        size = max(size for _, size in sample.members.values())
        raise BuildError(
            f"{index.path(sample.shard)}: {sample.key!r} has a member of {size} bytes; more than {MAX_ENCODED_BYTES}"
            " are not read: write the shard without it"
        )
