"""From what a source holds to the bytes of a tar's member: read, checked by its header, named by its content."""

from __future__ import annotations

import io
import json
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mmpretrain.data.decode import MAX_ENCODED_BYTES
from mmpretrain.data.kinds.image import MAX_PIXELS, newer_form
from mmpretrain.models.texts_mmpretrain import is_blank
from shards.sources.sample import Content, MemberKind

IMAGE_FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tiff"}
GRAY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "F")
SHOWN_START = 14


class MemberError(Exception):
    """A member cannot be used. reason: the same for all of its kind; detail: what is special about this one."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason} ({detail})" if detail else reason)


@dataclass(frozen=True)
class Member:
    """What goes into the tar. gray: whether it is an image of one channel."""

    suffix: str
    data: bytes
    gray: bool = False


def make_member(content: Content) -> Member:
    """Read and check one member; images and sounds keep their bytes. Raises MemberError."""
    if content.texts is not None:
        return _text(content.texts)
    data = content.data if content.data is not None else _read(content.path)
    if not data:
        raise MemberError("empty (0 bytes)")
    if len(data) > MAX_ENCODED_BYTES:
        raise MemberError(f"more than {MAX_ENCODED_BYTES >> 20} MiB, which training refuses", f"{len(data)} bytes")
    if content.kind is MemberKind.image:
        return _image(data)
    if content.kind is MemberKind.audio:
        return _sound(data)
    return _text((_decoded(data),))


def kind_of_bytes(start: bytes) -> MemberKind | None:
    """What a file is by its first bytes, None if it is neither image nor sound."""
    if _sound_suffix(start):
        return MemberKind.audio
    if start[:3] == b"\xff\xd8\xff" or start[:4] in (b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*") or start[:2] == b"BM":
        return MemberKind.image
    return MemberKind.image if start[:4] == b"RIFF" and start[8:12] == b"WEBP" else None


def _read(path: Path | None) -> bytes:
    assert path is not None
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise MemberError("no file", "a folder, pipe or device")
        if found.st_size > MAX_ENCODED_BYTES:
            detail = f"{found.st_size} bytes"
            raise MemberError(f"more than {MAX_ENCODED_BYTES >> 20} MiB, which training refuses", detail)
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise MemberError("file is missing") from None
    except OSError as error:
        raise MemberError("file cannot be read", error.strerror or str(error)) from None
    except ValueError as error:  # a NUL in its name
        raise MemberError("no path", str(error)) from None


def _image(data: bytes) -> Member:
    """Only the header is read: what is broken behind it is found when the sample is decoded."""
    if (form := newer_form(data)) is not None:
        raise MemberError(f"{form}, which is not read here: convert it to JPEG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=tuple(IMAGE_FORMATS)) as image:
                form, mode, (width, height) = image.format or "", image.mode, image.size
    except Exception:  # hostile bytes bring Pillow to raise nearly anything
        raise MemberError("not an image", f"starts with {_start(data)}") from None
    if width * height > MAX_PIXELS:
        raise MemberError(f"more than {MAX_PIXELS} pixels", f"{width} x {height}")
    suffix = IMAGE_FORMATS.get("JPEG" if form == "MPO" else form)  # MPO: a JPEG with more of them behind it
    if suffix is None:
        raise MemberError("not an image", f"starts with {_start(data)}")
    return Member(suffix, data, gray=mode in GRAY_MODES)


def _sound(data: bytes) -> Member:
    suffix = _sound_suffix(data)
    if suffix is None:
        raise MemberError("not a sound", f"starts with {_start(data)}")
    return Member(suffix, data)


def _sound_suffix(data: bytes) -> str | None:
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return "wav"
    if data[:4] == b"fLaC":
        return "flac"
    if data[:4] == b"OggS":
        return "ogg"
    is_frame = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2  # eleven bits of sync, layer III
    return "mp3" if data[:3] == b"ID3" or is_frame else None


def _start(data: bytes) -> str:
    shown = data[:SHOWN_START]
    return f"`{shown.decode()}`" if shown.isascii() and shown.decode().isprintable() else f"bytes {shown[:8].hex(' ')}"


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MemberError("not UTF-8", f"byte {error.start}") from None


def _text(texts: Sequence[str]) -> Member:
    """One text as .txt, several as a JSON list; those that show nothing are left out."""
    if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):
        raise MemberError("text with half of a character (a lone surrogate)")
    cleaned = [text.lstrip("\ufeff").strip() for text in texts]
    kept = [text for text in cleaned if not is_blank(text)]
    if any("\0" in text for text in kept):
        raise MemberError("text with a NUL character")
    if not kept:
        raise MemberError("empty text")
    if len(kept) == 1:
        return Member("txt", kept[0].encode())
    return Member("json", json.dumps(kept, ensure_ascii=False).encode())
