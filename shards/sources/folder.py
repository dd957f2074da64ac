"""A folder of images, sounds or texts: with metadata as `datasets` has it, pairs by stem, or classes as sub-folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmpretrain.data.writing import BuildError
from mmpretrain.words import listed
from shards.sources.columns import ADDRESS, DEFAULT_NAMES, KIND_OF_SUFFIX, Known, Wishes, choose_columns
from shards.sources.findings import Findings, left_out
from shards.sources.lines import LocatedRow, read_lines
from shards.sources.nested import with_nested
from shards.sources.rows import open_parquet, spool
from shards.sources.sample import Column, MemberKind, Rows, Source
from shards.sources.splits import NAMES as SPLIT_NAMES

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
TEXT_SUFFIXES = (".txt", ".caption")
DROPPINGS = ("__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir")
KEY = "__key__"
LABEL_COLUMN = "__label__"
LOOKED_AT = 64


class Classes(Enum):
    """Whether sub-folders are classes."""

    found = "found"
    """As `datasets`' imagefolder: no metadata, more than one folder, all files equally deep; and no pairs."""
    yes = "yes"
    no = "no"


class _Layout(Enum):
    metadata = "metadata"
    pairs = "pairs"
    single = "single"


@dataclass
class _Survey:
    """What a first walk saw. parents: names of the folders that hold samples; paired: whether a stem has two kinds."""

    kinds: Counter[MemberKind] = field(default_factory=Counter)
    metadata: list[str] = field(default_factory=list)
    parents: set[str] = field(default_factory=set)
    depths: set[int] = field(default_factory=set)
    paired: bool = False


def open_folder(source: Path, wishes: Wishes, classes: Classes, work: Path, findings: Findings) -> Source:
    """Find out how a folder is laid out, and list its samples into files below ``work``.

    findings: gets what is skipped, and decisions that a person may want otherwise.
    Raises BuildError: nothing in it can be used, or its metadata is contradictory.
    """
    if not source.is_dir():
        raise BuildError(f"{source} is no folder: name the one that holds the images, sounds or texts")
    parts = _split_folders(source, findings)
    surveys = {name: _survey(source, name, findings) for name in parts}
    layout = _layout(source, list(surveys.values()))
    with_classes = layout is not _Layout.metadata and _are_classes(classes, layout, list(surveys.values()), findings)
    rows: dict[str, Rows] = {}
    for split, names in _by_split(parts).items():
        located = (row for name in names for row in _rows(source, name, layout, surveys[name], with_classes, findings))
        rows[split] = spool(located, work / f"{split}.jsonl")
    if layout is _Layout.metadata:
        return _of_metadata(source, rows, wishes, findings)
    if wishes.modalities or wishes.label or wishes.key:
        raise BuildError(f"{source} has no {' or '.join(METADATA)}, whose columns --modality, --label and --key name")
    kinds = sorted({kind for survey in surveys.values() for kind in survey.kinds}, key=list(MemberKind).index)
    if layout is _Layout.single:
        kinds = [_main_kind(list(surveys.values()))]
    columns = tuple(Column(DEFAULT_NAMES[kind], kind.value, kind, files=True) for kind in kinds)
    return Source(source, rows, columns, KEY, LABEL_COLUMN if with_classes else None)


def _split_folders(source: Path, findings: Findings) -> list[str]:
    """Sub-folders that are splits (there must be one to train on), or the folder itself as ''.

    Where a split to train on has another beside it, they are splits whatever else is there: as one heap, what is held
    out would be trained on. Raises BuildError for metadata beside them, which does not say whose it is.
    """
    names = sorted(entry.name for entry in source.iterdir() if entry.is_dir() and not _is_dropping(entry.name))
    files = [entry.name for entry in source.iterdir() if entry.is_file()]
    media = sorted(name for name in files if Path(name).suffix.lower() in KIND_OF_SUFFIX)
    metadata = [name for name in files if name in METADATA]
    splits = [name for name in names if name.lower() in SPLIT_NAMES]
    meant = {SPLIT_NAMES[name.lower()] for name in splits}
    if "train" not in meant or (len(meant) == 1 and (media or metadata or splits != names)):
        return [""]
    if metadata:
        raise BuildError(
            f"{source / metadata[0]} lies beside the folders of the splits ({listed(splits)}), and what it lists would"
            " be trained on whole: give each of them its own, or a column of splits and build it as a table"
            " (`mmpretrain shards build table` with --split-column)"
        )
    for name in media:
        findings.add("files beside the folders of the splits are not read", name)
    for name in sorted(set(names) - set(splits)):
        findings.add("folders beside those of the splits are not read", name)
    return splits


