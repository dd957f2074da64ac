"""What an index says about a split before a run reads it: nothing is hashed, only some labels are read (no torch)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpretrain.config.data import DataConfig, Incomplete, Unread, Verify
from mmpretrain.data.decode import SampleError
from mmpretrain.data.fetch import remote_size
from mmpretrain.data.index import INDEX_NAME, SPLITS, Index, IndexMissingError, ShardError, is_remote, load_index
from mmpretrain.data.index_scan import is_litter, reindex
from mmpretrain.data.members import Members, plain_members
from mmpretrain.data.reader import Reader
from mmpretrain.data.samples import label_of
from mmpretrain.data.split import TRAIN, Fault, Split, again, find_faults, of_indexes, split_folders
from mmpretrain.words import listed

LARGE_IN_MEMORY = 1_000_000  # samples
ASKED, AT_ONCE = 32, 8  # files of a web server whose size is asked for: a start must not wait for thousands of answers
MISSING = -1
LABELS_READ = 500  # evenly spaced: wrong labels are seldom wrong in one sample alone
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2", ".tar.lz4", ".zip")


@dataclass(frozen=True)
class Checked:
    """problems stop a run; notes are good to know. samples: that the split offers, None if it cannot be read."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    samples: int | None = None


def check_split(config: DataConfig, split: str, lacking: bool = False) -> Checked:
    """Whether a split of a data set can be read as ``config`` says; nothing is raised.

    lacking: whether optional modalities may be nowhere.
    """
    config = config if split == TRAIN else config.without_negatives
    problems: list[str] = []
    notes: list[str] = []
    indexes: list[Index] = []
    for folder in split_folders(config, split):
        try:
            indexes.append(_index(folder, config.build))
            problems += _size_problems(indexes[-1], _tar_sizes(indexes[-1]), config.build)
            problems += _column_problems(indexes[-1])
            notes += _earlier(indexes[-1])
        except (ShardError, OSError) as error:
            return Checked((*problems, str(error)), tuple(notes))
        (notes if config.unread is Unread.ignore else problems).extend(_unread(folder))
    try:
        opened = of_indexes(config, split, indexes, lacking)
    except ShardError as error:
        return Checked((*problems, str(error)), tuple(notes))
    problems += [f"{opened.index.folder}: {problem}" for problem in opened.problems]
    if not opened.problems:
        found, said = _faults(config, split, opened)
        problems += [*found, *_labels(config, opened)] if not problems else found
        notes += said
    return Checked(tuple(problems), tuple(notes), len(opened.index))


def _index(folder: str, build: str | None) -> Index:
    """Raises ShardError with what mends it."""
    try:
        return load_index(folder)
    except IndexMissingError as error:
        if is_remote(folder) or not any(_tars(Path(folder))):
            raise ShardError(f"{folder}/{INDEX_NAME} is missing: {again(build)}") from None
        raise error


