"""What ``train.crop`` cuts out of a picture while it is read, in whole pixels of the picture as it is stored.

A box is drawn as on the device (:func:`crop_boxes`), from the same numbers; as torchvision's RandomResizedCrop it is
rounded to whole pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from mmpretrain.config.augment import AugmentConfig
from mmpretrain.data.augment.draws import Draws
from mmpretrain.data.augment.images import CROP_ATTEMPTS
from mmpretrain.data.step import Step

INPUTS = "inputs"  # the view's name of what ``train`` augments


class Box(NamedTuple):
    """Rows top ... top + height - 1 and columns left ... left + width - 1 of a picture."""

    top: int
    left: int
    height: int
    width: int

    def within(self, factor: int) -> Box:
        """The whole pixels inside of it of the same picture ``factor`` times smaller."""
        return Box(*(number // factor for number in self))


class BoxDraws:
    """The boxes of one modality in one batch. positions: int64 [b], of the stream. config: with a crop."""

    def __init__(self, config: AugmentConfig, seed: int, modality: str, positions: np.ndarray) -> None:
        draws = Draws(Step(0, 0.0, 0.0, seed), INPUTS, modality, torch.from_numpy(positions))
        self._config = config
        self._numbers = draws.uniform("crop", CROP_ATTEMPTS + 1, 2).numpy()
        self._cropped: list[bool] = draws.coins(config)["crop"].tolist()

    def box(self, row: int, height: int, width: int, proportions: float) -> Box | None:
        """The box of this row of the batch in a picture of ``height`` x ``width``; None: it stays whole.

        proportions: width over height of the picture as the encoder sees the whole of it.
        """
        if not self._cropped[row]:
            return None
        *attempts, (down, across) = self._numbers[row].tolist()
        shape = next(filter(None, (self._shape(area, ratio, proportions) for area, ratio in attempts)), None)
        if shape is None:
            shape, (down, across) = self._middle(proportions), (0.5, 0.5)
        tall, wide = max(1, round(shape[0] * height)), max(1, round(shape[1] * width))
        return Box(int(down * (height - tall + 1)), int(across * (width - wide + 1)), tall, wide)

    def _shape(self, area: float, ratio: float, proportions: float) -> tuple[float, float] | None:
        """Height and width as shares of the picture; None if they don't fit."""
        assert self._config.crop is not None
        (least, most), (narrow, broad) = self._config.crop, self._config.ratio
        side = math.sqrt(least + area * (most - least))
        root = math.exp((math.log(narrow) + ratio * (math.log(broad) - math.log(narrow))) / 2)
        down, across = side / root * math.sqrt(proportions), side * root / math.sqrt(proportions)
        return (down, across) if down <= 1 and across <= 1 else None

    def _middle(self, proportions: float) -> tuple[float, float]:
        """The largest part of an allowed ratio."""
        ratio = min(max(proportions, self._config.ratio[0]), self._config.ratio[1])
        return min(1.0, proportions / ratio), min(1.0, ratio / proportions)
