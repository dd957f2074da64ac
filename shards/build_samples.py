"""Build a dataset of people's own samples: in parallel, resumable after a kill, the same bytes whoever writes them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmpretrain.config import default_model
from mmpretrain.config.sources import LabelForm
from mmpretrain.data.index import INFO_NAME, build_index, load_index
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import Build, BuildError, Overwrite, move_into_place, refuse_overwrite
from mmpretrain.files import replace_text
from shards.build_plan import Job, plan_jobs, samples_per_shard, with_classes
from shards.build_shard import Incomplete, ShardRecord, stored_record
from shards.build_workers import make_shards
from shards.report import REPORT_NAME, Report, Tally
from shards.sources.findings import Findings
from shards.sources.sample import MemberKind, Source
from shards.work_folder import tidy, work_folder

IMAGE_SIZE = (default_model.IMAGE_SIZE, default_model.IMAGE_SIZE)
"""``size`` of images in dataset.json unless ``--image-size`` says otherwise; stored images keep theirs."""
FORM = 1
"""Of the shards: a build that was killed is not resumed by code that writes others."""

Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""


@dataclass(frozen=True)
class BuildOptions:
    """How a source becomes shards. per_shard: None chooses by size. workers: processes, 1 stays in this one."""

    shares: dict[str, float] = field(default_factory=dict)
    per_shard: int | None = None
    incomplete: Incomplete = Incomplete.drop
    image_size: tuple[int, int] = IMAGE_SIZE
    workers: int = 1
    overwrite: Overwrite = Overwrite.same_dataset


@dataclass(frozen=True)
class SamplesBuild:
    """What came of it. build: None after a dry run. kept: shards that an earlier, killed build had finished."""

    report: Report
    build: Build | None = None
    kept: int = 0
    asides: Findings = field(default_factory=Findings)
    """What concerns this call and not the data, so that report.json is the same after a kill."""


def look_at_samples(
    source: Source, out: Path, options: BuildOptions, notes: Findings, progress: Progress
) -> SamplesBuild:
    """A dry run: every sample is read and checked, nothing is written. Raises BuildError as a build does."""
    target = Path(os.path.realpath(out))
    refuse_overwrite(target, target.name, options.overwrite)
    source, jobs, _ = _planned(source, options)
    tally, records = Tally(), []
    for number, record in _run(source, jobs, options, None, progress):
        tally.add(number, jobs[number], record)
        records.append(record.keys)
    return SamplesBuild(_finish(tally, source, jobs, lambda n: ShardRecord(keys=records[n]), notes, options))


def build_samples(
    source: Source, title: str, out: Path, options: BuildOptions, notes: Findings, progress: Progress
) -> SamplesBuild:
    """Write train/, test/, ..., dataset.json and report.json into ``out``, which appears whole or not at all.

    Until then shards lie in a hidden folder beside it, whose name is a hash of the input and the options: the same
    command goes on there, another one starts over. notes: what the source noticed.

    Raises:
        BuildError: ``out`` may not be replaced, another build writes it now, or no usable sample is there.
    """
    target = Path(os.path.realpath(out))
    refuse_overwrite(target, target.name, options.overwrite)
    source, jobs, identity = _planned(source, options)
    asides = Findings()
    with work_folder(target, identity, asides) as folder:
        tally, kept = Tally(), 0
        for number, record in _run(source, jobs, options, folder, progress):
            tally.add(number, jobs[number], record)
            kept += record.kept
        report = _finish(tally, source, jobs, lambda n: stored_record(folder, jobs[n]), notes, options)
        splits = [split for split, count in report.samples.items() if count]
        for split in splits:
            build_index(folder / split)
        info = _info(target.name, title, source, report)
        replace_text(folder / INFO_NAME, info.to_json())
        replace_text(folder / REPORT_NAME, report.to_json())
        tidy(folder)
        outcome = move_into_place(folder, target, options.overwrite)
    indexes = {split: load_index(target / split) for split in splits}
    counts = {split: len(index) for split, index in indexes.items()}
    fingerprints = {split: index.fingerprint for split, index in indexes.items()}
    return SamplesBuild(report, Build(out, info.name, outcome, counts, fingerprints), kept, asides)


def _planned(source: Source, options: BuildOptions) -> tuple[Source, list[Job], str]:
    """The source with its classes, its shards, and a hash of input and options."""
    per_shard = options.per_shard or samples_per_shard(source)
    source = with_classes(source)
    jobs = plan_jobs(source, options.shares, per_shard)
    content = {
        "form": FORM,
        "rows": {split: rows.identity() for split, rows in source.splits.items()},
        "root": str(source.root.resolve()),
        "columns": [asdict(column) for column in source.columns],
        "key": source.key,
        "label": [source.label, source.classes, source.numbered, *_form_of(source)],
        "options": [options.shares, per_shard, options.incomplete],
    }
    return source, jobs, hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _form_of(source: Source) -> list[str]:
    """The form of labels, where it is not the usual one."""
    return [] if source.label_form is LabelForm.one_class else [source.label_form.value]


def _run(
    source: Source, jobs: list[Job], options: BuildOptions, folder: Path | None, progress: Progress
) -> Iterator[tuple[int, ShardRecord]]:
    """(number, record) of every job, in order."""
    total, done = sum(len(job.rows) for job in jobs), 0
    progress(0, total)
    for number, record in enumerate(make_shards(source, jobs, options.incomplete, folder, options.workers)):
        done += len(jobs[number].rows)
        progress(done, total)
        yield number, record


def _finish(
    tally: Tally,
    source: Source,
    jobs: list[Job],
    record_of: Callable[[int], ShardRecord],
    notes: Findings,
    options: BuildOptions,
) -> Report:
    """The report, with what dataset.json will say of the modalities. Raises BuildError if no sample is left."""
    joined = sum(len(rows) for job in jobs for rows in job.further.values())
    if joined:
        notes.add("rows of files that came before are further captions of the same samples", count=joined)
    report = tally.finish(jobs, record_of, notes)
    if not report.samples.get("train", report.written):
        reasons = "; ".join(map(_reason, list(report.dropped.items())[:5]))
        raise BuildError(f"no sample of the {report.read} that were read can be used ({reasons})")
    for column in source.columns:
        entry: dict[str, Any] = {"kind": column.kind.value}
        if column.kind is MemberKind.image:
            entry |= {"size": list(options.image_size), "channels": 1 if tally.gray.get(column.modality) else 3}
        elif column.kind is MemberKind.audio:
            entry["seconds"] = default_model.SOUND_SECONDS
        report.modalities[column.modality] = entry
    report.classes = None if source.classes is None else len(source.classes)
    return report


def _reason(entry: tuple[str, Any]) -> str:
    """Why samples were dropped, how often, and the first of them."""
    reason, found = entry
    first = f", first {found['examples'][0]}" if found["examples"] else ""
    return f"{reason}: {found['count']}{first}"


def _info(name: str, title: str, source: Source, report: Report) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        title=title,
        source=source.root.resolve().name,
        license="terms of the source",
        modalities=report.modalities,
        classes=None if source.classes is None else list(source.classes),
    )
