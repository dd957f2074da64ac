"""The model's pixels come back as the picture that they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.models.inputs_mmpretrain import image_tensors
from mmpretrain.models.resizing_mmpretrain import normalized
from mmpretrain.preview.drawing import heat_map, picture
from mmpretrain.preview.pictures import PicturePreview
from tests.preview.markup import embedded


@pytest.mark.parametrize("channels", [1, 3])
def test_normalized_pixels_come_back(channels: int) -> None:
    """Whatever the statistics; so the picture is what the processor made, not what was read."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 4, 3), dtype=np.uint8))
    entry = {"size": [6, 4], "channels": channels, "mean": [0.4] * channels, "std": [0.2] * channels}
    tensors = normalized(image_tensors("photo", image, entry), entry)
    preview = PicturePreview("photo", ModalityConfig(Kind.image, [6, 4], channels), entry, None)
    shown = embedded(preview.seen({"pixel_values": tensors["pixel_values"][0]}, image))
    assert np.array_equal(np.asarray(shown), np.asarray(image.convert("L" if channels == 1 else "RGB")))
    absent = {"pixel_values": tensors["pixel_values"][0], "present": torch.tensor(False)}
    assert "absent" in preview.seen(absent, None)


@pytest.mark.parametrize(
    ("mode", "shown"), [("I;16", "L"), ("CMYK", "RGB"), ("LA", "RGBA"), ("P", "RGB"), ("1", "RGB")]
)
def test_every_mode_is_shown(mode: str, shown: str) -> None:
    assert embedded(picture(Image.new(mode, (4, 4)), "x")).mode == shown


def test_16_bits_keep_their_ramp_and_large_images_become_small() -> None:
    ramp = Image.fromarray(np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8))
    assert len(np.unique(np.asarray(embedded(picture(ramp, "x"))))) == 64
    large = embedded(picture(Image.new("RGB", (2000, 500)), "x"))
    assert large.format == "JPEG" and large.size == (320, 80)


def test_what_a_picture_says_is_escaped() -> None:
    assert 'alt="&#34;&gt;&lt;b&gt;"' in picture(Image.new("L", (2, 2)), '"><b>')


def test_signs_have_colors_and_the_longer_side_lies_across() -> None:
    image = embedded(heat_map(np.array([[-1.0, 0.0, 1.0]] * 2).T, "x"))
    assert image.size == (3, 2)
    blue, white, red = (image.getpixel((x, 0)) for x in range(3))
    assert blue[2] > blue[0] and white[0] == white[2] and red[0] > red[2]  # type: ignore[index]
