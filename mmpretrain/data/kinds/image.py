"""Images: JPEG, PNG, WebP, GIF, BMP and TIFF to Pillow's, as a viewer shows them."""

from __future__ import annotations

import io
import warnings

from PIL import Image, UnidentifiedImageError

from mmpretrain.data.decode import SampleError
from mmpretrain.models.images_mmpretrain import shown

MAX_PIXELS = 50_000_000
# Those that every build of Pillow reads by itself: no other program is started, as for EPS, and none is left to chance.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
NAMES = "JPEG, PNG, WebP, GIF, BMP and TIFF"
TILE = (322, 323)  # width and height of a TIFF's tiles
START = 14  # bytes of what is no image that are shown: as far as `<!DOCTYPE html`
NEWER = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "HEIC")
_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WebP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}


def decode(data: bytes) -> Image.Image:
    """An image of mode L, LA, RGB or RGBA, upright (see :func:`shown`); of several frames or pages the first.

    Raises SampleError or what Pillow raises; the header is read first.
    """
    check_size(*_webp_size(data))
    try:
        with warnings.catch_warnings(action="ignore"):  # of damaged EXIF, for example
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise SampleError(_unidentified(data)) from None
    check_size(*image.size)
    # A tile is unpacked whole, however little of it lies inside the image.
    check_size(*(getattr(image, "tag_v2", {}).get(tag, 0) for tag in TILE))
    try:
        return shown(image)
    except ValueError as error:
        raise SampleError(str(error)) from None


def check_size(width: int, height: int) -> None:
    """Raises SampleError for more pixels than are read."""
    if width * height > MAX_PIXELS:
        raise SampleError(f"{width} x {height} pixels are more than {MAX_PIXELS}")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height as a WebP's header says, (0, 0) of anything else: Pillow takes their memory on opening."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return 0, 0
    form, head = data[12:16], data[20:30].ljust(10, b"\0")
    if form == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if form == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF


def newer_form(data: bytes) -> str | None:
    """AVIF or HEIC, as phones and browsers write; None for anything else."""
    return NEWER.get(data[8:12]) if data[4:8] == b"ftyp" else None


def _unidentified(data: bytes) -> str:
    if not data:
        return "the file is empty"
    for magic, form in _MAGIC.items():
        if data.startswith(magic):
            return f"a damaged {form} image, or a variant of {form} that Pillow does not read"
    if (newer := newer_form(data)) is not None:
        return f"{newer}, which is not read: convert it (images are {NAMES})"
    start = "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in data[:START])
    return f"not an image (starts with `{start}`): images are {NAMES}"
