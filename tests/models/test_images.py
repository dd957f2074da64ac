"""What a model sees of an image is what a viewer shows, in training and in a release."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mmpretrain.data.decode import Kind, SampleError, decode
from mmpretrain.models.images_mmpretrain import ORIENTATION, flat, shown
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.models.resizing_mmpretrain import fitted

# Pillow's formats -> the modes that it writes to them.
FORMATS = {
    "PNG": ("1", "L", "LA", "I;16", "P", "RGB", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("L", "RGB", "RGBA"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "I;16", "P", "RGB", "RGBA", "CMYK"),
}
WITH_EXIF = ("PNG", "JPEG", "WEBP")


def drawn(mode: str, seed: int, width: int, height: int) -> Image.Image:
    """A picture of noise in ``mode``, as large as asked for."""
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width)).astype(np.uint16))
    noise = Image.fromarray(rng.integers(0, 256, (height, width, 4), np.uint8))
    if mode in ("RGBA", "LA"):
        return noise.convert(mode)
    return noise.convert("RGB").convert(mode)


def written(image: Image.Image, form: str, orientation: int = 1, **options: Any) -> bytes:
    """The file's bytes; orientation: in its EXIF."""
    file = io.BytesIO()
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION] = orientation
    image.save(file, form, **options)
    return file.getvalue()


def processor_of(**entry: Any) -> MMPretrainProcessor:
    """A processor of one image modality, its pixels in 0...1."""
    channels = entry.setdefault("channels", 3)
    usual = {"kind": "image", "size": [8, 8], "mean": [0.0] * channels, "std": [1.0] * channels}
    return MMPretrainProcessor({"x": usual | entry})


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_training_and_release_see_the_same(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(sorted(FORMATS)))
    mode = data.draw(st.sampled_from(FORMATS[form]))
    width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    orientation = data.draw(st.integers(0, 9)) if form in WITH_EXIF else 1
    options = {"transparency": 3} if mode == "P" and form in ("PNG", "GIF") and data.draw(st.booleans()) else {}
    content = written(drawn(mode, width * height, width, height), form, orientation, **options)
    processor = processor_of(
        channels=data.draw(st.sampled_from([1, 3])),
        size=[data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))],
        resize=data.draw(st.sampled_from(["crop", "pad", "squash"])),
        background=data.draw(st.sampled_from(["white", "black", "#102030"])),
    )
    trained = decode(f"x.{form.lower()}", content, Kind.image)
    assert isinstance(trained, Image.Image) and trained.mode in ("L", "LA", "RGB", "RGBA")
    released = processor(x=Image.open(io.BytesIO(content)))["x"]["pixel_values"]
    assert torch.equal(processor(x=trained)["x"]["pixel_values"], released)


@pytest.mark.parametrize("form", [*WITH_EXIF, "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_exif_says(form: str, orientation: int) -> None:
    content = written(drawn("RGB", 0, 6, 4), form, orientation)
    right = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    found = shown(Image.open(io.BytesIO(content)))
    assert found.size == ((4, 6) if orientation > 4 else (6, 4))
    assert found.tobytes() == right.tobytes() == shown(found).tobytes()


def test_damaged_exif_turns_nothing() -> None:
    image = drawn("RGB", 0, 6, 4)
    found = decode("x.jpg", written(image, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01"), Kind.image)
    assert isinstance(found, Image.Image) and found.size == (6, 4)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_grey_of_16_bits_is_scaled_by_its_range(mode: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64), (2, 1)).astype(np.uint16)
    image = Image.fromarray(ramp.astype(np.int32)) if mode == "I" else Image.fromarray(ramp).convert("I").convert(mode)
    assert image.mode == mode
    assert np.array_equal(np.asarray(shown(image)), np.round(ramp / 257).astype(np.uint8))
    twelve = np.asarray(shown(Image.fromarray(ramp >> 4)))
    assert twelve.max() == 16  # dark: nothing in the file says that only 12 of its bits are used


def test_a_tiff_whose_zero_is_white_is_turned_as_with_8_bits() -> None:
    ramp = np.tile(np.linspace(0, 65535, 64), (2, 1)).astype(np.uint16)
    found = decode("x.tif", written(Image.fromarray(65535 - ramp), "TIFF", tiffinfo={262: 0}), Kind.image)
    assert np.array_equal(np.asarray(found), np.round(ramp / 257).astype(np.uint8))


def test_a_value_of_16_bits_may_stand_for_transparency() -> None:
    values = np.array([[0, 300, 65535]], np.uint16)
    content = written(Image.fromarray(values), "PNG", transparency=300)
    assert np.asarray(flat(Image.open(io.BytesIO(content)), 1, "white")).tolist() == [[0, 255, 255]]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("F", (2, 2)), r"mode F \(floats, which have no fixed range\): save it with 8 bits per channel"),
        (Image.new("I", (2, 2), 70_000), "mode I with values from 70000 to 70000: 32 bits have no range"),
        (Image.new("LAB", (2, 2)), r"mode LAB \(a color space that is not converted\)"),
    ],
)
def test_what_cannot_be_scaled_honestly_is_refused_by_name(image: Image.Image, message: str) -> None:
    with pytest.raises(ValueError, match=f"modality 'x' has an image of {message}"):
        processor_of()(x=image)
    with pytest.raises(SampleError, match=message):
        decode("x.tif", written(image, "TIFF"), Kind.image)