def _tars(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*.tar") if not is_litter(path.name))


def _tar_sizes(index: Index) -> dict[str, int]:
    """Name -> bytes of every tar in a folder."""
    sizes = _sizes(index.folder, {shard.name: shard.bytes for shard in index.shards})
    return {name: size for name, size in sizes.items() if name.endswith(".tar") and not is_litter(name)}


def _sizes(folder: str, wanted: dict[str, int]) -> dict[str, int]:
    """Name -> bytes of every file in a folder. Raises OSError where there is none.

    Web servers have no list of files: some of those that should be there are asked for, the others taken as they should
    be; what is wrong with them is found when they are fetched.
    """
    if not is_remote(folder):
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    if folder.startswith(("http://", "https://")):
        return _told_sizes(folder, wanted)
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(str(folder))
    found = filesystem.ls(root, detail=True)
    return {entry["name"].rpartition("/")[2]: entry["size"] for entry in found if entry["type"] == "file"}


def _told_sizes(folder: str, wanted: dict[str, int]) -> dict[str, int]:
    found, asked = dict(wanted), list(wanted)[:: max(1, len(wanted) // ASKED)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(_told_size, [f"{folder}/{name}" for name in asked]))
    for name, size in zip(asked, answers, strict=True):
        if size == MISSING:
            del found[name]
        elif size is not None:
            found[name] = size
    return found


def _told_size(url: str) -> int | None:
    """What a web server says; None if it does not say it, MISSING where there is no such file."""
    try:
        return remote_size(url)
    except FileNotFoundError:
        return MISSING


def _size_problems(index: Index, sizes: dict[str, int], build: str | None) -> Iterator[str]:
    advice = again(build) if build else f"restore it, or {reindex(index.folder)} if the change is meant"
    for shard in index.shards:
        size = sizes.get(shard.name)
        if size is None:
            yield f"{index.path(shard)} is missing: {advice}"
        elif size != shard.bytes:
            yield f"{index.path(shard)} has {size} bytes, the index says {shard.bytes}: {advice}"
    for name in sorted(set(sizes) - {shard.name for shard in index.shards}):
        yield f"{index.folder}/{name} is not in the index: {reindex(index.folder)}"


def _column_problems(index: Index) -> Iterator[str]:
    """A sentence if columns are missing, or not those of the index; their content is compared when they are read."""
    stored = [(url, content.bytes) for shard in index.shards for url, content in index.files(shard)[1:]]
    sizes: dict[str, int] = {}
    if stored:
        with suppress(FileNotFoundError):
            sizes = _sizes(stored[0][0].rpartition("/")[0], {_name(url): size for url, size in stored})
    unfit = [url for url, size in stored if sizes.get(_name(url)) != size]
    if unfit:
        yield (
            f"{listed(unfit, 1)}: columns of {len(unfit)} of {len(stored)} shards are missing or out of date:"
            f" {'upload them with their shards' if is_remote(index.folder) else reindex(index.folder)}"
        )


def _name(url: str) -> str:
    return url.rpartition("/")[2]


def _earlier(index: Index) -> Iterator[str]:
    """A note on an index of an earlier version, which every process would hold in memory."""
    if len(index) >= LARGE_IN_MEMORY and len(index.files(index.shards[0])) == 1:
        yield f"{index.folder}: every process holds the old index of {len(index)} samples: {reindex(index.folder)}"


def _unread(folder: str) -> Iterator[str]:
    """A sentence for what lies beside the shards and looks like data that is not read."""
    if is_remote(folder):
        return
    root, ways = Path(folder), "move it away or set data.unread=ignore"
    if packed := sorted(
        path.name for path in root.iterdir() if path.name.endswith(PACKED) and not is_litter(path.name)
    ):
        yield f"{folder}: {listed(packed, 3)} would not be read, because only plain .tar files are: unpack it, {ways}"
    # A folder of tars may hold those of its test split.
    below = sorted(
        str(tar.relative_to(root))
        for tar in root.glob("*/*.tar")
        if not is_litter(tar.name) and tar.parent.name not in SPLITS
    )
    if below:
        yield (
            f"{folder}: {listed(below, 3)} would not be read, because it lies in a sub-folder: name that folder in"
            f" data.more_paths, {ways}"
        )


def _faults(config: DataConfig, split: str, opened: Split) -> tuple[list[str], list[str]]:
    """(problems, notes) about samples that the index shows to be unusable."""
    where, size = opened.index.folder, len(opened.index)
    if config.incomplete is Incomplete.drop:
        causes = [f"{cause}: {count}{_elsewhere(config, opened, cause)}" for cause, count in opened.dropped.items()]
        return [], [
            f"{split}: {size} samples are left, without the incomplete ones ({', '.join(causes)})"
        ] if causes else []
    problems, notes = [], []
    for cause, fault in find_faults(config, opened.index, opened.members).items():
        count, example = fault.samples, _first(opened.index, fault)
        sentence = f"{where}: {count} of {size} samples have {cause} (first: {example})"
        if cause.startswith("no ") or count > config.max_bad_fraction * size:
            held = f"; the shards hold {listed(opened.index.extensions)}" if count == size else ""
            held += _elsewhere(config, opened, cause)
            name = cause.removeprefix("several ")
            choose = f"say which one counts by data.modalities.{name}.member, " if name != cause else ""
            problems.append(
                f"{sentence}{held}: {choose}set data.incomplete=drop to leave them out, or write them again"
            )
        else:
            notes.append(f"{sentence}: others will stand in for them")
    return problems, notes


def _elsewhere(config: DataConfig, opened: Split, cause: str) -> str:
    """Where else a modality that samples lack may lie: folders of one data set may be laid out differently."""
    name = cause.removeprefix("no ")
    if name == cause or name not in config.modalities:
        return ""
    read = opened.members.modalities[name].members
    others = [m for m in plain_members(config.modalities[name].kind, opened.held) if m not in read]
    if not others:
        return ""
    return f"; {listed(others)} may hold it: data.modalities.{name}.member=[{','.join([*read, *others])}] reads both"


def _first(index: Index, fault: Fault) -> str:
    sample = index.first(fault.patterns)
    return f"key {sample.key!r} in {sample.shard.name}"


def _labels(config: DataConfig, opened: Split) -> list[str]:
    """A sentence if some of the labels, evenly spaced, are not what the config says."""
    index, label = opened.index, opened.members.label
    if label is None or not config.labeled or any(is_remote(index.path(shard)) for shard in index.shards):
        return []
    reader = Reader(index, Verify.never, members=Members(label=label), max_open=4)
    bad: list[str] = []
    chosen = np.unique(np.linspace(0, len(index) - 1, LABELS_READ).astype(int)).tolist()
    for ordinal in chosen:
        try:
            label_of(reader.sample(ordinal), label, config.classes or 0, config.label.form, config.label.numbers)
        except SampleError as error:
            bad.append(f"{index.key(ordinal)!r}: {error}")
        except ShardError as error:
            return [str(error)]
    reader.close()
    if len(bad) <= config.max_bad_fraction * len(chosen):
        return []
    advice = "set data.classes to the number of classes, or data.label to where they lie"
    return [f"{index.folder}: {len(bad)} of {len(chosen)} labels cannot be used ({bad[0]}): {advice}"]
