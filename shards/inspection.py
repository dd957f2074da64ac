"""What a dataset or one of its samples holds, as plain values for tables and JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.index import (
    SPLITS,
    Index,
    Sample,
    ShardError,
    is_remote,
    load_index,
)
from mmpretrain.data.index_columns import ABSENT
from mmpretrain.data.info import load_info
from mmpretrain.data.split import holds_shards

LONGEST_PREVIEW = 1 << 20


def split_folders(folder: str) -> list[str]:
    """The folders of tars at or directly below ``folder``. Raises ShardError if there are none."""
    if is_remote(folder):
        return [folder]
    root = Path(folder)
    if not root.is_dir():
        raise ShardError(f"{folder} is no folder: name a dataset or a folder of tars")
    if holds_shards(folder):  # all for training, beside a folder of the test split at most
        return [folder.rstrip("/"), *(str(root / split) for split in SPLITS if holds_shards(str(root / split)))]
    parts = [p for p in root.iterdir() if p.is_dir() and holds_shards(str(p))]
    if not parts:
        raise ShardError(f"{folder} holds no tars: name a dataset or a folder of tars")
    order = {split: number for number, split in enumerate(SPLITS)}
    return [str(p) for p in sorted(parts, key=lambda p: (order.get(p.name, len(order)), p.name))]


def describe_dataset(folder: str) -> dict[str, Any]:
    """{"dataset": content of dataset.json without long lists, or None, "splits": folder -> counts}."""
    try:
        info = asdict(load_info(folder))
    except FileNotFoundError:
        info = {}
    info.pop("statistics", None)
    info.pop("features", None)
    splits = {path: index_counts(load_index(path)) for path in split_folders(folder)}
    return {"dataset": info or None, "splits": splits}


def describe_sample(folder: str, key: str) -> dict[str, Any]:
    """{"key", "shard", "members": extension -> {"offset", "bytes", "content"}}. Raises ShardError if absent."""
    for path in split_folders(folder):
        index = load_index(path)
        ordinal = index.find(key)
        if ordinal is not None:
            sample = index.sample(ordinal)
            return {"key": key, "shard": index.path(sample.shard), "members": _members(index, sample)}
    raise ShardError(f"{folder} has no sample {key!r}; the first is {_first_key(folder)}")


def _first_key(folder: str) -> str:
    index = load_index(split_folders(folder)[0])
    return repr(index.key(0)) if len(index) else "none, it is empty"


def index_counts(index: Index) -> dict[str, Any]:
    """Samples, shards and bytes of a folder of tars, and how many samples have each member."""
    members: dict[str, int] = {}
    for pattern, count in index.patterns.items():
        for extension, state in zip(pattern.extensions, pattern.states, strict=True):
            members[extension] = members.get(extension, 0) + (count if state != ABSENT else 0)
    return {
        "samples": len(index),
        "shards": len(index.shards),
        "bytes": sum(shard.bytes for shard in index.shards),
        "fingerprint": index.fingerprint,
        "members": members,
    }


def _members(index: Index, sample: Sample) -> dict[str, dict[str, Any]]:
    import fsspec

    found = {}
    with fsspec.open(index.path(sample.shard), "rb") as file:
        for extension, (offset, size) in sample.members.items():
            file.seek(offset)
            content = _preview(extension, file.read(min(size, LONGEST_PREVIEW + 1)))
            found[extension] = {"offset": offset, "bytes": size, "content": content}
    return found


def _preview(extension: str, data: bytes) -> str:
    """One line about a member's content; what is no readable text is decoded like in training."""
    from mmpretrain.data.decode import DECODERS

    suffix = extension.rpartition(".")[2]
    if len(data) > LONGEST_PREVIEW:
        return "too long to show"
    if suffix not in DECODERS:
        return repr(data[:80].decode(errors="replace"))
    try:
        return _describe(DECODERS[suffix].decode(data))
    except Exception as error:  # hostile bytes bring libraries to raise nearly anything
        return f"unreadable: {error}"


def _describe(value: Any) -> str:
    """A decoded text, array, sound or image in one line."""
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)} from {value.min():.4g} to {value.max():.4g}"
    if isinstance(value, dict):
        rate = value["sampling_rate"]
        return f"sound of {len(value['array']) / rate:.3g} s at {rate} Hz"
    return f"{value.mode} image, {value.height} x {value.width} pixels"
