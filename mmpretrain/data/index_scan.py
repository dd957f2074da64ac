"""Scan of one tar: every member that a sample can use, or a refusal (no torch here)."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmpretrain.endings import Ending
from mmpretrain.files import open_file
from mmpretrain.words import command, without_secrets

BLOCK = tarfile.BLOCKSIZE
LONGEST_HEADER = 1 << 20
LONGEST_NAME = 1024
UNFIT = ("Cc", "Cs")  # control characters, and what tarfile makes of bytes that are not UTF-8
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
SAMPLE_NAME = re.compile(r"((?:.*/|)[^./]+)[.]([^/]+)", re.DOTALL)
# What macOS and Windows leave beside files, and everything hidden: no sample, and no damage either.
LITTER = re.compile(r"(?:.*/)?(?:\.[^/]*|Thumbs\.db|desktop\.ini)|(?:.*/)?__MACOSX/.*", re.DOTALL)


class ShardError(ValueError):
    """Shards or their index are missing, damaged or hostile; the message names file, member and fix.

    The message never has what a URL holds of passwords and signatures.
    """

    ending = Ending.bad_data

    def __init__(self, message: str) -> None:
        super().__init__(without_secrets(message))


def reindex(folder: str | Path) -> str:
    """The advice to index a folder again; of a URL, where its shards come from."""
    if "://" in str(folder):
        return "run `mmpretrain shards index` on the folder that it was uploaded from, and upload that again"
    return f"run `{command('mmpretrain', 'shards', 'index', folder)}`"


class Content(Protocol):
    """A file that the index knows by its bytes and their sha256: a shard, or its columns."""

    @property
    def bytes(self) -> int:
        """How many."""

    @property
    def sha256(self) -> str:
        """In hexadecimal digits."""


@dataclass(frozen=True)
class Member:
    """One file inside a tar: its sample's key, its extension (lower case), and its bytes in the tar."""

    key: str
    extension: str
    offset: int
    size: int


@dataclass(frozen=True)
class ScannedShard:
    """What one scan found: bytes and sha256 of the tar, its members in file order, and what was passed over (hidden
    files and the like), by name."""

    name: str
    bytes: int
    sha256: str
    members: tuple[Member, ...]
    skipped: tuple[str, ...] = ()


def is_litter(name: str) -> bool:
    """Whether a file is what an operating system leaves beside others (``._x``, ``.DS_Store``), or hidden."""
    return LITTER.fullmatch(name) is not None


def scan_shard(path: Path) -> ScannedShard:
    """Read a tar's headers and hash it.

    Raises:
        ShardError: the tar is unreadable, compressed, truncated, damaged at any header, or holds a member
            that a WebDataset reader would skip, misread or blow up (sparse, link, device, unusable name).
    """
    try:
        with open_file(path) as raw, HeaderReader(raw) as file:
            _refuse_compressed(path, file)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            skipped: list[str] = []
            members = tuple(_members(path, file, skipped))
            return ScannedShard(path.name, os.fstat(raw.fileno()).st_size, sha256, members, tuple(skipped))
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror or error})") from None


class HeaderReader(io.BufferedReader):
    """Refuses the huge reads that a forged header size would cause."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As io.BufferedReader's. Raises tarfile.ReadError beyond the longest header."""
        if size is None or not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError("a header claims an impossible size")
        return super().read(size)


def _refuse_compressed(path: Path, file: io.BufferedReader) -> None:
    start = file.read(8)
    for magic, kind in COMPRESSED.items():
        if start.startswith(magic):
            raise ShardError(f"{path}: is {kind}-compressed: unpack it to a plain tar")
    if not start:
        raise ShardError(f"{path}: is empty (0 bytes): write the shard again")


def _members(path: Path, file: io.BufferedReader, skipped: list[str]) -> Iterator[Member]:
    """Usable members in file order; checks that nothing lies between or behind them. skipped: gets the others."""
    total = os.fstat(file.fileno()).st_size
    end, last = 0, "the start"
    for info in _headers(path, file, total):
        if info.offset < end:
            raise ShardError(f"{path}: member {info.name!r} overlaps {last}: write the shard again")
        end = info.offset_data + (-(-info.size // BLOCK) * BLOCK if info.isreg() else 0)
        last = repr(info.name)
        if info.isdir():
            continue
        if is_litter(info.name):
            skipped.append(info.name)
        else:
            yield _member(path, info)
    _check_end(path, file, end, total, last)


def _headers(path: Path, file: io.BufferedReader, total: int) -> Iterator[tarfile.TarInfo]:
    """Each header that tarfile finds, checked before tarfile acts on its size."""
    last = "the start"
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                _check_kind(path, info)
                if info.size < 0 or info.offset_data + info.size > total:
                    raise ShardError(f"{path}: is cut off inside member {info.name!r}: write the shard again")
                yield info
                last = repr(info.name)
                tar.members.clear()  # type: ignore[attr-defined]  # a million of them would fill the memory
    except ShardError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise ShardError(f"{path}: damaged header after {last} ({error}): write the shard again") from None


def _check_kind(path: Path, info: tarfile.TarInfo) -> None:
    """Refuse everything but plain files and folders: readers skip the rest, or expand it without bound."""
    where = f"{path}: member {info.name!r}"
    if info.issparse():
        raise ShardError(f"{where} is sparse: write the tar without -S")
    if not info.isreg() and not info.isdir():
        raise ShardError(f"{where} is a link, a device or of unknown type: only plain files are allowed")


def _member(path: Path, info: tarfile.TarInfo) -> Member:
    where = f"{path}: member {info.name[:LONGEST_NAME]!r}"
    if len(info.name) > LONGEST_NAME:
        raise ShardError(f"{where} has a name of {len(info.name)} characters: at most {LONGEST_NAME} are allowed")
    if any(unicodedata.category(character) in UNFIT for character in info.name):
        raise ShardError(f"{where} has a control character, a NUL or what is not UTF-8 in its name: rename it")
    if info.name.startswith("/") or ".." in info.name.split("/"):
        raise ShardError(f"{where} has an absolute path or '..' in its name: use names relative to the tar")
    match = SAMPLE_NAME.fullmatch(info.name)
    if match is None or re.match(r"__[^/]*__($|/)", info.name):
        raise ShardError(f"{where} is not named KEY.MODALITY.EXT, so WebDataset readers would skip it: rename it")
    if match[2].startswith("__"):
        raise ShardError(f"{where} is named like a reader's own field ({match[2]}): rename it")
    return Member(match[1], match[2].lower(), info.offset_data, info.size)


def _check_end(path: Path, file: io.BufferedReader, end: int, total: int, last: str) -> None:
    """Demand the end mark: tarfile stops at a damaged or zeroed header and reports nothing."""
    if total % BLOCK or total - end < 2 * BLOCK:
        raise ShardError(f"{path}: is cut off after {last} (no end mark): write the shard again")
    file.seek(end)
    while chunk := file.read(LONGEST_HEADER):
        if chunk.count(0) != len(chunk):
            raise ShardError(f"{path}: damaged header after {last}: data follows, but no readable member")