def _by_split(parts: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in parts:
        found.setdefault(SPLIT_NAMES[name.lower()] if name else "train", []).append(name)
    return {split: found[split] for split in sorted(found, key=lambda s: (s != "train", s))}


def _is_dropping(name: str) -> bool:
    return name.startswith(".") or name in DROPPINGS


def _walk(source: Path, part: str, findings: Findings) -> Iterator[tuple[str, list[str]]]:
    """(folder below ``source``, its files), all sorted; hidden files and what file managers leave behind skipped."""

    def unreadable(error: OSError) -> None:
        raise BuildError(f"{error.filename} cannot be listed ({error.strerror})")

    for folder, folders, files in os.walk(source / part, onerror=unreadable):
        below = os.path.relpath(folder, source)
        below = "" if below == "." else below.replace(os.sep, "/") + "/"
        for name in sorted(folders):
            if not _is_dropping(name) and os.path.islink(os.path.join(folder, name)):
                findings.add("links to folders are not followed", below + name)
        for name in sorted([*folders, *files]):
            if _is_dropping(name):
                findings.add("hidden files and what file managers leave behind are skipped", below + name)
        folders[:] = sorted(name for name in folders if not _is_dropping(name))
        yield below, sorted(name for name in files if not _is_dropping(name))


def _kind(name: str) -> MemberKind | None:
    suffix = os.path.splitext(name)[1].lower()
    return MemberKind.text if suffix in TEXT_SUFFIXES else KIND_OF_SUFFIX.get(suffix)


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _survey(source: Path, part: str, findings: Findings) -> _Survey:
    survey = _Survey()
    for folder, files in _walk(source, part, findings):
        survey.metadata += [folder + name for name in files if name in METADATA]
        kinds = {name: kind for name in files if (kind := _kind(name)) is not None}
        for name in files:
            if name not in kinds and name not in METADATA:
                findings.add("files of other kinds are ignored", folder + name)
        survey.kinds.update(kinds.values())
        if kinds:
            below = _below(folder, part).rstrip("/")
            survey.parents.add(below.rpartition("/")[2])  # the folder of a split is no class
            survey.depths.add(folder.count("/"))
        stems = sorted((_stem(name), kind) for name, kind in kinds.items())
        survey.paired |= any(len({kind for _, kind in group}) > 1 for _, group in groupby(stems, lambda pair: pair[0]))
    return survey


def _layout(source: Path, surveys: list[_Survey]) -> _Layout:
    metadata = [path for survey in surveys for path in survey.metadata]
    suffixes = sorted({os.path.splitext(path)[1] for path in metadata})
    if len(suffixes) > 1:
        raise BuildError(
            f"{source} has metadata as {' and '.join(suffixes)} ({', '.join(metadata[:4])}): keep one form"
        )
    if metadata:
        return _Layout.metadata
    if not any(survey.kinds for survey in surveys):
        raise BuildError(f"{source} has no images, sounds or texts (.jpg, .png, ..., .wav, .mp3, ..., .txt)")
    return _Layout.pairs if any(survey.paired for survey in surveys) else _Layout.single


def _main_kind(surveys: list[_Survey]) -> MemberKind:
    """The commonest kind of file; one stray README.txt makes no folder of texts."""
    total = sum((survey.kinds for survey in surveys), Counter[MemberKind]())
    return max(MemberKind, key=lambda kind: total[kind])


def _are_classes(classes: Classes, layout: _Layout, surveys: list[_Survey], findings: Findings) -> bool:
    """Whether the sub-folders are labels."""
    names = {name for survey in surveys for name in survey.parents}
    if classes is Classes.yes and len(names) < 2:
        raise BuildError("--classes: the files lie in one folder; two are needed to be classes")
    if classes is not Classes.found:
        return classes is Classes.yes
    depths = {depth for survey in surveys for depth in survey.depths}
    if len(names) < 2:
        return False
    if layout is _Layout.pairs or len(depths) > 1:
        why = "files come in pairs" if layout is _Layout.pairs else "files lie at different depths"
        findings.add(f"sub-folders are not taken as classes, since {why} (--classes takes them)", count=len(names))
        return False
    return True


def _rows(
    source: Path, part: str, layout: _Layout, survey: _Survey, with_classes: bool, findings: Findings
) -> Iterator[LocatedRow]:
    if layout is _Layout.metadata:
        if not survey.metadata:
            raise BuildError(f"{source / part} has no metadata, but other splits of {source} have")
        for path in survey.metadata:
            yield from _metadata_rows(source, part, path, findings)
        return
    only = _main_kind([survey]) if layout is _Layout.single else None
    for folder, files in _walk(source, part, Findings()):
        kinds = [(name, kind) for name in files if (kind := _kind(name)) is not None]
        for name, kind in kinds:
            if only is not None and kind is not only:
                findings.add(f"files that are no {only.value} and have no partner of their name", folder + name)
        wanted = sorted((_stem(n), list(MemberKind).index(k), n) for n, k in kinds if only is None or k is only)
        label = {LABEL_COLUMN: folder.rstrip("/").rpartition("/")[2]} if with_classes else {}
        for stem, group in groupby(wanted, lambda entry: entry[0]):
            for row in _grouped([(list(MemberKind)[order].value, folder + name) for _, order, name in group]):
                yield next(iter(row.values())), {KEY: _below(folder + stem, part), **row, **label}


def _grouped(members: list[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """One row of the first file of each kind; each further one (a.png beside a.jpg) with the same partners."""
    counts = Counter(kind for kind, _ in members)
    first = dict(reversed(members))
    yield first
    seen: set[str] = set()
    for kind, path in members:
        if counts[kind] > 1 and kind in seen:
            yield {**first, kind: path}
        seen.add(kind)


def _below(path: str, part: str) -> str:
    return path.removeprefix(f"{part}/") if part else path


def _metadata_rows(source: Path, part: str, path: str, findings: Findings) -> Iterator[LocatedRow]:
    """Rows with paths from the folder that is built, and with a key from the first of them."""
    folder = path.rpartition("/")[0]
    for where, row in _read_metadata(source / path, findings):
        files = [name for name in row if _names_files(name)]
        if not files:
            raise BuildError(f"{source / path} has no column file_name (or X_file_name); it has {', '.join(row)}")
        inside = {name: _inside(folder, row[name]) for name in files}
        for name in files:
            if row[name] and inside[name] is None:
                findings.add("a file_name that leads out of its folder", f"{where}: {row[name]}")
        key = next((found for found in inside.values() if found), None)
        keyed = {} if key is None else {KEY: _below(str(PurePosixPath(key).with_suffix("")), part)}
        yield f"{folder}/{where}".lstrip("/"), {**row, **inside, **keyed}


def _names_files(column: str) -> bool:
    return column == "file_name" or column.endswith("_file_name")


def _read_metadata(path: Path, findings: Findings) -> Iterator[LocatedRow]:
    if path.suffix != ".parquet":
        yield from read_lines(path, findings)
        return
    rows = open_parquet([path])
    yield from ((where, row) for _, where, row in rows.read(np.arange(len(rows)), rows.columns))


def _inside(folder: str, name: Any) -> str | None:
    """A file_name below ``folder``; None for none, and for one that is an address or leads out of it."""
    if not isinstance(name, str) or not name or ADDRESS.match(name) or os.path.isabs(name):
        return None
    path = os.path.normpath(name.replace("\\", "/"))
    return None if path.split("/")[0] == ".." else f"{folder}/{path}".lstrip("/")


def _of_metadata(source: Path, rows: dict[str, Rows], wishes: Wishes, findings: Findings) -> Source:
    rows = with_nested(rows, wishes.columns)
    first = rows["train"]
    if not len(first):
        raise BuildError(f"{source}: its metadata has no rows{left_out(findings)}")
    sample = [row for _, _, row in first.read(np.arange(min(LOOKED_AT, len(first))), first.columns)]
    names = list(dict.fromkeys(name for split in rows.values() for name in split.columns if name != KEY))
    known = Known(files=frozenset(filter(_names_files, names)))
    choice = choose_columns(str(source), names, sample, source, wishes, known, findings)
    return Source(source, rows, choice.columns, wishes.key or KEY, choice.label)
