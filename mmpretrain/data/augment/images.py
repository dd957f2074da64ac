"""Augmentations of images as few batched operations: one affine sampling, one color matrix, two blurring matrices.

Shapes: b samples, c channels (1 or 3), h x w pixels. Nothing runs sample by sample. After Chen et al. (SimCLR, arXiv
2002.05709); crops are drawn as torchvision's RandomResizedCrop draws them, but not rounded to whole pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpretrain.config.augment import AugmentConfig
from mmpretrain.data.augment.constants import constant
from mmpretrain.data.augment.draws import Draws, Tensors, rows, within

CROP_ATTEMPTS = 10
BLUR_RADIUS = 4  # standard deviations, beyond which less than 0.01 % of a Gaussian lies

# The luma of ITU-R BT.601, and the two color axes I and Q of NTSC.
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


class ImageAugmentation:
    """Augments ``pixel_values``. entry: the modality's in the processor; of pixels without statistics the middle of
    their range is their mean."""

    def __init__(self, entry: Mapping[str, Any], tokenizer: None) -> None:
        height, width = entry["size"]
        self._size = (height, width)
        self._statistics = [tuple(entry.get(key, [0.5] * entry["channels"])) for key in ("mean", "std")]

    def __call__(self, tensors: Tensors, config: AugmentConfig, draws: Draws) -> Tensors:
        """See :class:`Augmentation`."""
        pixels = tensors["pixel_values"]
        return {"pixel_values": augment_images(pixels, self._form_on(pixels.device), config, draws)}

    def _form_on(self, device: torch.device) -> ImageForm:
        mean, std = (constant(numbers, torch.float32, device) for numbers in self._statistics)
        return ImageForm(self._size, mean, std)


@dataclass(frozen=True)
class ImageForm:
    """What encoders get: size [height, width]; pixels as ``(x - mean) / std`` of values in 0...1, per channel."""

    size: tuple[int, int]
    mean: Tensor
    std: Tensor


def augment_images(pixels: Tensor, form: ImageForm, config: AugmentConfig, draws: Draws) -> Tensor:
    """Normalized images [b, c, h, w] of any size -> augmented ones of ``form``: float32 [b, c, *form.size]."""
    coins = draws.coins(config)
    if config.crop is not None and "crop" not in draws.done:
        pixels = _crop(pixels, form.size, config, coins, draws)
    else:
        pixels = _resize(pixels, form.size)
        if "flip" in coins:
            pixels = torch.where(rows(coins["flip"], pixels), pixels.flip(-1), pixels)
    if "jitter" in coins or "grey" in coins:
        pixels = _color(pixels, form, config, coins, draws)
    if "blur" in coins:
        pixels = _blur(pixels, coins["blur"], within(draws.uniform("blur"), config.sigma), config.sigma[1])
    return pixels


def _resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return F.interpolate(pixels, size, mode="bicubic", antialias=True)


def _crop(
    pixels: Tensor, size: tuple[int, int], config: AugmentConfig, coins: dict[str, Tensor], draws: Draws
) -> Tensor:
    """Crop, resize and flip as one bilinear sampling."""
    box = crop_boxes(draws, config, *pixels.shape[-2:])
    whole = constant((0.0, 0.0, 1.0, 1.0), torch.float32, pixels.device)
    top, left, height, width = torch.where(coins["crop"][:, None], box, whole).unbind(1)
    mirror = 1 - 2 * coins["flip"].float() if "flip" in coins else torch.ones_like(width)
    grid = torch.empty(len(pixels), *size, 2, device=pixels.device)
    grid[..., 0] = _per_sample(2 * left + width - 1) + _per_sample(width * mirror) * _centers(size[1], pixels)
    grid[..., 1] = _per_sample(2 * top + height - 1) + _per_sample(height) * _centers(size[0], pixels)[:, None]
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _centers(size: int, like: Tensor) -> Tensor:
    """Where the middles of ``size`` pixels lie on an axis from -1 to 1: [size]."""
    return (2 * torch.arange(size, device=like.device) + 1) / size - 1


def crop_boxes(draws: Draws, config: AugmentConfig, height: int, width: int) -> Tensor:
    """Random crops of h x w images: float32 [b, 4], top, left, height and width as shares of the image.

    The first of 10 draws of (area, ratio) that fits; where none does, the largest middle part of an allowed ratio.
    """
    assert config.crop is not None
    least, most = config.ratio
    numbers = draws.uniform("crop", CROP_ATTEMPTS + 1, 2)
    area = within(numbers[:, :CROP_ATTEMPTS, 0], config.crop)
    root = within(numbers[:, :CROP_ATTEMPTS, 1], [math.log(least), math.log(most)]).div(2).exp()  # of the ratio
    # Shares of an image's sides: ratio is that of pixels.
    across, down = area.sqrt() * root * math.sqrt(height / width), area.sqrt() / root * math.sqrt(width / height)
    fits = (across <= 1) & (down <= 1)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    shape = torch.cat([down.gather(1, first), across.gather(1, first)], dim=1)
    ratio = min(max(width / height, least), most)
    sides = (min(1.0, width / height / ratio), min(1.0, ratio * height / width))
    middle = constant(sides, torch.float32, area.device)
    found = fits.any(dim=1, keepdim=True)
    shape = torch.where(found, shape, middle)
    start = torch.where(found, numbers[:, CROP_ATTEMPTS], 0.5) * (1 - shape)
    return torch.cat([start, shape], dim=1)


def _color(pixels: Tensor, form: ImageForm, config: AugmentConfig, coins: dict[str, Tensor], draws: Draws) -> Tensor:
    """Brightness, contrast, saturation and hue, or grey, as one linear map of a pixel's channels, cut to 0...1.

    With b, k the factors of brightness and contrast, y the image's mean luma, and M the map of saturation and hue,
    which leaves grey alone: x -> b k M x + b (1 - k) y.
    """
    channels = pixels.shape[1]
    luma, saturated, turned = _color_basis(channels, pixels.device)
    jitter, grey = (coins.get(name) for name in ("jitter", "grey"))
    factors = draws.uniform("jitter", 4) * 2 - 1
    factors = torch.zeros_like(factors) if jitter is None else factors * jitter[:, None]
    most = (config.brightness, config.contrast, config.saturation, 2 * math.pi * config.hue)
    bright, contrast, saturation, angle = (factors * constant(most, torch.float32, factors.device)).unbind(1)
    gain, contrast, saturation = 1 + bright, 1 + contrast, 1 + saturation
    if grey is not None:
        saturation = saturation.masked_fill(grey, 0)
    matrix = luma.expand(channels, channels) + _per_sample(saturation * angle.cos()) * saturated
    matrix = (matrix + _per_sample(saturation * angle.sin()) * turned) * _per_sample(gain * contrast)
    mean_luma = (pixels.mean(dim=(2, 3)) * form.std + form.mean) @ luma
    offset = (matrix @ form.mean) + (gain * (1 - contrast) * mean_luma)[:, None]
    values = torch.baddbmm(offset[:, :, None], matrix * form.std, pixels.flatten(2)).clamp_(0, 1)
    values = values.sub_(form.mean[:, None]).div_(form.std[:, None]).view_as(pixels)
    touched = torch.stack([coin for coin in (jitter, grey) if coin is not None]).any(dim=0)
    return torch.where(rows(touched, pixels), values, pixels)


def _per_sample(factor: Tensor) -> Tensor:
    return factor[:, None, None]


@cache
def _color_basis(channels: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the luma [c], and the parts of a map [c, c] that scale with saturation times cosine and sine of hue.

    Images of one channel have no color to change.
    """
    if channels == 1:
        nothing = torch.zeros(1, 1, device=device)
        return torch.ones(1, device=device), nothing, nothing
    to_yiq = torch.tensor(_YIQ, dtype=torch.float64)
    from_yiq = torch.linalg.inv(to_yiq)
    quarter_turn = torch.tensor([[0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    plane = torch.diag(torch.tensor([0, 1, 1], dtype=torch.float64))
    saturated, turned = (from_yiq @ part @ to_yiq for part in (plane, quarter_turn))
    return to_yiq[0].float().to(device), saturated.float().to(device), turned.float().to(device)


def _blur(pixels: Tensor, coin: Tensor, sigma: Tensor, widest: float) -> Tensor:
    """Gaussian blur of each image by its own sigma [b] in pixels, edges reflected, where ``coin`` [b] is set."""
    down, across = (
        torch.where(
            _per_sample(coin),
            blur_matrices(sigma, size, widest),
            torch.eye(size, dtype=sigma.dtype, device=sigma.device),
        )
        for size in pixels.shape[-2:]
    )
    return down[:, None] @ pixels @ across[:, None].mT


def blur_matrices(sigma: Tensor, size: int, widest: float) -> Tensor:
    """Convolution of ``size`` pixels with Gaussians of ``sigma`` [b], edges reflected, as matrices: [b, size, size].

    As matrices because products of them cost less than convolutions with kernels of each image's own.
    """
    radius = min(math.ceil(BLUR_RADIUS * widest), size - 1)
    offsets = torch.arange(-radius, radius + 1, device=sigma.device)
    weights = (-0.5 * (offsets / sigma[:, None]) ** 2).exp()
    weights = weights / weights.sum(dim=1, keepdim=True)
    pixels = torch.arange(size, device=sigma.device)
    at = (pixels[None] + offsets[:, None]).abs()  # [offsets, size]: where each offset of each pixel reads
    at = torch.where(at > size - 1, 2 * (size - 1) - at, at)
    reads = (at[..., None] == pixels).to(weights).flatten(1)  # [offsets, size * size]
    return (weights @ reads).view(-1, size, size)
