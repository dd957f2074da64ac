"""JPEGs read without Pillow are what Pillow reads, and what it refuses is refused."""

from __future__ import annotations

import io
import random
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmpretrain.config.data import ModalityConfig
from mmpretrain.config.kind import Kind
from mmpretrain.data.decode import SampleError, decode
from mmpretrain.data.kinds.jpeg import FACTORS, jpeg_header, jpeg_pixels
from mmpretrain.data.pictures import PictureReader
from mmpretrain.models.images_mmpretrain import ORIENTATION, pixels_of

WAYS: list[dict[str, Any]] = [
    {"quality": 90},
    {"quality": 75, "subsampling": 0},
    {"quality": 50, "subsampling": 1, "optimize": True},
    {"quality": 85, "progressive": True},
    {"quality": 95, "restart_marker_blocks": 3},
    {"quality": 90, "icc_profile": b"x" * 300, "comment": b"hello"},
]


def jpeg(mode: str = "RGB", size: tuple[int, int] = (33, 47), seed: int = 0, **options: Any) -> bytes:
    """A JPEG of waves and a little noise, of width and height ``size``."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[: size[1], : size[0]]
    waves = [127 + 90 * np.sin(down / rng.uniform(2, 9) + across / rng.uniform(2, 9)) for _ in range(3)]
    noisy = np.stack(waves, axis=-1) + rng.normal(0, 8, (*size[::-1], 3))
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    """EXIF that says how the image is turned."""
    found = Image.Exif()
    found[ORIENTATION] = orientation
    return found


def quick(data: bytes, channels: int) -> np.ndarray | None:
    """What is read without Pillow, if it is."""
    header = jpeg_header(data)
    return None if header is None else jpeg_pixels(data, header, channels)


def by_pillow(data: bytes, channels: int) -> np.ndarray:
    """What Pillow reads; raises what it raises."""
    with warnings.catch_warnings(action="ignore"):
        return pixels_of(Image.open(io.BytesIO(data), formats=("JPEG",)), channels)


@pytest.mark.parametrize("way", range(len(WAYS)))
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_values_are_those_of_pillow(mode: str, way: int) -> None:
    for size in ((33, 47), (64, 64), (1, 1), (200, 5), (8, 17)):
        data = jpeg(mode, size, **WAYS[way])
        for channels in (1, 3):
            found = quick(data, channels)
            assert found is not None and np.array_equal(found, by_pillow(data, channels)), (size, channels)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_what_exif_turns_is_left_to_pillow(orientation: int) -> None:
    found = quick(jpeg(exif=exif(orientation)), 3)
    assert (found is None) == (orientation != 1)


def test_what_xmp_turns_is_left_to_pillow() -> None:
    content = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    data = jpeg(xmp=content)
    assert quick(data, 3) is None and decode("x.jpg", data, Kind.image).size == (47, 33)


@pytest.mark.parametrize("form", ["CMYK", "12 bits", "arithmetic", "several pictures", "PNG"])
def test_what_is_unusual_is_left_to_pillow(form: str) -> None:
    data = jpeg("CMYK" if form == "CMYK" else "RGB")
    frame = data.index(b"\xff\xc0")
    if form == "12 bits":
        data = data[: frame + 4] + b"\x0c" + data[frame + 5 :]
    elif form == "arithmetic":
        data = data[:frame] + b"\xff\xc9" + data[frame + 2 :]
    elif form == "several pictures":
        data = data[:2] + b"\xff\xe2\x00\x08MPF\0II" + data[2:]
    elif form == "PNG":
        data = b"\x89PNG\r\n\x1a\n"
    assert jpeg_header(data) is None
    if form == "12 bits":
        with pytest.raises(SampleError, match=r"^x.jpg: "):
            decode("x.jpg", data, Kind.image)


@pytest.mark.parametrize("segment", [b"\xff\xe0\0\x07JFIF\0", b"\xff\xee\0\x07Adobe"])
def test_a_version_that_is_cut_off_is_refused_as_by_pillow(segment: bytes) -> None:
    plain = jpeg()
    assert quick(plain[:2] + segment + plain[2:], 3) is None


def test_whatever_is_cut_off_is_refused() -> None:
    for data in (jpeg(), jpeg(progressive=True), jpeg("L", restart_marker_blocks=2)):
        reader = PictureReader("x", {"size": [8, 8], "channels": 3}, None, ModalityConfig(Kind.image, [8, 8]))
        for length in [*range(0, len(data) - 2, 97), len(data) - 2, len(data) - 1]:
            assert quick(data[:length], 3) is None
            with pytest.raises((SampleError, OSError)):
                reader.read(data[:length], [reader.rows(1)[0][0]], lambda *picture: None)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_give_pillows_values_or_its_refusal(seed: int) -> None:
    draw = random.Random(seed)
    files = [jpeg(mode, (40, 24), seed, **way) for mode in ("L", "RGB") for way in WAYS]
    files += [jpeg(exif=exif(1)), jpeg(exif=exif(6))]
    read = 0
    for _ in range(400):
        data = bytearray(draw.choice(files))
        for _ in range(draw.choice((1, 1, 2, 4))):
            place = draw.randrange(min(len(data), 650)) if draw.random() < 0.5 else draw.randrange(len(data))
            if draw.random() < 0.7:
                data[place] = draw.choice((0, 255, 0xD9, 0xDA, 0xC0, 0xE1, data[place] ^ (1 << draw.randrange(8))))
            elif draw.random() < 0.5:
                del data[place : place + draw.randrange(1, 20)]
            else:
                data[place:place] = draw.randbytes(draw.randrange(1, 20))
        found = quick(bytes(data), 3)
        if found is not None:
            assert np.array_equal(found, by_pillow(bytes(data), 3))
            read += 1
    assert read > 50


def test_a_shrunk_picture_has_its_sides_rounded_up() -> None:
    data = jpeg(size=(250, 131))
    header = jpeg_header(data)
    assert header is not None
    for factor in FACTORS:
        pixels = jpeg_pixels(data, header, 3, factor)
        assert pixels is not None and pixels.shape == (-(-131 // factor), -(-250 // factor), 3)


def test_too_many_pixels_are_refused_by_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(jpeg())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    monkeypatch.setattr("simplejpeg.decode_jpeg", lambda *_, **__: pytest.fail("it was decoded"))
    reader = PictureReader("x", {"size": [8, 8], "channels": 3}, None, ModalityConfig(Kind.image, [8, 8]))
    with pytest.raises(SampleError, match="65535 x 65535 pixels are more than"):
        reader.read(bytes(data), [reader.rows(1)[0][0]], lambda *picture: None)
