"""The files of a release: their names, their checksums, and what a release is called (no torch here)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmpretrain.files import replace_text, sha256_of
from mmpretrain.words import texts_in

CHECKSUMS = "SHA256SUMS"
WEIGHTS = "*.safetensors"
# The same model in the format of CLIP or SigLIP, a folder of its own that a reader of the release may leave out.
NATIVE = "native"
# What encoders learned by LoRA, apart from what they were before: a folder per encoder, for peft.
ADAPTERS = "adapter"
# In a run's folder: the release that a published model became to start from, and what it was made of.
START, ORIGIN = "start", "start.json"
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
    return problems + foreign_code(folder)


def foreign_code(folder: Path) -> list[str]:
    """A sentence for each JSON file that takes code from another repository, or weights from outside of the release.

    No release of ours does: who trusted its code would run a stranger's, which no checksum here covers.
    """
    found = []
    for path, content in _json_files(folder):
        if places := [place for place in _auto_maps(content) if "--" in place]:
            found.append(f"{path} takes its code from another repository ({places[0]}): this release is not opened")
        weights = content.get("weight_map") if path.name.endswith(".index.json") and isinstance(content, dict) else None
        names = weights.values() if isinstance(weights, dict) else ()
        if outside := [name for name in names if Path(str(name)).name != name]:
            found.append(f"{path} takes weights from outside of the release ({outside[0]}): it is not opened")
    return found


def drop_foreign_code(folder: Path) -> None:
    """Take out of a release that is being written what tokenizers and configs bring along of where they came from: in
    every ``auto_map`` the code that does not lie beside it."""
    for path, content in _json_files(folder):
        beside = {file.stem for file in path.parent.glob("*.py")}
        if any(place and place.split(".")[0] not in beside for place in _auto_maps(content)):
            path.write_text(json.dumps(_kept(content, beside), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _json_files(folder: Path) -> Iterator[tuple[Path, Any]]:
    """Those that may name code or weights, and what they hold; whoever opens a damaged one says so."""
    for _, path in release_files(folder):
        text = path.read_bytes() if path.suffix == ".json" else b""
        # Large vocabularies need not be parsed; an escape could spell a key.
        if any(word in text for word in (b"auto_map", b"weight_map", b"\\u")):
            with suppress(ValueError, RecursionError):
                yield path, json.loads(text)


def _auto_maps(content: Any) -> Iterator[str]:
    """All that ``auto_map`` names anywhere in a JSON file: FILE.CLASS, or REPOSITORY--FILE.CLASS."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    for key, value in content.items() if isinstance(content, dict) else ():
        yield from texts_in(value) if key == "auto_map" else _auto_maps(value)


def _kept(content: Any, beside: set[str]) -> Any:
    """``content`` with nothing in its auto_maps but code of the files ``beside``."""
    if isinstance(content, list):
        return [_kept(value, beside) for value in content]
    if not isinstance(content, dict):
        return content
    found = {key: _kept(value, beside) for key, value in content.items()}
    if isinstance(own := found.get("auto_map"), dict):
        found["auto_map"] = {
            key: value for key, value in own.items() if all(p.split(".")[0] in beside for p in texts_in(value))
        }
        if not found["auto_map"]:
            del found["auto_map"]
    return found


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


def made_of(release: str, revision: str | None = None) -> tuple[str, str | None]:
    """(folder or Hub id, revision) of what a run's ``start`` was converted from; of any other release itself."""
    folder = Path(release)
    if folder.name != START:
        return release, revision
    try:
        told = json.loads((folder.parent / ORIGIN).read_text(encoding="utf-8"))
        return str(told["source"]), told["revision"]
    except (OSError, ValueError, KeyError, TypeError):
        return release, revision


def release_name(release: str) -> str:
    """How a release is called in what is published: the run's name for a run's release, else the folder's."""
    parts = [part for part in Path(release).resolve().parts if part != "/"] if Path(release).exists() else [release]
    named = [part for part in parts if part != "release"]
    return named[-1] if named else parts[-1]
