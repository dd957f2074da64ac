"""What all builders share: deterministic tars, and a folder that appears whole or not at all."""

from __future__ import annotations

import filecmp
import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum
from itertools import islice
from pathlib import Path

import numpy as np

from mmpretrain.data.index import INFO_NAME, ShardError, build_index, load_index
from mmpretrain.data.info import DatasetInfo, load_info
from mmpretrain.files import replace_text

SAMPLES_PER_SHARD = 128

RawSample = dict[str, bytes | str]  # "__key__" -> str, extension ("left.png") -> bytes


def npy(values: np.ndarray) -> bytes:
    """An array as numpy.save writes it, without pickle."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


class BuildError(ValueError):
    """A dataset cannot be built; the message names the file and the fix."""


class Overwrite(Enum):
    """What a build may replace: an older build of the same dataset, or whatever is there."""

    same_dataset = "same_dataset"
    anything = "anything"


class Outcome(StrEnum):
    """What a build did to its folder."""

    built = "built"
    unchanged = "unchanged"
    replaced = "replaced"


@dataclass(frozen=True)
class Build:
    """A finished dataset. samples and fingerprints: by split."""

    path: Path
    name: str
    outcome: Outcome
    samples: dict[str, int]
    fingerprints: dict[str, str]


def build_dataset(
    out: str | Path,
    info: DatasetInfo,
    splits: Mapping[str, Iterable[RawSample]],
    extras: Callable[[Path], None] | None = None,
    overwrite: Overwrite = Overwrite.same_dataset,
) -> Build:
    """Write a dataset beside ``out`` and move it there when it is complete.

    splits: name -> samples, keys unique within a split. extras: writes further files (a tokenizer) into the folder.

    Raises:
        BuildError: ``out`` holds something that may not be replaced, or its parent cannot be written.
    """
    target = Path(os.path.realpath(out))
    refuse_overwrite(target, info.name, overwrite)
    with _sibling(target) as partial:
        for split, samples in splits.items():
            write_split(partial / split, samples)
        if extras is not None:
            extras(partial)
        replace_text(partial / INFO_NAME, info.to_json())
        outcome = move_into_place(partial, target, overwrite)
    indexes = {split: load_index(target / split) for split in splits}
    samples_by_split = {split: len(index) for split, index in indexes.items()}
    fingerprints = {split: index.fingerprint for split, index in indexes.items()}
    return Build(Path(out), info.name, outcome, samples_by_split, fingerprints)


def write_split(folder: Path, samples: Iterable[RawSample], per_shard: int = SAMPLES_PER_SHARD) -> None:
    """Write samples to ``shard-NNNNNN.tar`` and index them; the same samples give the same bytes."""
    folder.mkdir(parents=True)
    remaining = iter(samples)
    number = 0
    while chunk := list(islice(remaining, per_shard)):
        write_shard(folder / f"shard-{number:06d}.tar", chunk)
        number += 1
    build_index(folder)


def write_shard(path: Path, samples: Iterable[RawSample]) -> None:
    """Write samples to one tar and flush it to the disk; the same samples give the same bytes."""
    import webdataset

    with open(path, "wb") as file:
        options = {"encoder": False, "user": "", "group": "", "mode": 0o644, "mtime": 0, "compress": False}
        options["keep_meta"] = True  # else members whose ending begins with '_' would be left out in silence
        with webdataset.TarWriter(file, **options) as tar:
            for sample in samples:
                tar.write(sample)
        file.flush()
        os.fsync(file.fileno())


def refuse_overwrite(target: Path, name: str, overwrite: Overwrite) -> None:
    """Raise BuildError if a folder may not be replaced by dataset ``name``; builders call it before they work."""
    if Path.cwd().is_relative_to(target):
        raise BuildError(f"{target} contains the current folder: choose another output folder")
    if not target.exists() or overwrite is Overwrite.anything:
        return
    if not target.is_dir():
        raise BuildError(f"{target} is a file: choose another output folder, or --force to replace it")
    if not any(target.iterdir()):
        return
    try:
        found = load_info(target).name
    except (OSError, ShardError):
        problem = (
            f"{target} is not a dataset that mmpretrain built: choose another output folder, or --force to replace it"
        )
        raise BuildError(problem) from None
    if found != name:
        raise BuildError(
            f"{target} holds the dataset {found!r}: choose another output folder, or --force to replace it"
        )


@contextmanager
def _sibling(target: Path) -> Iterator[Path]:
    """A hidden folder on the target's file system, gone at the end unless it was moved."""
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise BuildError(
            f"{target.parent} cannot be written ({error.strerror}): choose another output folder"
        ) from None
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def move_into_place(partial: Path, target: Path, overwrite: Overwrite) -> Outcome:
    """Put a complete folder in place, unless the same is there already (then ``partial`` stays where it is).

    Raises BuildError: the folder that is there holds files that the new one has not.
    """
    try:
        os.rename(partial, target)
        return Outcome.built
    except OSError:
        if not target.exists():
            raise
    if target.is_dir() and _contains(target, partial):
        return Outcome.unchanged
    foreign = set(os.listdir(target)) - set(os.listdir(partial)) if target.is_dir() else set()
    if foreign and overwrite is not Overwrite.anything:
        raise BuildError(f"{target} also holds {min(foreign)!r}: move it away, or --force to replace the folder")
    old = partial.with_suffix(".old")
    os.rename(target, old)
    try:
        os.rename(partial, target)
    except BaseException:
        os.rename(old, target)
        raise
    shutil.rmtree(old) if old.is_dir() else old.unlink()
    return Outcome.replaced


def _contains(target: Path, fresh: Path) -> bool:
    """Whether every file of ``fresh`` is in ``target`` with the same bytes, and no shard besides."""
    names = {str(path.relative_to(fresh)) for path in fresh.rglob("*") if path.is_file()}
    shards = {str(path.relative_to(target)) for path in target.glob("*/*.tar")}
    if not shards <= names:
        return False
    return all((target / n).is_file() and filecmp.cmp(fresh / n, target / n, shallow=False) for n in names)
