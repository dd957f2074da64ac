"""The sigmoid loss through its kernel: the dense formula in float64, and with hard negatives what torch gives."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from mmpretrain.config.objective import Fused, HardNegatives, ObjectiveConfig
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from mmpretrain.losses.targets import Pair
from tests.losses.test_sigmoid import ALONE, Case, compare, one_rank


@pytest.mark.parametrize(("masks", "copies"), [(False, False), (True, True)])
def test_the_kernel_equals_the_dense_formula(kernels: Counter[str], masks: bool, copies: bool) -> None:
    case = Case.random(3, masks, copies, size=20)
    compare(case, [one_rank(case, ObjectiveConfig(tile=13))])
    assert kernels["sigmoid"] == 8


@pytest.mark.parametrize("whose", list(HardNegatives))
def test_hard_negatives_through_the_kernel_are_those_of_torch(kernels: Counter[str], whose: HardNegatives) -> None:
    found = [with_negatives(ObjectiveConfig(tile=13, fused=fused, hard_negatives=whose)) for fused in Fused]
    for ours, theirs in zip(found[0], found[2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert kernels["sigmoid"] == 2 * 8


def with_negatives(settings: ObjectiveConfig) -> list[Tensor]:
    """Loss, mean rank and all gradients of one pair whose samples, some of them copies, have a hard negative each."""
    draw = torch.Generator().manual_seed(4)
    sides = [torch.randn(20, *more, 5, generator=draw, dtype=torch.float64).requires_grad_() for more in ((), (), (1,))]
    numbers = [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (7.0, -3.0)]
    there, ids = torch.rand(20, 1, generator=draw) > 0.3, torch.arange(20) % 15
    pair = Pair(sides[0], sides[1], key_negatives=sides[2], key_negatives_valid=there)
    (found,) = sigmoid_contrastive(
        [pair], scale=numbers[0], bias=numbers[1], world=ALONE, settings=settings, sample_ids=ids
    )
    return [found.loss, found.mean_rank, *torch.autograd.grad(found.loss, [*sides, *numbers])]


def test_a_tiny_loss_keeps_its_digits(kernels: Counter[str]) -> None:
    """log(1 + x) of x far below a float32's last digit of 1."""
    rows = torch.eye(20)
    losses = [
        sigmoid_contrastive([Pair(rows, rows)], scale=60.0, bias=-30.0, world=ALONE, settings=settings)[0].loss
        for settings in (ObjectiveConfig(), ObjectiveConfig(fused=Fused.never))
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)
    assert 0 < losses[0] < 1e-10
