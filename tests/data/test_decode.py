"""Good bytes become objects; hostile bytes become a SampleError, and nothing else happens."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmpretrain.config.data import Kind
from mmpretrain.data import decode as module
from mmpretrain.data.decode import DECODERS, SampleError, decode
from tests.data import tones
from tests.data.small_dataset import npy, png

TONE = tones.encoded(tones.tone(1, seconds=0.01))


def encoded(form: str, **options: Any) -> bytes:
    """A picture of 5 x 3 pixels of one color, in a format of pillow."""
    file = io.BytesIO()
    Image.new("RGB", (5, 3), (10, 20, 30)).save(file, form, **options)
    return file.getvalue()


def png_with_header(width: int, height: int) -> bytes:
    """A PNG that promises many pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def webp_with_header(width: int, height: int) -> bytes:
    """A WebP without loss that promises many pixels in a few bytes."""
    bits = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return b"RIFF" + struct.pack("<I", 4 + 8 + 6) + b"WEBPVP8L" + struct.pack("<I", 5) + b"\x2f" + bits + b"\0"


def tiff_with_tiles(width: int, height: int) -> bytes:
    """A TIFF of one pixel inside a tile of many."""
    short, long = 3, 4
    entries = [(256, 1), (257, 1), (258, 8), (259, 8), (262, 1), (277, 1), (322, width), (323, height)]
    body = zlib.compress(bytes(100))
    offset = 8 + 2 + 12 * (len(entries) + 2) + 4
    rows = [struct.pack("<HHII", tag, long if value > 65535 else short, 1, value) for tag, value in entries]
    rows += [struct.pack("<HHII", tag, long, 1, value) for tag, value in ((324, offset), (325, len(body)))]
    return b"II*\0" + struct.pack("<IH", 8, len(rows)) + b"".join(rows) + bytes(4) + body


def npy_with_header(header: str, body: bytes = b"", length: int | None = None) -> bytes:
    """Bytes of a .npy file with any header; length: what it claims to be as long as."""
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) if length is None else length) + text + body


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        ("png", "PNG"),
        ("jpg", "JPEG"),
        ("jpeg", "JPEG"),
        ("webp", "WEBP"),
        ("gif", "GIF"),
        ("bmp", "BMP"),
        ("tif", "TIFF"),
        ("tiff", "TIFF"),
    ],
)
def test_images(suffix: str, form: str) -> None:
    image = decode(f"photo.{suffix}", encoded(form), Kind.image)
    assert isinstance(image, Image.Image)
    assert image.size == (5, 3)
    assert np.abs(np.asarray(image, np.int16)[0, 0] - [10, 20, 30]).max() < 12


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2", "<i8", "|u1", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_become_float32(dtype: str, order: Literal["C", "F"]) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]], dtype=dtype, order=order)
    read = decode("values.npy", npy(values), Kind.vector)
    assert isinstance(read, np.ndarray)
    assert read.dtype == np.float32
    assert np.array_equal(read, values.astype(np.float32))


def test_a_header_that_was_seen_before_is_still_held_against_its_bytes() -> None:
    first, second = npy(np.array([1, 2], np.float32)), npy(np.array([3, 4], np.float32))
    read = [np.asarray(decode("values.npy", data, Kind.vector)).tolist() for data in (first, second)]
    assert read == [[1, 2], [3, 4]]
    for changed in (second[:-4], second + b"more"):
        with pytest.raises(SampleError, match="bytes follow"):
            decode("values.npy", changed, Kind.vector)


def test_texts() -> None:
    assert decode("caption.txt", "une été".encode(), Kind.text) == "une été"
    assert decode("caption.txt", "\ufeffa dog".encode(), Kind.text) == "a dog"
    assert decode("caption.txt", "\u2764\ufe0f".encode(), Kind.text) == "\u2764\ufe0f"


