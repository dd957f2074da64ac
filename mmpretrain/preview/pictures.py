"""Images: as decoded, and what the model gets brought back to a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from mmpretrain.config.data import ModalityConfig
from mmpretrain.preview.drawing import picture
from mmpretrain.preview.plain import Measured


class PicturePreview:
    """A modality of images; see :class:`KindPreview`."""

    def __init__(
        self, name: str, modality: ModalityConfig, entry: Mapping[str, Any] | None, tokenizer: Any | None
    ) -> None:
        self.name = name
        self.limits: dict[str, float] = {}
        self._statistics = _statistics(entry or {}, modality.channels)

    def decoded(self, value: Image.Image) -> Markup:
        """See :class:`KindPreview`."""
        told = f"{value.width} x {value.height} pixels, {value.mode}"
        return picture(value, told) + Markup('<p class="note">{}</p>').format(told)

    def seen(self, tensors: Mapping[str, Tensor], value: Any) -> Markup:
        """See :class:`KindPreview`: the normalization is undone, values outside of an image's range are cut."""
        if not bool(tensors.get("present", torch.tensor(True))):
            return Markup('<p class="note">absent: zeros</p>')
        return picture(self.back(tensors["pixel_values"]), f"{self.name}, as the model gets it")

    def measured(self, value: Image.Image) -> Measured:
        """See :class:`KindPreview`."""
        width, height = value.size
        return Measured({"width": width, "height": height, "width / height": width / height}, {"mode": value.mode})

    def back(self, pixels: Tensor) -> Image.Image:
        """``pixel_values`` [channels, height, width] -> the image that they are."""
        mean, std = self._statistics
        values = pixels.detach().cpu().float() * std + mean
        array = (values.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def _statistics(entry: Mapping[str, Any], channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel [channels, 1, 1]; the processor's defaults where the entry has none."""
    mean, std = (torch.tensor(entry.get(key) or [0.5] * channels)[:, None, None] for key in ("mean", "std"))
    return mean, std
