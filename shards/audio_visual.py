"""Published sets of sounds with pictures or captions, from the folders that people have of them, as tables for the
builder of tables (shards/sources/table.py). Frames and sounds of videos are to be extracted before.

    AVE                 ANNOTATIONS (Annotations.txt or testSet.txt: Category&VideoID&Quality&StartTime&EndTime), and
                        files VIDEOID.EXT below the folder: one picture and one sound each; labels: the category
    Flickr-SoundNet     files ID.EXT below the folder: one picture and one sound each
    AudioCaps           train.csv, val.csv or test.csv (audiocap_id, youtube_id, start_time, caption), and sounds called
                        by the youtube_id (also with a Y before it) or the audiocap_id; all captions of a clip together

A sound and a picture belong together by the stems of their names, in whatever folders they lie; what has no counterpart
is counted, and named.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from mmpretrain.data.index_scan import is_litter
from mmpretrain.data.writing import BuildError
from shards.sources.columns import KIND_OF_SUFFIX, Wishes
from shards.sources.findings import Findings
from shards.sources.sample import MemberKind, Source
from shards.sources.table import open_table

Row = dict[str, Any]


class Published(StrEnum):
    """Which set a folder holds."""

    ave = "ave"
    """AVE: sounds and pictures of events, with the category as label."""

    flickr_soundnet = "flickr-soundnet"
    """Flickr-SoundNet: sounds and pictures."""

    audiocaps = "audiocaps"
    """AudioCaps: sounds and captions."""


def open_published(kind: Published, folder: Path, annotations: Path | None, work: Path, findings: Findings) -> Source:
    """The samples of a folder. annotations: the file of AVE and AudioCaps that says which; None for Flickr-SoundNet.

    Raises BuildError: there is no such folder or file, or nothing that belongs together.
    """
    if not folder.is_dir():
        raise BuildError(f"{folder} is no folder: name the one that holds the extracted sounds and pictures")
    if (annotations is None) != (kind is Published.flickr_soundnet):
        says = "needs no --annotations" if annotations is not None else "needs --annotations FILE"
        raise BuildError(f"{kind.value} {says}")
    files = _files(folder, findings)
    rows = list(ROWS[kind](files, annotations, findings))
    if not rows:
        raise BuildError(
            f"{folder}: no sample of {kind.value} is complete; it holds"
            f" {len(files[MemberKind.image])} pictures and {len(files[MemberKind.audio])} sounds"
        )
    table = work / "samples.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    names = {"image": ("image", MemberKind.image), "sound": ("sound", MemberKind.audio)}
    names |= {"caption": ("caption", MemberKind.text)}
    wishes = Wishes({name: wish for name, wish in names.items() if name in rows[0]}, _label(rows[0]), "id")
    return open_table({"train": [table]}, folder, wishes, work, findings)


def _label(row: Row) -> str | None:
    return "category" if "category" in row else None


def _files(folder: Path, findings: Findings) -> dict[MemberKind, dict[str, str]]:
    """Kind -> stem -> path below the folder. Of two files of a kind with one stem the first counts."""
    found: dict[MemberKind, dict[str, str]] = {MemberKind.image: {}, MemberKind.audio: {}}
    for path in sorted(folder.rglob("*")):
        kind = KIND_OF_SUFFIX.get(path.suffix.lower())
        if kind is None or is_litter(path.name) or not path.is_file():
            continue
        name = str(path.relative_to(folder))
        if path.stem in found[kind]:
            findings.add("files that are called like another one of their kind", name)
        else:
            found[kind][path.stem] = name
    return found


def _pairs(stems: list[str], files: dict[MemberKind, dict[str, str]], findings: Findings) -> Iterator[Row]:
    """A row for each stem that has both a picture and a sound."""
    for stem in stems:
        missing = [kind.value for kind, held in files.items() if stem not in held]
        if missing:
            findings.add(f"samples without {' and '.join(missing)}", stem)
        else:
            yield {"id": stem, "image": files[MemberKind.image][stem], "sound": files[MemberKind.audio][stem]}


def _flickr(files: dict[MemberKind, dict[str, str]], annotations: Path | None, findings: Findings) -> Iterator[Row]:
    stems = sorted({stem for held in files.values() for stem in held})
    yield from _pairs(stems, files, findings)


def _ave(files: dict[MemberKind, dict[str, str]], annotations: Path | None, findings: Findings) -> Iterator[Row]:
    categories: dict[str, str] = {}
    for number, line in enumerate(_lines(annotations), start=1):
        parts = line.strip().split("&")
        if len(parts) == 5 and parts[0] != "Category":
            if parts[1] in categories:
                findings.add("videos that are annotated twice, of which the first counts", parts[1])
            categories.setdefault(parts[1], parts[0])
        elif line.strip() and parts[0] != "Category":
            raise BuildError(f"{annotations}, line {number}: {line.strip()[:80]!r} is not Category&VideoID&...")
    for row in _pairs(list(categories), files, findings):
        yield row | {"category": categories[row["id"]]}


def _audiocaps(files: dict[MemberKind, dict[str, str]], annotations: Path | None, findings: Findings) -> Iterator[Row]:
    captions: dict[str, list[str]] = {}
    sounds: dict[str, str] = {}
    try:
        rows = list(csv.DictReader(_lines(annotations), strict=True))
    except csv.Error as error:
        raise BuildError(f"{annotations} is not quoted as CSV has it ({error}): download it again") from None
    for row in rows:
        clip, caption = row.get("youtube_id"), row.get("caption")
        if not clip or not caption:
            raise BuildError(f"{annotations} has no columns youtube_id and caption: name a csv of AudioCaps")
        names = (clip, f"Y{clip}", str(row.get("audiocap_id")))
        path = next((files[MemberKind.audio][name] for name in names if name in files[MemberKind.audio]), None)
        if path is None:
            findings.add("clips without a sound", clip)
        else:
            sounds[clip] = path
            captions.setdefault(clip, []).append(caption)
    for clip, path in sounds.items():
        yield {"id": clip, "sound": path, "caption": captions[clip]}


def _lines(annotations: Path | None) -> list[str]:
    assert annotations is not None
    try:
        return annotations.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{annotations} cannot be read ({error})") from None


ROWS = {Published.ave: _ave, Published.flickr_soundnet: _flickr, Published.audiocaps: _audiocaps}
