"""Index of a folder of WebDataset tars: build it, load it, check it against the files (no torch here)."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from mmpretrain.data.fetch import read_remote
from mmpretrain.data.index_build import INDEX_NAME, build_index
from mmpretrain.data.index_scan import ShardError, reindex
from mmpretrain.data.index_shard import LABEL, Pattern, Shard, Span, modality_of
from mmpretrain.data.index_table import Index, Sample
from mmpretrain.data.index_text import from_text
from mmpretrain.data.index_verify import verify_shards
from mmpretrain.files import open_file

__all__ = [
    "INDEX_NAME",
    "INFO_NAME",
    "LABEL",
    "SPLITS",
    "DatasetState",
    "Index",
    "IndexMissingError",
    "Pattern",
    "Sample",
    "Shard",
    "ShardError",
    "Span",
    "build_index",
    "dataset_state",
    "is_remote",
    "load_index",
    "modality_of",
    "read_bytes",
    "read_text",
    "verify_shards",
]

INFO_NAME = "dataset.json"
SPLITS = ("train", "test")


class IndexMissingError(ShardError):
    """The folder has no index.json."""


class DatasetState(Enum):
    """Whether anything was ever built at a path."""

    missing = "missing"
    built = "built"


def load_index(folder: str | Path) -> Index:
    """Read the index.json of a local or remote folder; neither tars nor columns are touched.

    Raises:
        IndexMissingError: there is none.
        ShardError: it is damaged or cannot be read.
    """
    source = f"{str(folder).rstrip('/')}/{INDEX_NAME}"
    try:
        text = read_bytes(source)
    except (FileNotFoundError, NotADirectoryError):
        raise IndexMissingError(f"{source} is missing: {reindex(folder)}") from None
    except OSError as error:
        raise ShardError(f"{source} cannot be read ({error})") from None
    return from_text(folder, text)


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


def read_text(source: str) -> str:
    """Content of a local or remote text file; raises as :func:`read_bytes`."""
    return read_bytes(source).decode("utf-8")


def read_bytes(source: str) -> bytes:
    """Content of a local or remote file.

    Raises OSError, FileNotFoundError where there is none, and ShardError for a URL that nothing is fetched from.
    """
    if not is_remote(source):
        with open_file(source) as file:
            return file.readall()
    return read_remote(source)