@pytest.mark.parametrize(
    ("extension", "data", "kind", "message"),
    [
        ("photo.png", b"", Kind.image, "photo.png"),
        ("photo.png", png(3)[:-30], Kind.image, "photo.png"),
        ("photo.jpg", encoded("JPEG")[:-40], Kind.image, "(?i)truncated"),
        ("photo.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n", Kind.image, "photo.png"),
        ("photo.png", b"%!PS-Adobe-3.0 EPSF-3.0", Kind.image, r"not an image \(starts with `%!PS-Adobe-3\.0`\)"),
        ("photo.jpg", b"<!DOCTYPE html><html>404</html>", Kind.image, "not an image .starts with `<!DOCTYPE html`."),
        ("photo.jpg", b"\xff\xd8\xff\xe0", Kind.image, "a damaged JPEG image"),
        ("photo.webp", webp_with_header(16383, 16383), Kind.image, "16383 x 16383 pixels are more than 50000000"),
        ("photo.tif", tiff_with_tiles(60_000, 60_000), Kind.image, "60000 x 60000 pixels are more than 50000000"),
        ("photo.png", png_with_header(8000, 8000), Kind.image, "8000 x 8000 pixels are more than 50000000"),
        ("photo.png", png_with_header(12000, 12000), Kind.image, "pixels"),
        ("photo.png", png_with_header(20000, 20000), Kind.image, "pixels"),
        ("photo.png", png_with_header(2**31 - 1, 2**31 - 1), Kind.image, "pixels"),
        ("caption.txt", b"\xff", Kind.text, "not UTF-8"),
        ("caption.txt", "a dog".encode("utf-16"), Kind.text, "not UTF-8 but UTF-16"),
        ("caption.txt", b"a\0 dog", Kind.text, "NUL characters"),
        ("caption.txt", b" \n", Kind.text, "empty"),
        ("caption.txt", "\ufeff\u200b\u3164\x01".encode(), Kind.text, "empty .nothing in it is visible."),
        ("caption.txt", b"a" * (2 << 20), Kind.text, "longer than"),
        ("values.npy", b"", Kind.vector, "values.npy"),
        ("values.npy", npy([1.0, np.nan]), Kind.vector, "not finite"),
        ("values.npy", npy([1e300]), Kind.vector, "not finite"),
        ("values.npy", npy([1j]), Kind.vector, "not numeric"),
        ("values.npy", npy(["text"]), Kind.vector, "not numeric"),
        ("values.npy", npy(np.zeros(2, [("a", "f4")])), Kind.vector, "not numeric"),
        ("values.npy", npy([1.0, 2.0])[:-1], Kind.vector, "15 bytes follow"),
        ("values.npy", npy([1.0, 2.0]) + b"x", Kind.vector, "17 bytes follow"),
        ("values.npy", b"\x93NUMPY\x03\x00", Kind.vector, "version"),
        (
            "values.npy",
            npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (10**12,)}"),
            Kind.vector,
            "values.npy",
        ),
        (
            "values.npy",
            npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"),
            Kind.vector,
            "0 bytes follow",
        ),
        (
            "values.npy",
            npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1)}", b"abcd"),
            Kind.vector,
            "values.npy",
        ),
        ("values.npy", npy_with_header("(" * 5000), Kind.vector, "values.npy"),
        ("values.npy", npy_with_header(" " * 60_000), Kind.vector, "large"),
        ("values.npy", npy_with_header("", length=65_535), Kind.vector, "values.npy"),
    ],
)
def test_unfit_bytes_are_refused(extension: str, data: bytes, kind: Kind, message: str) -> None:
    with pytest.raises(SampleError, match=message) as caught:
        decode(extension, data, kind)
    assert str(caught.value).startswith(extension)


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "pyd", "pth", "pt", "npz"])
def test_unknown_extensions_name_the_table(suffix: str, tmp_path: Path) -> None:
    data = pickle.dumps(Canary(tmp_path / "canary"))
    with pytest.raises(SampleError) as caught:
        decode(f"values.{suffix}", data, Kind.vector)
    assert f"no decoder for .{suffix}" in str(caught.value)
    assert all(f".{known} ({decoder.kinds[0].value}" in str(caught.value) for known, decoder in DECODERS.items())
    assert not (tmp_path / "canary").exists()


def test_pickled_arrays_are_not_opened(tmp_path: Path) -> None:
    data = npy(np.array([Canary(tmp_path / "canary")], dtype=object))
    assert str(tmp_path).encode() in data
    with pytest.raises(SampleError, match="not numeric"):
        decode("values.npy", data, Kind.vector)
    assert not (tmp_path / "canary").exists()


def test_arrays_are_vectors_or_sequences_as_configured() -> None:
    steps = decode("motion.npy", npy(np.arange(6).reshape(3, 2)), Kind.sequence)
    assert isinstance(steps, np.ndarray) and steps.dtype == np.float32 and steps.tolist() == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(SampleError, match="holds a vector or sequence, but the config says text"):
        decode("motion.npy", npy([1.0]), Kind.text)


def test_another_kind_than_configured() -> None:
    with pytest.raises(SampleError, match="holds a text, but the config says image"):
        decode("photo.txt", b"a dog", Kind.image)


def test_encoded_size_is_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENCODED_BYTES", 10)
    with pytest.raises(SampleError, match="more than 10"):
        decode("photo.png", png(0), Kind.image)


@pytest.mark.processes
def test_bombs_take_no_memory() -> None:
    """In a process that may have 64 MB more than it has after importing."""
    huge_array = npy_with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}")
    bombs = {"a.png": png_with_header(20_000, 20_000), "b.png": png_with_header(9000, 9000), "c.npy": huge_array}
    bombs |= {"d.tif": tiff_with_tiles(60_000, 60_000), "e.webp": webp_with_header(16383, 16383)}
    arguments = [text for name, data in bombs.items() for text in (name, data.hex())]
    subprocess.run([sys.executable, "-c", BOUNDED, *arguments], check=True, timeout=120)


BOUNDED = """
import resource, sys
from mmpretrain.data.decode import DECODERS, SampleError, decode

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
for name, data in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        decode(name, bytes.fromhex(data), DECODERS[name[2:]].kinds[0])
    except SampleError as error:
        assert "MemoryError" not in str(error), error
    else:
        sys.exit(f"{name} was decoded")
"""


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([(f"m.{s}", d.kinds[0]) for s, d in DECODERS.items()]), st.binary(max_size=80), st.data())
def test_any_bytes_give_an_object_or_a_sample_error(
    member: tuple[str, Kind], noise: bytes, data: st.DataObject
) -> None:
    extension, kind = member
    whole = {Kind.image: png(9), Kind.vector: npy([1.0, 2.0]), Kind.text: b"a dog", Kind.audio: TONE}[kind]
    cut = data.draw(st.integers(0, len(whole)))
    try:
        assert decode(extension, whole[:cut] + noise + whole[cut + len(noise) :], kind) is not None
    except SampleError as error:
        assert str(error).startswith(extension)
