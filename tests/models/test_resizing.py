"""The one resizer against Pillow's, and pixels against plain arithmetic."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mmpretrain.models import resizing_mmpretrain
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.models.resizing_mmpretrain import Pictures, fitted, normalized, resized

SIZES = ((256, 224), (224, 256), (300, 37), (64, 224), (1000, 224))


def picture(height: int, width: int, channels: int, seed: int, *, noisy: bool) -> np.ndarray:
    """uint8 [height, width, channels]: noise, or waves as smooth as photos."""
    rng = np.random.default_rng(seed)
    if noisy:
        return rng.integers(0, 256, (height, width, channels), np.uint8)
    down, across = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin(down / rng.uniform(5, 40) + across / rng.uniform(5, 40)) for _ in range(channels)]
    return np.stack(waves, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_pillows_up_to_two_levels_and_hardly_ever_more_than_one(channels: int, noisy: bool) -> None:
    off = []
    for seed, (before, after) in enumerate(SIZES):
        pixels = picture(before, before + 11, channels, seed, noisy=noisy)
        right = np.asarray(Image.fromarray(pixels.squeeze()).resize((after + 5, after), Image.Resampling.BICUBIC))
        found = resized(pixels, after + 5, after)
        off.append(np.abs(found.astype(int) - right.reshape(found.shape)).flatten())
    levels = np.concatenate(off)
    assert levels.max() <= 2 and (levels > 0).mean() < 0.01 and (levels > 1).mean() < 1e-4


def test_what_grows_and_shrinks_at_once_goes_the_way_of_pillow() -> None:
    pixels = picture(145, 12, 3, 0, noisy=True)
    right = np.asarray(Image.fromarray(pixels).resize((132, 143), Image.Resampling.BICUBIC))
    assert np.abs(resized(pixels, 132, 143).astype(int) - right).max() <= 2


@pytest.mark.parametrize("channels", [1, 3])
def test_a_torch_without_the_private_function_gives_the_same_pixels(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = picture(60, 80, channels, 0, noisy=True)[3:, 5:]
    wanted = [resized(pixels, width, height).copy() for width, height in ((30, 20), (100, 90), (100, 20), (9, 57))]
    monkeypatch.setattr(resizing_mmpretrain.torch, "ops", SimpleNamespace(aten=SimpleNamespace()))
    found = [resized(pixels, width, height) for width, height in ((30, 20), (100, 90), (100, 20), (9, 57))]
    assert all(map(np.array_equal, found, wanted))


def test_where_the_result_goes_and_what_is_cut_out_before_changes_nothing() -> None:
    whole = picture(60, 80, 3, 0, noisy=True)
    part, batch = whole[5:47, 9:70], np.zeros((2, 20, 30, 3), np.uint8)
    expected = resized(np.ascontiguousarray(part), 30, 20)
    assert resized(part, 30, 20, batch[1]) is not None and np.array_equal(batch[1], expected)
    part.flags.writeable = False
    assert np.array_equal(resized(part, 30, 20), expected)
    for how in ("crop", "pad", "squash"):
        entry = {"size": [20, 30], "channels": 3, "resize": how, "background": "#102030"}
        assert np.array_equal(fitted(whole, entry, batch[0]), fitted(whole, entry))


def test_normalized_pixels_are_the_bits_of_plain_arithmetic() -> None:
    pixels = picture(30, 20, 3, 0, noisy=True)[None].repeat(3, axis=0)
    mean, std = (np.array(numbers, np.float32) for numbers in ([0.48, 0.45, 0.41], [0.27, 0.26, 0.25]))
    shares = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    values = (shares - mean[:, None, None]) / std[:, None, None]
    found = normalized({"pixels": torch.from_numpy(pixels)}, {"mean": mean.tolist(), "std": std.tolist()})
    assert list(found) == ["pixel_values"] and np.array_equal(found["pixel_values"].numpy(), values)


def test_halves_of_a_call_are_the_call_and_the_first_alone_feeds_no_encoder() -> None:
    entry = {"kind": "image", "size": [8, 8], "channels": 3, "optional": True}
    processor = MMPretrainProcessor({"x": entry})
    images = [Image.fromarray(picture(9, 12, 3, 0, noisy=True)), None]
    encoded = processor.encoded(x=images)
    assert encoded["x"]["pixels"].dtype is torch.uint8 and "pixel_values" not in encoded["x"]
    called, finished = processor(x=images)["x"], processor.finished(encoded)["x"]
    assert torch.equal(called["pixel_values"], finished["pixel_values"]) and not finished["pixel_values"][1].any()
    assert processor.finished({"x": finished})["x"] is finished
    ready = Pictures(encoded["x"]["pixels"].numpy(), np.array([True, False]))
    again = processor(x=ready)["x"]
    assert torch.equal(again["pixel_values"], called["pixel_values"]) and again["present"].tolist() == [True, False]
