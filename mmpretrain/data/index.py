"""Index of a folder of WebDataset tars: build it, load it, check it against the files (no torch here)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from mmpretrain.data.fetch import read_remote
from mmpretrain.data.index_scan import ShardError, is_litter, scan_shard
from mmpretrain.data.index_table import LABEL, Index, Sample, Shard, Span, group_members, modality_of, reindex
from mmpretrain.files import replace_text
from mmpretrain.words import listed

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
    "dataset_state",
    "is_remote",
    "load_index",
    "modality_of",
    "read_text",
    "verify_shards",
]

INDEX_NAME = "index.json"
INFO_NAME = "dataset.json"
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
        ShardError: there is no tar, or one that readers would misread (see ``scan_shard``), or a key twice in one.
    """
    tars = sorted(tar for tar in Path(folder).glob("*.tar") if not is_litter(tar.name))
    if not tars:
        raise ShardError(f"{folder}: has no *.tar to index: build the shards first, or name the folder of a split")
    shards = []
    for tar in tars:
        if progress is not None:
            progress(tar.name)
        scanned = scan_shard(tar)
        if scanned.skipped and progress is not None:
            progress(f"  passed over {listed(scanned.skipped, 3)}: what systems leave beside files")
        shards.append(group_members(Path(folder), scanned))
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
    """Whether a dataset was ever built at a path; how sound it is, data/index_checks.py says.

    A remote path counts as built, because no command of this project makes it.
    """
    if is_remote(path) or (Path(path) / INFO_NAME).exists():
        return DatasetState.built
    parts = [Path(path), *(Path(path) / split for split in SPLITS)]
    found = any((part / INDEX_NAME).exists() or any(part.glob("*.tar")) for part in parts)
    return DatasetState.built if found else DatasetState.missing


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
    """Content of a local or remote text file.

    Raises OSError, FileNotFoundError where there is none, and ShardError for a store that does not give it.
    """
    if not is_remote(source):
        return Path(source).read_text(encoding="utf-8")
    return read_remote(source).decode("utf-8")
