"""Index of a folder of WebDataset tars: build it, load it, check it against the files (no torch here)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from enum import Enum
from pathlib import Path

import numpy as np

from mmpretrain.data.index_scan import ShardError, scan_shard
from mmpretrain.data.index_table import Index, Sample, Shard, Span, group_members, modality_of, reindex
from mmpretrain.files import replace_text

__all__ = [
    "INDEX_NAME",
    "INFO_NAME",
    "LABEL",
    "SPLITS",
    "DatasetState",
    "Index",
    "IndexMissingError",
    "Sample",
    "Shard",
    "ShardError",
    "Span",
    "build_index",
    "check_shards",
    "dataset_state",
    "is_remote",
    "load_index",
    "modality_of",
    "read_text",
    "verify_shards",
]

INDEX_NAME = "index.json"
INFO_NAME = "dataset.json"
LABEL = "label"
SPLITS = ("train", "test")


class IndexMissingError(ShardError):
    """The folder has no index.json."""


class DatasetState(Enum):
    """Whether anything was ever built at a path."""

    missing = "missing"
    built = "built"


def build_index(folder: str | Path, progress: Callable[[str], None] | None = None) -> Index:
    """Scan every ``*.tar`` of a local folder and write its index.json.

    progress: called with each shard's name before its scan.

    Raises:
        ShardError: there is no tar, or one that readers would misread (see ``scan_shard``), or a key twice.
    """
    tars = sorted(Path(folder).glob("*.tar"))
    if not tars:
        raise ShardError(f"{folder}: has no *.tar to index: build the shards first, or name the folder of a split")
    shards = []
    for tar in tars:
        if progress is not None:
            progress(tar.name)
        shards.append(group_members(Path(folder), scan_shard(tar)))
    index = Index(folder, shards)
    replace_text(Path(folder) / INDEX_NAME, index.to_json())
    return index


def load_index(folder: str | Path) -> Index:
    """Read the index.json of a local or remote folder; the tars themselves are not touched.

    Raises:
        IndexMissingError: there is none.
        ShardError: it is damaged or cannot be read.
    """
    source = f"{str(folder).rstrip('/')}/{INDEX_NAME}"
    try:
        text = read_text(source)
    except (FileNotFoundError, NotADirectoryError):
        raise IndexMissingError(f"{source} is missing: {reindex(folder)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"{source} cannot be read ({error})") from None
    return Index.from_json(folder, text)


def is_remote(folder: str | Path) -> bool:
    """Whether a folder is an fsspec URL instead of a local path."""
    return "://" in str(folder)


def dataset_state(path: str | Path) -> DatasetState:
    """Whether a dataset was ever built at a path; how sound it is, :func:`check_shards` says.

    A remote path counts as built, because no command of this project makes it.
    """
    if is_remote(path) or (Path(path) / INFO_NAME).exists():
        return DatasetState.built
    parts = [Path(path) / split for split in SPLITS]
    found = any((part / INDEX_NAME).exists() or any(part.glob("*.tar")) for part in parts)
    return DatasetState.built if found else DatasetState.missing


def check_shards(
    folder: str | Path,
    modalities: Iterable[str],
    label_needed: bool = False,
    build_hint: str | None = None,
    optional: Collection[str] = (),
) -> list[str]:
    """Quick preflight of one split: file sizes and the index, no hashing. Returns one sentence per problem.

    modalities: names that samples must have. build_hint: the command that makes the dataset. optional: modalities that
    some samples may lack, but not all.
    """
    again = f"run `{build_hint}`" if build_hint else "build the dataset again"
    try:
        index = load_index(folder)
        sizes = _tar_sizes(folder)
    except IndexMissingError as error:
        has_tars = not is_remote(folder) and any(Path(folder).glob("*.tar"))
        return [str(error) if has_tars else f"{folder}/{INDEX_NAME} is missing: {again}"]
    except (ShardError, OSError) as error:
        return [str(error)]
    found = list(_size_problems(index, sizes, again))
    if not len(index):
        return [*found, f"{folder} has no samples: {again}"]
    wanted = [*modalities, LABEL] if label_needed else list(modalities)
    return found + [problem for name in wanted for problem in _absence(index, name, name in optional)]


def verify_shards(index: Index, progress: Callable[[str], None] | None = None) -> list[str]:
    """Compare the sha256 of every shard of a local folder with the index. Returns one sentence per problem.

    progress: called with each shard's name before it is hashed.
    """
    found = []
    for shard in index.shards:
        if progress is not None:
            progress(shard.name)
        path = index.path(shard)
        try:
            with open(path, "rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            found.append(f"{path} cannot be read: {error.strerror}")
            continue
        if actual != shard.sha256:
            found.append(f"{path} has changed: its sha256 is {actual[:12]}…, the index says {shard.sha256[:12]}…")
    return found


def read_text(source: str) -> str:
    """Content of a local or remote text file. Raises OSError, FileNotFoundError where there is none."""
    if not is_remote(source):
        return Path(source).read_text(encoding="utf-8")
    import fsspec

    with fsspec.open(source, "rt", encoding="utf-8") as file:
        return file.read()


def _tar_sizes(folder: str | Path) -> dict[str, int]:
    """Name -> bytes of every tar in a folder."""
    if not is_remote(folder):
        return {path.name: path.stat().st_size for path in Path(folder).glob("*.tar")}
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(str(folder))
    entries = filesystem.ls(root, detail=True)
    return {e["name"].rpartition("/")[2]: e["size"] for e in entries if e["name"].endswith(".tar")}


def _size_problems(index: Index, sizes: dict[str, int], again: str) -> Iterator[str]:
    for shard in index.shards:
        size = sizes.get(shard.name)
        if size is None:
            yield f"{index.path(shard)} is missing: {again}"
        elif size != shard.bytes:
            yield f"{index.path(shard)} has {size} bytes, the index says {shard.bytes}: {again}"
    for name in sorted(set(sizes) - {shard.name for shard in index.shards}):
        yield f"{index.folder}/{name} is not in the index: {reindex(index.folder)}"


def _absence(index: Index, name: str, optional: bool) -> Iterator[str]:
    """A sentence if some samples (of an optional one: all) have no member of modality (or label) ``name``."""
    absent = [(shard, np.flatnonzero(~shard.holds(name))) for shard in index.shards]
    count = sum(len(rows) for _, rows in absent)
    if not count or (optional and count < len(index)):
        return
    shard, rows = next(pair for pair in absent if len(pair[1]))
    present = sorted({modality_of(extension) for shard in index.shards for extension in shard.extensions})
    yield (
        f"{index.folder}: {count} of {len(index)} samples have no {name!r} (first: key"
        f" {shard.keys[rows[0]]!r} in {shard.name}); the shards hold {', '.join(present)}:"
        f" choose among them, or build the shards with {name!r}"
    )
