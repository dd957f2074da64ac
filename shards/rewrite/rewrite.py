"""A new data set out of the samples of others: in parallel, resumable, the same bytes whoever writes them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpretrain.data.index import build_index
from mmpretrain.data.pool import in_order
from mmpretrain.data.writing import BuildError, Overwrite, move_into_place, write_shard
from mmpretrain.files import replace_text
from shards.build_workers import deaths_named
from shards.report import megabytes
from shards.rewrite.keys import Progress, refuse_repeated_keys
from shards.rewrite.pieces import Piece
from shards.rewrite.samples import SplitSamples, verify
from shards.sources.findings import Findings
from shards.work_folder import RECORDS, appearing, free_bytes, record_path, tidy, work_folder

FORM = 1
"""Of the shards and records: what was killed is not gone on with by code that writes others."""


@dataclass(frozen=True)
class Plan:
    """What is to be made.

    splits: folder below the target -> samples. pieces: the new shards of all splits, in order. beside: writes what
    lies beside the shards into a folder. identity: what makes this command another one than those before.
    advice: what to do about keys that come more than once.
    """

    splits: Mapping[str, SplitSamples]
    pieces: list[Piece]
    beside: Callable[[Path], None]
    identity: Any
    advice: str


@dataclass(frozen=True)
class Rewritten:
    """What came of it, by split. kept: shards that an earlier, killed run had finished. asides: notes for people."""

    samples: dict[str, int]
    shards: dict[str, int]
    fingerprints: dict[str, str]
    kept: int
    asides: Findings = field(default_factory=Findings)


def refuse_target(target: Path, sources: list[str]) -> None:
    """Raise BuildError if the target is there already or lies inside of what is read."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise BuildError(f"{target} is there already: choose another TARGET, or remove it")
    for source in sources:
        if target.is_relative_to(os.path.realpath(source)):
            raise BuildError(f"{target} lies in {source}: choose a TARGET outside of what is read")


def rewrite(plan: Plan, target: Path, workers: int, asides: Findings, progress: Progress) -> Rewritten:
    """Make the data set at ``target``, which appears whole or not at all; until then it grows in a hidden folder
    beside it, where the same command goes on.

    Raises:
        BuildError: the disk has no room, keys come more than once, or another process makes the same now.
        ShardError: a source shard is missing or not the one that was indexed.
    """
    content = {"form": FORM, "pieces": plan.pieces, "what": plan.identity}
    identity = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    with work_folder(target, identity, asides) as folder:
        _check_room(plan, folder, target)
        for split, samples in plan.splits.items():
            _check_keys(split, samples, folder, plan.advice, progress)
            _verify_sources(split, samples, folder, workers, progress)
        kept = _write(plan, folder, workers, progress)
        counts, shards, fingerprints = {}, {}, {}
        for split, samples in plan.splits.items():
            index = build_index(folder / split, workers=workers)
            if len(index) != len(samples):
                raise BuildError(f"{folder / split} has {len(index)} samples instead of {len(samples)}: remove it")
            counts[split], shards[split] = len(index), len(index.shards)
            fingerprints[split] = index.fingerprint
        plan.beside(folder)
        tidy(folder)
        move_into_place(folder, target, Overwrite.same_dataset)
    return Rewritten(counts, shards, fingerprints, kept, asides)


def _check_room(plan: Plan, folder: Path, target: Path) -> None:
    """A rough sum before the work instead of a full disk in the middle of it."""
    done = sum(path.stat().st_size for path in folder.rglob("*.tar"))
    needed = sum(samples.bytes for samples in plan.splits.values()) - done
    free = free_bytes(target)
    if needed > free:
        raise BuildError(
            f"{target.parent} has {megabytes(free)} left, and the new shards need about {megabytes(needed)}: make room,"
            " or choose another TARGET"
        )


def _check_keys(split: str, samples: SplitSamples, folder: Path, advice: str, progress: Progress) -> None:
    passed = record_path(folder, f"{split}-keys")
    if not passed.exists():
        refuse_repeated_keys(samples, passed.with_suffix(".hashes"), advice, progress)
        replace_text(passed, "{}")


def _verify_sources(split: str, samples: SplitSamples, folder: Path, workers: int, progress: Progress) -> None:
    """Hash what was not hashed before; what was is remembered by the file's identity."""
    path = folder / RECORDS / f"{split}-verified"
    lines = path.read_text().splitlines() if path.exists() else []
    entries = [tuple(map(int, line.split())) for line in lines if line.endswith(" 0")]  # a line may be torn
    known = {entry[:2]: entry[2:6] for entry in entries if len(entry) == 7}
    total = sum(len(origin.reader.index.shards) for origin in samples.origins)
    with path.open("a") as file:
        for place, identity in verify(samples, known, workers):
            known[place] = identity
            file.write(" ".join(map(str, (*place, *identity, 0))) + "\n")
            file.flush()
            progress("source shards verified", len(known), total)


@dataclass(frozen=True)
class _Setting:
    """What every process that writes shards needs."""

    folder: Path
    splits: Mapping[str, SplitSamples]


def _write(plan: Plan, folder: Path, workers: int, progress: Progress) -> int:
    """Write all shards that are not there yet; returns how many are."""
    total, done, kept = sum(map(len, plan.splits.values())), 0, 0
    made = in_order(_write_piece, plan.pieces, workers, _remember, (folder, plan.splits))
    with deaths_named():
        for piece, was_there in zip(plan.pieces, made, strict=True):
            done += piece.stop - piece.start
            kept += was_there
            progress("samples", done, total)
    return kept


_setting: _Setting | None = None


def _remember(folder: Path, splits: Mapping[str, SplitSamples]) -> None:
    """In the process that works: remember what is written, and where."""
    global _setting
    _setting = _Setting(folder, splits)


def _write_piece(piece: Piece) -> bool:
    """Write one shard; whether it was there already."""
    assert _setting is not None
    setting = _setting
    target, record = setting.folder / f"{piece.name}.tar", record_path(setting.folder, piece.name)
    if record.exists() and target.exists():  # the record went to the disk after the tar
        return True
    with appearing(target) as partial:
        write_shard(partial, setting.splits[piece.split].samples(piece.start, piece.stop))
    replace_text(record, "{}")
    return False


def copy_beside(source: Path, names: tuple[str, ...]) -> Callable[[Path], None]:
    """A function that copies files and folders of these names, where they are, into a folder."""

    def copy(folder: Path) -> None:
        for name in names:
            if (source / name).is_dir():
                shutil.copytree(source / name, folder / name, dirs_exist_ok=True)
            elif (source / name).is_file():
                shutil.copyfile(source / name, folder / name)

    return copy
