"""One shard of people's own samples: read, checked, written; and the record of what came of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.index import LABEL
from mmpretrain.data.writing import RawSample, write_shard
from mmpretrain.files import replace_text
from shards.build_plan import Job
from shards.sources.findings import Findings
from shards.sources.labels import counted, written
from shards.sources.members import MemberError, make_member
from shards.sources.sample import MemberKind, Source, SourceSample
from shards.work_folder import appearing, record_path

BLOCK = 512


class Incomplete(StrEnum):
    """What happens to a sample that lacks a modality, or has one that cannot be read."""

    drop = "drop"
    """It is left out, and named in the report."""

    keep = "keep"
    """What it has is written, if that is anything."""


@dataclass
class ShardRecord:
    """What a shard holds and what was left out of it; the same whoever wrote it.

    keys: of its samples, in order. digests: modality -> one hash per sample of its images or sounds, '' for none.
    members: ``NAME.EXT`` -> count. bytes: of the members. gray: modality -> whether all its images have one channel.
    labels: class number -> count. dropped: findings. files: path -> [size, time of change] of every file read.
    """

    keys: list[str] = field(default_factory=list)
    digests: dict[str, list[str]] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    gray: dict[str, bool] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, Any] = field(default_factory=dict)
    seen: int = 0
    files: dict[str, list[int]] = field(default_factory=dict)
    kept: bool = False
    """Whether an earlier, killed build wrote it."""


def make_shard(source: Source, job: Job, incomplete: Incomplete, folder: Path | None) -> ShardRecord:
    """Write a shard below ``folder``, or with None only look at its samples.

    A shard that an earlier, killed build finished is kept, unless a file that it was made of has changed since.
    """
    if folder is None:
        record = ShardRecord()
        for _ in _raw_samples(source, job, incomplete, record):
            pass
        return record
    kept = _finished(folder, job)
    if kept is not None:
        return kept
    record = ShardRecord()
    target = folder / f"{job.name}.tar"
    with appearing(target) as partial:
        write_shard(partial, _raw_samples(source, job, incomplete, record))
        if not record.keys:
            partial.unlink()
            target.unlink(missing_ok=True)
    replace_text(record_path(folder, job.name), json.dumps(asdict(record)))
    return record


def _finished(folder: Path, job: Job) -> ShardRecord | None:
    """The record of a shard that is complete and still true; its text went to the disk after the tar."""
    path = record_path(folder, job.name)
    if not path.exists():
        return None
    record = stored_record(folder, job)
    record.kept = True
    whole = not record.keys or (folder / f"{job.name}.tar").exists()
    return record if whole and all(_stamp(Path(p)) == stamp for p, stamp in record.files.items()) else None


def stored_record(folder: Path, job: Job) -> ShardRecord:
    """The record that was written beside a finished shard."""
    return ShardRecord(**json.loads(record_path(folder, job.name).read_text(encoding="utf-8")))


def _stamp(path: Path) -> list[int]:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return []
    return [found.st_size, found.st_mtime_ns]


def _raw_samples(source: Source, job: Job, incomplete: Incomplete, record: ShardRecord) -> Iterator[RawSample]:
    """Samples as the tar takes them; fills in the record on the way."""
    dropped, further = Findings(), _further_texts(source, job)
    for number, sample in source.samples(job.source_split, job.rows):
        record.seen += 1
        if number in job.further:
            sample = _joined(sample, [further[row] for row in job.further[number]])
        key = job.renamed.get(number, sample.key)
        for content in sample.contents.values():
            if content.path is not None:
                record.files[str(content.path)] = _stamp(content.path)
        raw = _members(source, sample, incomplete, dropped, record)
        if raw is None:
            continue
        if sample.label is not None:
            raw[f"{LABEL}.cls"] = written(sample.label)
            for number in counted(sample.label):
                record.labels[str(number)] = record.labels.get(str(number), 0) + 1
        elif source.label is not None:
            dropped.add("no label (the sample is kept)", sample.where)
        _count(record, key, raw)
        yield {"__key__": key, **raw}
    record.dropped = dropped.to_json()


def _further_texts(source: Source, job: Job) -> dict[int, SourceSample]:
    """Rows that only bring texts to samples of this shard; they may lie anywhere in the source."""
    rows = np.array(sorted(row for rows in job.further.values() for row in rows), dtype=np.int64)
    return dict(source.samples(job.source_split, rows)) if len(rows) else {}


def _joined(sample: SourceSample, others: list[SourceSample]) -> SourceSample:
    """The sample with the texts of all, each text once."""
    contents = dict(sample.contents)
    for modality in dict.fromkeys(name for other in [sample, *others] for name in other.contents):
        found = [other.contents[modality] for other in [sample, *others] if modality in other.contents]
        texts = dict.fromkeys(text for content in found for text in content.texts or ())
        contents[modality] = replace(found[0], texts=tuple(texts)) if texts else found[0]
    return replace(sample, contents=contents)


def _members(
    source: Source, sample: SourceSample, incomplete: Incomplete, dropped: Findings, record: ShardRecord
) -> dict[str, bytes | str] | None:
    """``NAME.EXT`` -> bytes; None for a sample that is left out. record: gets digests, and channels of images."""
    raw: dict[str, bytes | str] = {}
    digests, gray = {}, {}
    for column in source.columns:
        content = sample.contents.get(column.modality)
        try:
            if content is None:
                raise MemberError("missing")
            member = make_member(content)
        except MemberError as error:
            named = str(content.path) if content is not None and content.path is not None else sample.where
            dropped.add(f"{column.modality}: {error.reason}", f"{_short(source, named)}: {error}")
            continue
        raw[f"{column.modality}.{member.suffix}"] = member.data
        if column.kind is not MemberKind.text:
            digests[column.modality] = hashlib.blake2b(member.data, digest_size=16).hexdigest()
        if column.kind is MemberKind.image:
            gray[column.modality] = member.gray
    if not raw or (incomplete is Incomplete.drop and len(raw) < len(source.columns)):
        return None
    for column in source.columns:
        if column.kind is not MemberKind.text:
            record.digests.setdefault(column.modality, []).append(digests.get(column.modality, ""))
    for modality, value in gray.items():
        record.gray[modality] = record.gray.get(modality, True) and value
    return raw


def _short(source: Source, path: str) -> str:
    """A path as people know it: below the source's root where it is."""
    return path.removeprefix(f"{source.root}{os.sep}")


def _count(record: ShardRecord, key: str, raw: dict[str, bytes | str]) -> None:
    record.keys.append(key)
    for name, data in raw.items():
        record.members[name] = record.members.get(name, 0) + 1
        record.bytes += BLOCK + -(-len(data) // BLOCK) * BLOCK  # a header, and whole blocks
