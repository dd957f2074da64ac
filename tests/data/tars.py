"""Small tars for tests, and what a reader gets from them."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from mmpretrain.data.index import (
    Index,
)

Members = list[tuple[str, bytes]]


def sample_members(count: int = 4, start: int = 0) -> Members:
    """Two members per sample, with contents that differ."""
    keys = [f"{number:04d}" for number in range(start, start + count)]
    return [(f"{key}.{ext}", f"{key} {ext}".encode() * 3) for key in keys for ext in ("caption.txt", "label.cls")]


def write_tar(path: Path, members: Members, form: int = tarfile.USTAR_FORMAT) -> Path:
    """A plain tar with end mark, padded to whole records like every tar program does."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def contents(index: Index) -> dict[str, dict[str, bytes]]:
    """What a reader gets with nothing but the index and pread."""
    found: dict[str, dict[str, bytes]] = {}
    for ordinal in range(len(index)):
        sample = index.sample(ordinal)
        with open(index.path(sample.shard), "rb") as file:
            spans = sample.members.items()
            found[sample.key] = {ext: os.pread(file.fileno(), size, at) for ext, (at, size) in spans}
    return found


def keys_by_shard(index: Index) -> list[list[str]]:
    """The keys of each shard's samples."""
    return [shard.columns().all_keys() for shard in index.shards]
