"""Files that survive a crash: either the old content or the new one, never half of it; and their checksums."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
from contextlib import suppress
from io import FileIO
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Replace a text file atomically and durably."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically and durably."""
    # Two nodes may write the same file, from processes of the same number.
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def overwrite_text(path: Path, text: str) -> None:
    """Write over a text file in place, which a full disk allows as long as it does not grow beyond its last block.

    A crash in between leaves half of it: only where :func:`replace_text` is impossible.
    """
    with path.open("r+b") as stream:
        stream.write(text.encode("utf-8"))
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_file(path: str | Path) -> FileIO:
    """Open a regular file, or a link to one, for reading.

    Raises OSError for anything else, and at once: who opens a pipe would wait for somebody to write into it.
    """
    file = FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe or a device", str(path))
    return file


def sha256_of(path: Path) -> str:
    """The hexadecimal sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
