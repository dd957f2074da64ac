"""Pictures as arrays: to an encoder's size, and to its numbers. The one resizer of training, evaluation and release.

Resizing is torch's antialiased bicubic on uint8, at most 2 levels of 255 from Pillow's, hardly ever more than 1; for
noise whose sides both shrink by little it may be more (docs/data.md). Models that were trained with bilinear resizing
get that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .images_mmpretrain import BACKGROUND, BICUBIC, pixels_of, shade

LONGEST = 32  # times as long as wide is a strip
_AT_ONCE = 1 << 18  # numbers that are normalized together: they stay in the processor's cache


class Pictures:
    """The pictures of a batch, brought to their size already.

    pixels: uint8 [b, height, width, channels]. present: bool [b], whether each sample has one; rows of others are 0.
    """

    def __init__(self, pixels: np.ndarray, present: np.ndarray) -> None:
        self.pixels, self.present = pixels, present


def fitted(image: Any, entry: dict[str, Any], out: np.ndarray | None = None) -> np.ndarray:
    """A PIL image, or its :func:`pixels_of`, as uint8 [height, width, channels] of its modality's size.

    entry: of the processor. ``resize`` is ``crop`` (the image covers the size, its middle is cut out; before that it is
    resized to ``shortest_edge``, if the entry has one), ``pad`` (the whole image on the background) or ``squash``
    (the whole image in other proportions). Entries from before there was a choice squash, or crop to their edge. What
    must be resized is resized as ``resample`` of the entry says (bicubic or bilinear; default bicubic), antialiased.
    out: where the result goes; None: a new array, or a view of the image that was given as one.
    """
    (height, width), edge, background = entry["size"], entry.get("shortest_edge"), entry.get("background", BACKGROUND)
    pixels = image if isinstance(image, np.ndarray) else pixels_of(image, entry["channels"], background)
    how = entry.get("resize") or ("squash" if edge is None else "crop")
    resample = entry.get("resample", BICUBIC)
    if how == "squash":
        found = resized(pixels, width, height, out, resample)
    elif how == "pad":
        found = _padded(pixels, width, height, shade(background, entry["channels"]), resample)
    else:
        found = _covering(pixels, *((width, height) if edge is None else (edge, edge)), out, resample)
        found = _center(found, width, height)
    if out is None or found is out:
        return found
    out[:] = found
    return out


def resized(
    pixels: np.ndarray, width: int, height: int, out: np.ndarray | None = None, resample: str = BICUBIC
) -> np.ndarray:
    """uint8 [h, w, channels] -> [height, width, channels]; of that size already, it stays.

    out: where the result goes if it has that shape. resample: one of ``RESAMPLES``.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    high, wide, channels = pixels.shape
    if high > height and wide < width:  # as Pillow, which takes the cheaper direction first
        pixels = resized(pixels, wide, height, resample=resample)
    shape = (height, width, channels)
    if out is None or out.shape != shape:
        out = np.empty(shape, np.uint8)
    # torch warns of arrays that cannot be written
    _resize(_channels_first(pixels if pixels.flags.writeable else pixels.copy()), _channels_first(out), resample)
    return out


def _resize(source: Tensor, out: Tensor, resample: str) -> None:
    """uint8 [1, channels, h, w] into ``out`` [1, channels, height, width]."""
    size = tuple(out.shape[2:])
    try:
        # What interpolate calls; that has no ``out``, and puts the channels first, which costs a half.
        getattr(torch.ops.aten, f"_upsample_{resample}2d_aa").out(source, size, False, None, None, out=out)
    except (AttributeError, RuntimeError):  # it is no public name: a torch without it takes a little longer
        planes = source[0, :, None].contiguous()
        out.copy_(functional.interpolate(planes, size, mode=resample, antialias=True)[None, :, 0])


def normalized(tensors: dict[str, Tensor], entry: dict[str, Any]) -> dict[str, Tensor]:
    """``pixels`` uint8 [b, h, w, channels] -> ``pixel_values`` float32 [b, channels, h, w], on the same device.

    ``(x / 255 - mean) / std``, and 0 where ``present`` is False. Other tensors stay; without ``pixels`` all do.
    """
    if "pixels" not in tensors:
        return tensors
    tensors = dict(tensors)
    pixels = tensors.pop("pixels").permute(0, 3, 1, 2)
    count, device = pixels.shape[1], pixels.device
    mean, std = (torch.tensor(entry.get(key) or [0.5] * count, device=device) for key in ("mean", "std"))
    # A tensor on the device: a GPU would multiply by the reciprocal of a plain number, and other bits would come out.
    most = torch.tensor(255.0, device=device)
    values = _empty(pixels)
    step = max(1, _AT_ONCE // max(1, pixels[0].numel())) if device.type == "cpu" and len(pixels) else len(pixels)
    for start in range(0, len(pixels), max(1, step)):
        part = values[start : start + step].copy_(pixels[start : start + step])
        part.div_(most).sub_(mean[:, None, None]).div_(std[:, None, None])
    if "present" in tensors:
        values[~tensors["present"]] = 0
    return {"pixel_values": values, **tensors}


def _empty(pixels: Tensor) -> Tensor:
    """float32 of this shape. On a CPU from numpy, which asks for large pages: the first touch of small ones costs as
    much as all of the arithmetic."""
    if pixels.device.type == "cpu":
        return torch.from_numpy(np.empty(tuple(pixels.shape), np.float32))
    return torch.empty(pixels.shape, device=pixels.device)


def _channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def _covering(pixels: np.ndarray, width: int, height: int, out: np.ndarray | None, resample: str) -> np.ndarray:
    """Resized so that it just covers width x height, one side equal.

    Of a strip the ends never count, and resized as a whole it would fill the memory: they are cut off before.
    """
    high, wide = pixels.shape[:2]
    if wide * height >= high * width:  # wider than what is asked for
        pixels = _center(pixels, min(wide, max(1, LONGEST * width * high // height)), high)
        return resized(pixels, max(width, pixels.shape[1] * height // high), height, out, resample)
    pixels = _center(pixels, wide, min(high, max(1, LONGEST * height * wide // width)))
    return resized(pixels, width, max(height, pixels.shape[0] * width // wide), out, resample)


def _padded(pixels: np.ndarray, width: int, height: int, background: tuple[int, ...], resample: str) -> np.ndarray:
    """As large as fits, in the middle of the background."""
    high, wide = pixels.shape[:2]
    if wide * height >= high * width:
        pixels = resized(pixels, width, max(1, round(high * width / wide)), resample=resample)
    else:
        pixels = resized(pixels, max(1, round(wide * height / high)), height, resample=resample)
    found = np.empty((height, width, pixels.shape[2]), np.uint8)
    found[:] = background
    top, left = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    found[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return found


def _center(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
