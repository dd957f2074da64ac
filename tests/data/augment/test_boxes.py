"""Boxes that are cut out while pictures are read: those that the device would cut, in whole pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmpretrain.config.augment import AugmentConfig, Choose
from mmpretrain.data.augment.boxes import INPUTS, Box, BoxDraws
from mmpretrain.data.augment.draws import Draws
from mmpretrain.data.augment.images import crop_boxes
from mmpretrain.data.step import Step

POSITIONS = np.arange(100, 400)


def boxes(config: AugmentConfig, height: int, width: int, positions: np.ndarray = POSITIONS) -> list[Box | None]:
    """Of pictures of this size at these positions."""
    draws = BoxDraws(config, 5, "x", positions)
    return [draws.box(row, height, width, width / height) for row in range(len(positions))]


@pytest.mark.parametrize("size", [(400, 600), (600, 400), (50, 5000)])
def test_they_are_those_of_the_device_up_to_rounding(size: tuple[int, int]) -> None:
    config = AugmentConfig(crop=[0.1, 1.0])
    draws = Draws(Step(0, 0, 1, 5), INPUTS, "x", torch.from_numpy(POSITIONS))
    shares = crop_boxes(draws, config, *size) * torch.tensor([*size, *size])
    for found, right in zip(boxes(config, *size), shares.tolist(), strict=True):
        assert found is not None
        assert np.abs(np.array(found) - right).max() <= 1.5
        assert found.top >= 0 and found.top + found.height <= size[0] and found.left + found.width <= size[1]


def test_a_position_has_its_box_whatever_batch_it_comes_in() -> None:
    config = AugmentConfig(crop=[0.1, 1.0])
    assert boxes(config, 90, 70)[40:50] == boxes(config, 90, 70, POSITIONS[40:50])


def test_where_one_operation_is_chosen_the_others_stay_whole() -> None:
    config = AugmentConfig(crop=[0.1, 0.5], flip=1, choose=Choose.one)
    found = boxes(config, 90, 70)
    coins = Draws(Step(0, 0, 1, 5), INPUTS, "x", torch.from_numpy(POSITIONS)).coins(config)["crop"].tolist()
    assert [box is not None for box in found] == coins and 50 < sum(coins) < 150


def test_tiny_pictures_keep_a_pixel() -> None:
    for box in boxes(AugmentConfig(crop=[0.01, 0.02]), 1, 3):
        assert box is not None and box.height == 1 and box.width >= 1
