"""The constants that keep exponentials inside their type."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mmpretrain.config.objective import ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive
from mmpretrain.losses.tiled.forward import Direction, ForwardSweep
from mmpretrain.losses.tiled.tile import FLOOR, HEADROOM, SAFE_BOUND

ROUNDED = (1 + 2**-9) ** 2  # what rounding both rows can do to a similarity


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_up_to_the_safe_bound_no_sum_is_below_its_floor(dtype: torch.dtype) -> None:
    """The smallest sum is that of a row whose only term is its counterpart, at the far end of the range."""
    shift = max(0.0, SAFE_BOUND[dtype] - HEADROOM[dtype])
    assert math.exp(-ROUNDED * SAFE_BOUND[dtype] - shift) >= FLOOR[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_underflow_takes_from_a_sum_at_the_floor_is_rounding(dtype: torch.dtype) -> None:
    """10^6 terms, each just below the smallest number that the type holds with all its digits."""
    assert 10**6 * torch.finfo(dtype).tiny < 4 * torch.finfo(dtype).eps * FLOOR[dtype]


@pytest.mark.parametrize("products", list(Products))
def test_opposite_rows_at_the_safe_bound_are_above_the_floor(
    monkeypatch: pytest.MonkeyPatch, products: Products
) -> None:
    seen: list[float] = []
    made = ForwardSweep._directions

    def watch(*arguments: Any) -> tuple[Direction, Direction]:
        found = made(*arguments)
        seen.extend(way.lowest.item() for way in found)
        return found

    monkeypatch.setattr(ForwardSweep, "_directions", watch)
    rows = torch.randn(1, 48, generator=torch.Generator().manual_seed(0))
    scale, settings = SAFE_BOUND[torch.float32], ObjectiveConfig(products=products)
    (result,) = contrastive([Pair(rows, -rows)], scale=scale, world=World.single(), settings=settings)
    assert result.loss == 0 and len(seen) == 2 and min(seen) >= FLOOR[torch.float32]
