"""What may leave this machine: the files of a whole release, and nothing that would harm whoever opens them."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import get_token

from mmpretrain.release_folder import CHECKSUMS, HUB_EXTRAS, release_files, verify_release

# Formats that run code when they are opened.
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".h5", ".npy", ".npz", ".msgpack"}
_PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch's archives, and plain pickle
_SECRET = re.compile(r"\b(?:hf_[A-Za-z0-9]{30,}|ghp_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{40,}|AKIA[0-9A-Z]{16})\b")
_WRITTEN = {".md", ".py", ".yaml", ".yml", ".toml", ".cfg"}  # by people or from their config; vocabularies are not
_SMALL = 10 * 2**20  # bytes; what is larger was not written by hand


def pushable_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Name -> path of every file to push, and what stands against pushing, one sentence each."""
    if not folder.is_dir():
        return {}, [f"{folder} is no folder: name the release folder to push"]
    problems = list(_strangers(folder))
    if not problems:  # checksums of what does not belong there would only say the same in other words
        problems = verify_release(folder)
    files = dict(release_files(folder)) | {CHECKSUMS: folder / CHECKSUMS}
    if not problems:
        token = get_token()
        problems = [problem for path in files.values() if (problem := _harm(path, token))]
    return files, problems


def _strangers(folder: Path) -> list[str]:
    """What a release never holds."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in HUB_EXTRAS:
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            found.append(f"{path} is a link that leads out of the release: copy the file itself there")
        elif len(name.parts) == 1 and name.name.startswith("."):
            found.append(f"{path} is no part of a release: remove it, or push a folder that holds only the release")
        elif path.suffix.lower() in PICKLES and path.is_file():
            found.append(f"{path} may run code when it is opened, and is never pushed: export the release again")
    return found


def _harm(path: Path, token: str | None) -> str | None:
    with path.open("rb") as stream:
        if stream.read(4).startswith(_PICKLED):
            return f"{path} holds pickled objects, which run code when they are opened: export the release again"
    if path.stat().st_size > _SMALL or path.suffix == ".safetensors":
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    if (token and token in text) or (path.suffix in _WRITTEN and _SECRET.search(text)):
        return f"{path} holds an access token: remove it from the file, revoke it, and export the release again"
    return None
