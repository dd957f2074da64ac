"""What a device counts is what numpy counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmpretrain.distributed.world import World
from mmpretrain.evaluation.device_places import DevicePlaces
from mmpretrain.evaluation.items import Relation
from mmpretrain.evaluation.retrieval import AHEAD, CLASS, RIGHT, TIED, _places
from mmpretrain.evaluation.similarity import unit_rows


@pytest.mark.parametrize("labeled", [False, True])
def test_places_of_a_device_are_those_of_numpy(labeled: bool) -> None:
    random = np.random.default_rng(0)
    items = unit_rows(random.standard_normal((40, 6)).astype(np.float32))
    items[7] = items[3]  # a tie
    queries = unit_rows(items[random.integers(0, 40, 60)] + 0.3 * random.standard_normal((60, 6)).astype(np.float32))
    counts = random.integers(1, 4, 60)
    starts = np.concatenate([[0], np.cumsum(counts)])
    right = Relation(starts, random.integers(0, 40, starts[-1]), 40)
    classes = (random.integers(0, 3, 60), random.integers(0, 3, 40)) if labeled else None
    expected = _places(queries, items, right, classes, World.single())
    there = DevicePlaces(queries, items, right, classes, torch.device("cpu"))
    chunks = [there.outcomes(slice(start, min(start + 16, 60))) for start in range(0, 60, 16)]
    names = [AHEAD, TIED, RIGHT, *([CLASS] if labeled else [])]
    for name, parts in zip(names, zip(*chunks, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), expected[name])