def test_a_file_of_32_bits_is_refused_whatever_its_values() -> None:
    """Its range is not told by them: those of 0 to 255 would become black."""
    ramp = np.arange(256, dtype=np.int32).reshape(16, 16)
    with pytest.raises(SampleError, match="32 bits have no range"):
        decode("x.tif", written(Image.fromarray(ramp), "TIFF"), Kind.image)


def glyph(mode: str) -> tuple[Image.Image, dict[str, Any]]:
    """A black bar on clear ground, and what saving it needs."""
    alpha = np.zeros((4, 6), np.uint8)
    alpha[1:3] = 255
    if mode == "P":
        image = Image.fromarray((alpha // 255).astype(np.uint8))
        image.putpalette([9, 9, 9, 0, 0, 0])
        return image, {"transparency": 0}
    layers = [Image.fromarray(np.zeros_like(alpha))] * (1 if mode == "LA" else 3)
    return Image.merge(mode, [*layers, Image.fromarray(alpha)]), {}


@pytest.mark.parametrize(
    ("mode", "form"), [("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("RGBA", "WEBP"), ("RGBA", "TIFF")]
)
def test_transparent_images_lie_on_their_background(mode: str, form: str) -> None:
    image, options = glyph(mode)
    content = written(image, form, **options, **({"lossless": True} if form == "WEBP" else {}))
    for name, ground in (("white", [255] * 3), ("#102030", [16, 32, 48])):
        pixels = np.asarray(flat(Image.open(io.BytesIO(content)), 3, name))
        assert (pixels[0] == ground).all() and not pixels[1].any(), (name, pixels)


@given(st.integers(0, 255), st.integers(0, 255))
def test_half_transparent_is_mixed_in_proportion(value: int, alpha: int) -> None:
    found = flat(Image.new("LA", (1, 1), (value, alpha)), 1, "white").getpixel((0, 0))
    assert abs(found - (value * alpha + 255 * (255 - alpha)) / 255) <= 1


def ycck(rgb: tuple[int, int, int]) -> bytes:
    """A JPEG as Adobe writes it: inverted colors of a printer, as luma and chroma."""
    inverted = Image.new("RGB", (8, 8), tuple(255 - value for value in rgb)).convert("YCbCr")
    layers = [layer.point(lambda value: 255 - value) for layer in inverted.split()]
    content = written(Image.merge("CMYK", [*layers, Image.new("L", (8, 8))]), "JPEG", subsampling=0)
    plain = b"Adobe\0\x64\0\0\0\0\0"
    assert plain in content
    return content.replace(plain, plain[:-1] + b"\2")


@pytest.mark.parametrize("rgb", [(255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)])
def test_the_colors_of_printers_come_out_right(rgb: tuple[int, int, int]) -> None:
    cmyk = Image.new("RGB", (8, 8), rgb).convert("CMYK")
    for content in (written(cmyk, "JPEG"), written(cmyk, "TIFF"), ycck(rgb)):
        found = np.asarray(flat(Image.open(io.BytesIO(content)), 3)).astype(int)
        assert np.abs(found - rgb).max() <= 3


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_counts(form: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    content = written(frames[0], form, save_all=True, append_images=frames[1:])
    found = decode(f"x.{form.lower()}", content, Kind.image)
    red, _, blue = flat(found, 3).getpixel((1, 1))
    assert red > 250 and blue < 5


def ramp(width: int, height: int) -> Image.Image:
    """Grey that grows from left to right."""
    return Image.fromarray(np.tile(np.linspace(0, 255, width), (height, 1)).astype(np.uint8))


def test_crop_cuts_the_middle_out_of_what_covers_the_size() -> None:
    found = fitted(ramp(256, 32), {"size": [32, 32], "channels": 1, "resize": "crop"})
    assert np.array_equal(found[:, :, 0], np.asarray(ramp(256, 32))[:, 112:144])
    wide = fitted(ramp(64, 64), {"size": [16, 64], "channels": 1, "resize": "crop"})
    assert np.array_equal(wide[:, :, 0], np.asarray(ramp(64, 64))[24:40])


def test_pad_shows_all_of_it_on_the_background() -> None:
    entry = {"size": [32, 32], "channels": 1, "resize": "pad", "background": "gray"}
    found = fitted(ramp(256, 32), entry)[:, :, 0]
    assert (found[:14] == 128).all() and (found[18:] == 128).all()
    assert found[16, 0] < 10 and found[16, -1] > 245
    assert fitted(Image.new("L", (4000, 1)), entry).shape == (32, 32, 1)


def test_squash_and_entries_from_before_there_was_a_choice() -> None:
    entry = {"size": [32, 32], "channels": 1}
    right = np.asarray(ramp(256, 32).resize((32, 32), Image.Resampling.BICUBIC))
    found = fitted(ramp(256, 32), entry)
    assert np.abs(found[:, :, 0].astype(int) - right).max() <= 1
    assert np.array_equal(fitted(ramp(256, 32), entry | {"resize": "squash"}), found)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"resize": "stretch"}, "resize is 'stretch', this version knows crop, pad, squash"),
        ({"resize": "pad", "shortest_edge": 9}, "shortest_edge is 9, but resize=pad cuts nothing out"),
        ({"background": "chequered"}, "background 'chequered' is no color: use white, black, gray or #rrggbb"),
    ],
)
def test_entries_that_cannot_be_carried_out(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor_of(**entry)
