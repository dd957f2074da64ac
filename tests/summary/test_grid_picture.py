"""The picture of a retrieval grid for trackers."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from mmpretrain.summary.grid_file import Grid, GridPair
from mmpretrain.summary.grid_picture import grid_picture


def test_pairs_of_modalities_stand_side_by_side() -> None:
    shown: dict = {("text", 0): "a caption", ("image", 0): np.zeros((4, 4, 3), np.uint8)}
    pair = GridPair("text", "image", np.array([0]), np.array([[0]]), np.array([[2]]))
    one = Image.open(BytesIO(grid_picture(Grid([pair], shown))))
    two = Image.open(BytesIO(grid_picture(Grid([pair, pair], shown))))
    assert one.format == "PNG" and two.width == 2 * one.width and two.height == one.height
