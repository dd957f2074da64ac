"""In every precision of products the kernels give what torch's operations give, up to rounding."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from mmpretrain.config.objective import Fused, ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Diagonal, Labels, Mixup, Pair, Soft, contrastive
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from mmpretrain.losses.targets import Targets

ROWS, WIDTH = 30, 24  # not multiples of the blocks
# Where the gradient of a tile is rounded to bfloat16, another last digit of float32 may round it the other way.
CLOSE = {Products.float32: 2e-6, Products.bfloat16: 5e-3}


def targets_of(kind: str, draw: torch.Generator) -> Targets:
    if kind == "mixup":
        lam = torch.rand(ROWS, generator=draw)
        return Mixup(lam, 1 - lam, torch.randperm(ROWS, generator=draw))
    if kind == "soft":
        return Soft(torch.randn(ROWS, 7, generator=draw), scale=3.0)
    return Labels(torch.arange(ROWS) % 5) if kind == "labels" else Diagonal()


def outcome(kind: str, products: Products, fused: Fused, keep_mb: int = 0, scale: float = 20.0) -> list[Tensor]:
    """Loss, accuracy, mean rank, and the gradients of both sides and of the temperature."""
    draw = torch.Generator().manual_seed(5)
    query, key = (torch.randn(ROWS, WIDTH, generator=draw).requires_grad_() for _ in range(2))
    factor = torch.tensor([scale], requires_grad=True)
    settings = ObjectiveConfig(tile=18, keep_mb=keep_mb, products=products, fused=fused)
    if kind == "sigmoid":
        pair = [Pair(query, key)]
        (found,) = sigmoid_contrastive(pair, scale=factor, bias=-10.0, world=World.single(), settings=settings)
    else:
        pair = [Pair(query, key, targets_of(kind, draw), same_side=kind == "same-side")]
        (found,) = contrastive(pair, scale=factor, world=World.single(), settings=settings)
    values = [found.loss, found.accuracy, found.mean_rank]
    return values + list(torch.autograd.grad(found.loss, [query, key, factor]))


KINDS = ["diagonal", "mixup", "soft", "labels", "same-side", "sigmoid"]
CASES = [(kind, products, Fused.auto) for kind in KINDS for products in Products]
CASES += [(kind, Products.bfloat16, Fused.entries) for kind in ("labels", "sigmoid")]


@pytest.mark.parametrize(("kind", "products", "fused"), CASES)
def test_kernels_give_what_torch_gives(kernels: Counter[str], kind: str, products: Products, fused: Fused) -> None:
    ours, theirs = (outcome(kind, products, choice) for choice in (fused, Fused.never))
    assert sum(kernels.values()) >= 4
    torch.testing.assert_close(ours[:3], theirs[:3], rtol=2e-6, atol=0)
    for found, expected in zip(ours[3:], theirs[3:], strict=True):
        assert (found - expected).abs().max() <= CLOSE[products] * expected.abs().max()


@pytest.mark.parametrize("products", list(Products))
def test_kept_tiles_give_the_gradients_of_tiles_made_again(kernels: Counter[str], products: Products) -> None:
    again, kept = (outcome("labels", products, Fused.auto, keep_mb) for keep_mb in (0, 64))
    for ours, theirs in zip(kept, again, strict=True):
        assert (ours - theirs).abs().max() <= CLOSE[products] * theirs.abs().max()


def test_a_large_scale_is_shifted_as_without_kernels(kernels: Counter[str]) -> None:
    ours, theirs = (outcome("diagonal", Products.float32, choice, scale=90.0) for choice in (Fused.auto, Fused.never))
    for found, expected in zip(ours, theirs, strict=True):
        assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_what_is_no_number_is_seen(kernels: Counter[str]) -> None:
    query = torch.randn(ROWS, WIDTH)
    query[3, 3] = torch.nan
    (found,) = contrastive([Pair(query, torch.randn(ROWS, WIDTH))], scale=5.0, world=World.single())
    assert found.loss.isnan() and kernels["forward"] == 1
