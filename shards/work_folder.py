"""The hidden folder in which a dataset grows: found again after a kill, owned by one build at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmpretrain.data.writing import BuildError
from shards.sources.findings import Findings

LOCK = "lock"
RECORDS = "records"


@contextmanager
def work_folder(target: Path, identity: str, asides: Findings) -> Iterator[Path]:
    """``.NAME.IDENTITY.partial`` beside ``target``; it stays when the build fails, so that the same build goes on.

    Unfinished builds of the same target from other input or other options are removed; ``asides`` says so.
    Raises BuildError: another process builds the same now, or the folder cannot be made.
    """
    folder = target.parent / f".{target.name}.{identity[:12]}.partial"
    try:
        (folder / RECORDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"{target.parent} cannot be written ({error.strerror}): choose another OUT") from None
    with _owned(folder, target):
        for torn in folder.rglob(".*.partial"):
            torn.unlink(missing_ok=True)
        for other in target.parent.glob(f".{target.name}.*.partial"):
            if other != folder and (other / RECORDS).is_dir():
                _remove_other(other, target, asides)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)  # still there where the target is the same already


def tidy(folder: Path) -> None:
    """Take away what only the build needed, before the folder is moved."""
    shutil.rmtree(folder / RECORDS)
    for split in folder.iterdir():
        if split.is_dir() and not any(split.iterdir()):
            split.rmdir()
    (folder / LOCK).unlink()


def free_bytes(target: Path) -> int:
    """Bytes left where ``target`` would lie."""
    there = next(path for path in [target.resolve(), *target.resolve().parents] if path.exists())
    return shutil.disk_usage(there).free


def record_path(folder: Path, name: str) -> Path:
    """Where the record of a finished shard lies while its dataset grows. name: the shard's path, without suffix."""
    return folder / RECORDS / f"{name.replace('/', '-')}.json"


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A path beside ``target`` to write to; what is there at the end becomes ``target``, unless an error came."""
    target.parent.mkdir(exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        if partial.exists():
            os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _owned(folder: Path, target: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when this process ends, however it ends."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BuildError(f"another process is building {target} now: wait for it, or end it") from None
        yield
    finally:
        os.close(descriptor)


def _remove_other(other: Path, target: Path, asides: Findings) -> None:
    with _owned(other, target):
        shutil.rmtree(other)
    asides.add("an unfinished build of other input or other options was there and is removed", other.name)
