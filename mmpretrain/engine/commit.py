"""The commit protocol of checkpoints, on files alone (no torch here).

checkpoints/
  step-00000042.tmp/      being written; ignored and removed by the next start
  step-00000042/          complete: MANIFEST.json lists size and sha256 of every other file in it
  latest                  text: the newest complete folder's name (for people; nothing relies on it)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "MANIFEST.json"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or none of those that exist can be used."""


@dataclass(frozen=True)
class Found:
    """What a look into a checkpoint folder gave. damaged: one sentence per folder that was passed over."""

    folder: Path | None
    manifest: dict[str, Any]
    damaged: list[str]


def step_folder(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` steps lies."""
    return checkpoints / f"step-{step:08d}"


def start_writing(checkpoints: Path, step: int) -> Path:
    """An empty ``step-N.tmp`` to write into; leftovers of earlier attempts are removed."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    for leftover in checkpoints.glob("step-*.tmp"):
        shutil.rmtree(leftover)
    folder = step_folder(checkpoints, step).with_suffix(".tmp")
    folder.mkdir()
    return folder


def commit(writing: Path, facts: dict[str, Any], world_size: int) -> Path:
    """Turn a fully written ``step-N.tmp`` into ``step-N``: manifest, fsync, rename, ``latest``.

    Raises CheckpointError when a rank's done-marker is missing.
    """
    absent = [rank for rank in range(world_size) if not done_marker(writing, rank).exists()]
    if absent:
        raise CheckpointError(f"{writing}: ranks {absent} did not finish writing; the previous checkpoint stays in use")
    files = {str(path.relative_to(writing)): _describe(path) for path in _files(writing)}
    _write(writing / MANIFEST, json.dumps({**facts, "world_size": world_size, "files": files}, indent=1))
    for directory in [writing, *(path for path in writing.rglob("*") if path.is_dir())]:
        _sync(directory)
    final = writing.with_suffix("")
    if final.exists():  # only a damaged one can stand here: a run never writes the same step twice otherwise
        shutil.rmtree(final)
    os.rename(writing, final)
    replace_text(final.parent / "latest", final.name)
    return final


def done_marker(writing: Path, rank: int) -> Path:
    """The file by which a rank says that all of its own files are written."""
    return writing / f"rank-{rank:05d}.done"


def newest_complete(checkpoints: Path) -> Found:
    """The newest checkpoint whose files all match its manifest; nothing is unpickled to find out."""
    damaged: list[str] = []
    for folder in sorted(checkpoints.glob("step-*"), reverse=True):
        if not re.fullmatch(r"step-\d{8,}", folder.name):
            continue
        problem, manifest = _verify(folder)
        if problem is None:
            return Found(folder, manifest, damaged)
        damaged.append(f"{folder.name}: {problem}")
    return Found(None, {}, damaged)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete checkpoint."""
    return json.loads((folder / MANIFEST).read_text())


def newest_step(checkpoints: Path) -> int | None:
    """The step of the newest folder that has a manifest, without checking its files (for messages)."""
    steps = [
        int(path.parent.name[5:]) for path in checkpoints.glob(f"step-*/{MANIFEST}") if path.parent.name[5:].isdigit()
    ]
    return max(steps, default=None)


def prune(checkpoints: Path, keep_last: int, keep_every: int | None) -> None:
    """Delete complete checkpoints apart from the newest ``keep_last`` and those at multiples of ``keep_every``."""
    folders = sorted(path for path in checkpoints.glob("step-*") if path.name[5:].isdigit())
    for folder in folders[:-keep_last]:
        if keep_every is None or int(folder.name[5:]) % keep_every:
            shutil.rmtree(folder)


def replace_text(path: Path, text: str) -> None:
    """Replace a small file atomically and durably."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _write(temporary, text)
    os.replace(temporary, path)
    _sync(path.parent)


def _verify(folder: Path) -> tuple[str | None, dict[str, Any]]:
    try:
        manifest = read_manifest(folder)
        listed = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return "no readable MANIFEST.json", {}
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing", {}
        if path.stat().st_size != expected["size"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['size']}", {}
        if _describe(path)["sha256"] != expected["sha256"]:
            return f"the content of {name} has changed since it was written", {}
    return None, manifest


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"size": stream.tell(), "sha256": digest}


def _write(path: Path, text: str) -> None:
    with path.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
