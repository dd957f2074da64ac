"""The files of a release: their names, their checksums, and what a release is called (no torch here)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from mmpretrain.files import sha256_of

CHECKSUMS = "SHA256SUMS"
WEIGHTS = "*.safetensors"
# The same model in the format of CLIP or SigLIP, a folder of its own that a reader of the release may leave out.
NATIVE = "native"
# What the Hub and its client add to a folder: nothing that a model is opened from.
HUB_EXTRAS = (".gitattributes", ".cache")


def verify_release(folder: Path) -> list[str]:
    """What is wrong with a release's files, one sentence each: missing, changed, or not listed in SHA256SUMS.

    The folder NATIVE may be missing as a whole, which nothing of a release is opened from.
    """
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):
        return [f"{folder / CHECKSUMS} is missing or damaged: export the release again"]
    found = dict(release_files(folder))
    left_out = () if (folder / NATIVE).exists() else (f"{NATIVE}/",)
    problems = [f"{folder / name} is missing" for name in listed if name not in found and not name.startswith(left_out)]
    problems += [f"{path} is not listed in {CHECKSUMS}" for name, path in found.items() if name not in listed]
    problems += [
        f"{path} has changed: its sha256 is not the one in {CHECKSUMS}"
        for name, path in found.items()
        if name in listed and sha256_of(path) != listed[name]
    ]
    return problems


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
