"""Images: crops, flips and blur against direct formulas, colors against torchvision's published definitions."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmpretrain.config.data import AugmentConfig
from mmpretrain.data.augment.images import ImageForm, augment_images, blur_matrices, crop_boxes
from tests.data.augment.small_batches import draws

LUMA = torch.tensor([0.299, 0.587, 0.114])
MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])


def form(*size: int, channels: int = 3) -> ImageForm:
    """The form of an image of this height and width."""
    return ImageForm((size[0], size[1]), MEAN[:channels], STD[:channels])


def images(count: int, *size: int, channels: int = 3, least: float = 0.0, most: float = 1.0) -> Tensor:
    """Values in 0...1: [count, channels, *size]."""
    generator = torch.Generator().manual_seed(7)
    return torch.rand(count, channels, *size, generator=generator) * (most - least) + least


def augmented(values: Tensor, config: AugmentConfig, *size: int) -> Tensor:
    """Augmented images, normalized before and back to 0...1 afterwards."""
    channels = values.shape[1]
    mean, std = MEAN[:channels, None, None], STD[:channels, None, None]
    target = form(*(size or values.shape[-2:]), channels=channels)
    return augment_images((values - mean) / std, target, config, draws(len(values))) * std + mean


def luma(values: Tensor) -> Tensor:
    """[b, c, h, w] -> the brightness [b, h, w]."""
    return torch.einsum("bchw,c->bhw", values, LUMA)


def slope(before: Tensor, after: Tensor) -> Tensor:
    """The factor [b] that leads from one to the other."""
    return (before * after).sum(dim=(1, 2, 3)) / (before**2).sum(dim=(1, 2, 3))


def only(brightness: float = 0, contrast: float = 0, saturation: float = 0, hue: float = 0) -> AugmentConfig:
    """Jitter of these kinds alone, of every image."""
    return AugmentConfig(jitter=1, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)


def test_crops_have_the_shares_and_ratios_asked_for() -> None:
    config = AugmentConfig(crop=[0.2, 0.6], ratio=[0.75, 1.5])
    top, left, height, width = crop_boxes(draws(5000), config, 40, 60).unbind(1)
    assert top.min() >= 0 and (top + height).max() <= 1 + 1e-6 and left.min() >= 0 and (left + width).max() <= 1 + 1e-6
    area, ratio = height * width, width * 60 / (height * 40)
    assert 0.2 - 1e-5 <= area.min() < 0.21 and 0.59 < area.max() <= 0.6 + 1e-5
    assert 0.75 - 1e-5 <= ratio.min() < 0.76 and 1.49 < ratio.max() <= 1.5 + 1e-5
    assert abs(area.mean() - 0.4) < 0.01  # every one fits: uniform
    assert abs(ratio.log().mean() - math.log(0.75 * 1.5) / 2) < 0.02
    free = 1 - height
    assert abs((top / free).mean() - 0.5) < 0.02


def test_a_crop_that_never_fits_is_the_middle() -> None:
    config = AugmentConfig(crop=[1, 1], ratio=[1.0, 1.0])
    boxes = crop_boxes(draws(4), config, 20, 40)
    assert torch.allclose(boxes, torch.tensor([0.0, 0.25, 1.0, 0.5]).expand(4, 4))
    boxes = crop_boxes(draws(4), AugmentConfig(crop=[1, 1], ratio=[2.0, 3.0]), 20, 20)
    assert torch.allclose(boxes, torch.tensor([0.25, 0.0, 0.5, 1.0]).expand(4, 4))


def test_crops_show_the_part_that_was_drawn() -> None:
    config = AugmentConfig(crop=[0.2, 0.6])
    down, across = torch.meshgrid(torch.arange(24) + 0.5, torch.arange(30) + 0.5, indexing="ij")
    values = torch.stack([down / 24, across / 30, torch.zeros(24, 30)]).expand(50, 3, 24, 30)
    found = augmented(values, config, 10, 12)
    boxes = crop_boxes(draws(50), config, 24, 30)
    inside = slice(2, -2)  # borders of the image are constant where the ramp would go on
    for row, (top, left, height, width) in enumerate(boxes.tolist()):
        down = top + (torch.arange(10) + 0.5) / 10 * height
        across = left + (torch.arange(12) + 0.5) / 12 * width
        assert torch.allclose(found[row, 0, inside, 3], down[inside], atol=1e-5)
        assert torch.allclose(found[row, 1, 3, inside], across[inside], atol=1e-5)


def test_flips_are_exact_and_fair_with_and_without_crop() -> None:
    values = images(2000, 4, 6)
    for crop, error in ((None, 1e-6), ([1.0, 1.0], 1e-5)):
        found = augmented(values, AugmentConfig(crop=crop, ratio=[1.5, 1.5], flip=0.5))
        flipped = (found - values.flip(-1)).abs().amax(dim=(1, 2, 3)) < error
        kept = (found - values).abs().amax(dim=(1, 2, 3)) < error
        assert (flipped ^ kept).all()
        assert abs(flipped.sum() - 1000) < 5 * 500**0.5


def test_images_are_resized_as_the_processor_does_where_they_are_not_cropped() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((12, 8), Image.Resampling.BICUBIC), np.float32) / 255
    found = augmented(torch.from_numpy(pixels / np.float32(255))[None, None], AugmentConfig(), 8, 12)
    assert np.abs(found[0, 0].numpy().clip(0, 1) - expected).max() < 2 / 255


def test_brightness_is_a_factor() -> None:
    values = images(2000, 2, 2, most=0.7)
    factors = augmented(values, only(brightness=0.4)) / values
    factor = factors.amax(dim=(1, 2, 3))
    assert torch.allclose(factors, factor[:, None, None, None].expand_as(factors), atol=1e-3)
    assert 0.6 - 1e-4 <= factor.min() < 0.61 and 1.39 < factor.max() <= 1.4 + 1e-4
    assert abs(factor.mean() - 1) < 0.03


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_moves_away_from_the_mean_grey(channels: int) -> None:
    values = images(500, 4, 4, channels=channels, least=0.4, most=0.6)
    mean = (luma(values) if channels == 3 else values[:, 0]).mean(dim=(1, 2))[:, None, None, None]
    moved = augmented(values, only(contrast=0.4)) - mean
    factor = slope(values - mean, moved)
    assert torch.allclose(moved, factor[:, None, None, None] * (values - mean), atol=1e-5)
    assert 0.6 - 1e-3 <= factor.min() < 0.62 and 1.38 < factor.max() <= 1.4 + 1e-3


def test_saturation_moves_away_from_each_pixels_grey() -> None:
    values = images(500, 4, 4, least=0.35, most=0.65)
    grey = luma(values)[:, None]
    found = augmented(values, only(saturation=0.4))
    factor = slope(values - grey, found - grey)
    assert torch.allclose(found, grey + factor[:, None, None, None] * (values - grey), atol=1e-5)
    assert 0.6 - 1e-3 <= factor.min() < 0.62 and 1.38 < factor.max() <= 1.4 + 1e-3


def test_hue_turns_colors_and_leaves_luma_and_grey() -> None:
    values = images(300, 4, 4, least=0.4, most=0.6)
    found = augmented(values, only(hue=0.1))
    assert torch.allclose(luma(found), luma(values), atol=1e-5) and (found - values).abs().max() > 0.02
    grey = images(20, 4, 4)[:, :1].expand(20, 3, 4, 4)
    assert torch.allclose(augmented(grey, only(hue=0.5)), grey, atol=1e-5)
    # A turn of the color axes turns the hue of HSV by about as much, in the same direction for every image.
    red = torch.tensor([0.6, 0.4, 0.4])[None, :, None, None].expand(500, 3, 1, 1)
    hues = torch.tensor(
        [colorsys.rgb_to_hsv(*pixel)[0] for pixel in augmented(red, only(hue=0.1))[:, :, 0, 0].tolist()]
    )
    turns = (hues + 0.5) % 1 - 0.5
    assert -0.14 < turns.min() < -0.06 and 0.06 < turns.max() < 0.14 and abs(turns.mean()) < 0.02


def test_grey_has_three_equal_channels_and_the_same_luma() -> None:
    values = images(1000, 3, 3)
    found = augmented(values, AugmentConfig(grey=0.2))
    made_grey = (found - found[:, :1]).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert torch.allclose(found[made_grey][:, 0], luma(values[made_grey]), atol=1e-5)
    assert torch.allclose(found[~made_grey], values[~made_grey], atol=1e-6)
    assert abs(made_grey.sum() - 200) < 5 * (1000 * 0.2 * 0.8) ** 0.5


def test_colors_stay_between_0_and_1() -> None:
    found = augmented(images(200, 4, 4), AugmentConfig(jitter=1, brightness=1, contrast=1, saturation=1, hue=0.5))
    assert found.min() > -1e-5 and found.max() < 1 + 1e-5
    assert (found < 1e-5).any() and (found > 1 - 1e-5).any()


def test_images_of_one_channel_have_neither_saturation_nor_hue() -> None:
    values = images(50, 4, 4, channels=1)
    found = augmented(values, AugmentConfig(jitter=1, brightness=0, contrast=0, saturation=1, hue=0.5, grey=1))
    assert torch.allclose(found, values, atol=1e-6)


@pytest.mark.parametrize("size", [2, 5, 32])
def test_blurring_is_a_convolution_with_reflected_edges(size: int) -> None:
    sigma = torch.tensor([0.1, 0.6, 1.3, 2.0])
    signal = torch.randn(size, generator=torch.Generator().manual_seed(0))
    radius = min(8, size - 1)
    padded = np.pad(signal.numpy(), radius, mode="reflect")
    for row, width in enumerate(sigma.tolist()):
        kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
        expected = np.convolve(padded, kernel / kernel.sum(), mode="valid")
        assert np.allclose((blur_matrices(sigma, size, 2.0)[row] @ signal).numpy(), expected, atol=1e-5)


def test_blur_is_gaussian_in_both_directions_with_the_sigma_drawn() -> None:
    spot = torch.zeros(400, 3, 33, 33)
    spot[:, :, 16, 16] = 1
    found = augmented(spot, AugmentConfig(blur=0.5, sigma=[0.5, 2.0]))
    place = torch.arange(33) - 16.0
    across, down = found.sum(dim=2) @ place**2, found.sum(dim=3) @ place**2  # variances per channel
    assert torch.allclose(across, down, atol=2e-2) and torch.allclose(
        found.sum(dim=(2, 3)), torch.ones(400, 3), atol=1e-3
    )
    blurred = across[:, 0] > 0.01
    assert torch.allclose(found[~blurred], spot[~blurred], atol=1e-6)
    assert abs(blurred.sum() - 200) < 5 * 100**0.5
    deviation = across[blurred].sqrt()
    assert 0.45 < deviation.min() < 0.55 and 1.9 < deviation.max() < 2.05
