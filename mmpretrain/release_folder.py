"""The files of a release: their names, their checksums, and what a release is called (no torch here)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmpretrain.files import replace_text, sha256_of

CHECKSUMS = "SHA256SUMS"
WEIGHTS = "*.safetensors"
# What the Hub and its client add to a folder: nothing that a model is opened from.
HUB_EXTRAS = (".gitattributes", ".cache")


def verify_release(folder: Path) -> list[str]:
    """What is wrong with a release's files, one sentence each: missing, changed, or not listed in SHA256SUMS."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):
        return [f"{folder / CHECKSUMS} is missing or damaged: export the release again"]
    found = dict(release_files(folder))
    problems = [f"{folder / name} is missing" for name in listed if name not in found]
    problems += [f"{path} is not listed in {CHECKSUMS}" for name, path in found.items() if name not in listed]
    problems += [
        f"{path} has changed: its sha256 is not the one in {CHECKSUMS}"
        for name, path in found.items()
        if name in listed and sha256_of(path) != listed[name]
    ]
    return problems + foreign_code(folder)


def foreign_code(folder: Path) -> list[str]:
    """A sentence for each file whose ``auto_map`` takes code from another repository, which no release of ours does:
    who trusted this release's code would run a stranger's, which no checksum here covers."""
    found = []
    for name, path in release_files(folder):
        text = path.read_bytes() if path.suffix == ".json" else b""
        if b"auto_map" not in text and b"\\u" not in text:  # which could spell it
            continue
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            continue  # whoever opens it says so
        for place in _auto_maps(content):
            if "--" in place:
                found.append(f"{folder / name} takes its code from another repository ({place}): it is not opened")
    return found


def _auto_maps(content: Any) -> Iterator[str]:
    """All that ``auto_map`` names anywhere in a JSON file: FILE.CLASS, or REPOSITORY--FILE.CLASS."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    for key, value in content.items() if isinstance(content, dict) else ():
        yield from _texts(value) if key == "auto_map" else _auto_maps(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def renew_checksum(folder: Path, name: str) -> None:
    """Write down the new checksum of one file that was changed on purpose. Raises ValueError if it is not listed."""
    lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    if not any(line.endswith(f"  {name}") for line in lines):
        raise ValueError(f"{folder / CHECKSUMS} does not list {name}: export the release again")
    new = f"{sha256_of(folder / name)}  {name}"
    replace_text(folder / CHECKSUMS, "".join(f"{new if line.endswith(f'  {name}') else line}\n" for line in lines))


def release_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file but the checksums and HUB_EXTRAS: name relative to ``folder``, and path; sorted by name."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[0] not in (CHECKSUMS, *HUB_EXTRAS):
            yield name.as_posix(), path


def weights_sha256(folder: Path) -> str:
    """sha256 of the weights file; of several: that of the lines of sha256sum over them, sorted by name."""
    sums = {path.name: sha256_of(path) for path in sorted(folder.glob(WEIGHTS))}
    if len(sums) == 1:
        return next(iter(sums.values()))
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()).hexdigest()


def release_name(release: str) -> str:
    """How a release is called in what is published: the run's name for a run's release, else the folder's."""
    parts = [part for part in Path(release).resolve().parts if part != "/"] if Path(release).exists() else [release]
    named = [part for part in parts if part != "release"]
    return named[-1] if named else parts[-1]
