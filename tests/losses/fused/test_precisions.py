"""In every precision of products the kernels give what torch's operations give, up to rounding."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from mmpretrain.config.objective import Fused, ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive
from tests.losses.fused.outcomes import CLOSE, KINDS, apart, outcome

CASES = [(kind, products, Fused.auto) for kind in KINDS for products in Products]
CASES += [(kind, Products.bfloat16, Fused.entries) for kind in ("labels", "sigmoid")]


def settings(products: Products, fused: Fused, keep_mb: int = 0) -> ObjectiveConfig:
    """With tiles that end neither where blocks nor where the 30 rows end."""
    return ObjectiveConfig(tile=18, keep_mb=keep_mb, products=products, fused=fused)


@pytest.mark.parametrize(("kind", "products", "fused"), CASES)
def test_kernels_give_what_torch_gives(kernels: Counter[str], kind: str, products: Products, fused: Fused) -> None:
    ours, theirs = (outcome(kind, settings(products, choice)) for choice in (fused, Fused.never))
    assert sum(kernels.values()) >= 4
    assert max(apart(ours[:3], theirs[:3])) <= 2e-6
    assert max(apart(ours[3:], theirs[3:])) <= CLOSE[products]


@pytest.mark.parametrize("products", list(Products))
def test_kept_tiles_give_the_gradients_of_tiles_made_again(kernels: Counter[str], products: Products) -> None:
    again, kept = (outcome("labels", settings(products, Fused.auto, keep_mb)) for keep_mb in (0, 64))
    assert max(apart(kept, again)) <= CLOSE[products]


def test_a_large_scale_is_shifted_as_without_kernels(kernels: Counter[str]) -> None:
    found = [outcome("diagonal", settings(Products.float32, fused), scale=90.0) for fused in (Fused.auto, Fused.never)]
    assert kernels["forward"] >= 4 and max(apart(*found)) <= 2e-5


def test_what_is_no_number_is_seen(kernels: Counter[str]) -> None:
    query = torch.randn(20, 8)
    query[3, 3] = torch.nan
    (found,) = contrastive([Pair(query, torch.randn(20, 8))], scale=5.0, world=World.single())
    assert found.loss.isnan() and kernels["forward"] == 1
