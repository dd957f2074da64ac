"""Members that are meant to do harm: code, bombs, headers that lie; and data sets that hold them."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data.small_dataset import npy, png

Member = tuple[str, bytes]


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def code(canary: Path) -> list[Member]:
    """Members that other readers would unpickle, import or run."""
    pickled, archive = pickle.dumps(Canary(canary)), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:  # as torch.save and numpy.savez write them
        file.writestr("archive/data.pkl", pickled)
        file.writestr("values.npy", npy([[Canary(canary)]]))
    objects = npy(np.array([Canary(canary)], dtype=object))
    calling = f"{{'descr': __import__('os').mkdir({str(canary)!r}), 'fortran_order': False, 'shape': (3,)}}"
    return [
        *((f"values.{ending}", pickled) for ending in ("pyd", "pkl", "pickle", "pth", "pt", "npy", "py")),
        ("values.npz", archive.getvalue()),
        ("values.pt", archive.getvalue()),
        ("values.npy", objects),
        ("values.npy", npy_header(calling)),
        ("picture.png", pickled),
        ("picture.png", b"%!PS\n(" + str(canary).encode() + b") (w) file closefile\n"),
        ("picture.svg", f'<svg><image href="file://{canary}"/></svg>'.encode()),
        ("caption.json", pickled),
        ("caption.txt.gz", b"\x1f\x8b\x08" + bytes(7) + pickled),
    ]


def bombs() -> list[Member]:
    """Few bytes that promise, or unpack to, more than any memory holds."""
    text = zlib.compress(bytes(200 << 20), 9)
    chunk = _chunk(b"zTXt", b"Comment\0\0" + text) + _chunk(b"iCCP", b"p\0\0" + text)
    return [
        ("picture.png", png_header(20_000, 20_000)),
        ("picture.png", png_header(12_000, 12_000)),
        ("picture.png", png_header(2**31 - 1, 2**31 - 1)),
        ("picture.png", png(0)[:33] + chunk + png(0)[33:]),
        ("picture.png", png(0)[:33] + struct.pack(">I", 2**31 - 1) + b"eXIf" + png(0)[33:]),
        ("picture.jpg", jpeg_header(65_500, 65_500)),
        ("picture.jpg", jpeg_header(12_000, 12_000)),
        (
            "picture.webp",
            b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4 + b"\xff" * 6,
        ),
        (
            "picture.gif",
            b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0),
        ),
        ("picture.bmp", b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0)),
        ("values.npy", npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}")),
        ("values.npy", npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': " + "(" * 50_000 + "}")),
        ("values.npy", npy_header("{'descr': '|V2000000000', 'fortran_order': False, 'shape': (1,)}")),
        ("caption.txt", b"a" * (8 << 20)),
        ("caption.json", b"[" * 1_000_000),
        ("caption.json", b"9" * 1_000_000),
        ("label.cls", b"9" * 1_000_000),
    ]


def jpegs() -> list[Member]:
    """JPEGs whose headers lie, in the ways that decide which decoder reads them and how much it takes."""
    whole = jpeg_header(8, 8)
    frame = whole.index(b"\xff\xc0")
    loop = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"  # a table that holds itself
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\x7f\xff\xff\xff\0\x06\0\0\xff\xff\xff\xff"
    return [
        *(("picture.jpg", jpeg_header(8, 8, components)) for components in (0, 2, 4, 255)),
        *(("picture.jpg", jpeg_header(*size)) for size in ((0, 8), (8, 0), (8000, 8000), (65_535, 800))),
        *(("picture.jpg", whole[:at]) for at in (3, 20, frame + 1, frame + 6, len(whole) - 60)),
        ("picture.jpg", whole[: frame + 2] + b"\xff\xff" + whole[frame + 4 :]),
        ("picture.jpg", whole[: frame + 2] + b"\0\0" + whole[frame + 4 :]),
        ("picture.jpg", whole[:2] + _segment(loop) * 300 + whole[2:-60]),
        ("picture.jpg", whole[:2] + _segment(turned) + whole[2:-60]),
        ("picture.jpg", whole[:2] + _segment(turned + bytes(60_000)) * 20 + whole[2:-60]),
        ("picture.jpg", whole[:2] + b"\xff\xfe\0\x02" * 5_000 + whole[2:-60]),
        ("picture.jpg", whole[:frame] + whole[frame : frame + 19] * 2 + whole[frame + 19 :]),
    ]


def unusable() -> list[Member]:
    """What cannot be read, without any wish to harm; an empty name is a member that is missing."""
    photo = io.BytesIO()
    Image.new("RGB", (6, 4)).save(photo, "JPEG")
    return [
        ("picture.png", png(2)[:-30]),
        ("picture.jpg", photo.getvalue()[:-40]),
        ("picture.png", b""),
        ("picture.txt", b"a dog"),
        ("caption.txt", b"\xff\xfe\xfd"),
        ("caption.txt", b" \n"),
        ("values.npy", npy([1.0, float("nan"), 2.0])),
        ("values.npy", npy([1.0, 2.0])),
        ("values.npy", npy([1.0, 2.0, 3.0])[:-1]),
        ("label.cls", b"99"),
        ("picture.", b""),
        ("label.", b""),
    ]


def put(sample: dict[str, Any], member: Member) -> dict[str, Any]:
    """The sample with this member instead of its own one of the modality."""
    modality = member[0].partition(".")[0]
    rest = {name: value for name, value in sample.items() if name.partition(".")[0] != modality}
    return rest | ({} if member[0].endswith(".") else {member[0]: member[1]})


def npy_header(text: str) -> bytes:
    """A .npy file that ends behind this header."""
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text.encode()


def png_header(width: int, height: int) -> bytes:
    """A PNG of so many pixels without any."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", b"")
    )


def jpeg_header(width: int, height: int, components: int = 3) -> bytes:
    """A JPEG whose frame says this size: the rest of it is that of a small picture."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    data[frame + 9] = components
    return bytes(data)


def _segment(content: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
