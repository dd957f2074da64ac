"""Keys of samples, made from paths or texts so that every tar and every WebDataset reader takes them."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path, PurePosixPath

LONGEST_KEY = 200


def key_of_path(path: str, root: Path) -> str:
    """The path below ``root`` without its extension, as :func:`key_of_text` writes it."""
    below = path
    if os.path.isabs(path):
        below = os.path.relpath(path, root) if Path(path).is_relative_to(root) else path
    pure = PurePosixPath(below.replace("\\", "/"))
    return key_of_text(str(pure.with_suffix("") if pure.name else pure))


def key_of_text(text: str) -> str:
    """``text`` as a key: folders stay; letters and digits of any language, '-' and '_' stay; the rest becomes '_'.

    Dots go because readers cut a name at its first dot; '..' and a leading '/' because no path may leave the tar.
    A longer key than 200 characters is cut and ends in a hash of the whole.
    """
    parts = [_part(part) for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    key = "/".join(parts) or "_"
    if key.startswith("__"):  # readers keep such names for themselves
        key = "x" + key
    if len(key) > LONGEST_KEY:
        key = f"{key[:LONGEST_KEY].rstrip('/')}~{key_hash(text):016x}"
    return key


def key_hash(key: str) -> int:
    """64 bits of a key, the same everywhere and always: they decide a sample's split."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _part(part: str) -> str:
    composed = unicodedata.normalize("NFC", part)  # macOS hands out decomposed names
    return "".join(c if unicodedata.category(c)[0] in "LMN" or c in "-_" else "_" for c in composed)
