"""The compiled form of what is done to a tile equals the plain one."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor

from mmpretrain.config.objective import ObjectiveConfig
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]

OPPOSITE = 90.0


def loss_and_gradients(compiled: bool, device: str, scale: float, keep_mb: int) -> tuple[Tensor, ...]:
    """The loss of one pair, and the gradients of both sides and of the scale."""
    generator = torch.Generator().manual_seed(1)
    query, key = (torch.randn(37, 8, generator=generator).to(device) for _ in range(2))
    if scale == OPPOSITE:  # underflows in float32: float64 takes over
        query, key = 1 + query / 100, -1 - query / 100
    query, key = query.requires_grad_(), key.requires_grad_()
    factor = torch.tensor([scale], device=device, requires_grad=True)
    settings = ObjectiveConfig(tile=16, keep_mb=keep_mb, compile=compiled)
    (result,) = contrastive([Pair(query, key)], scale=factor, world=World.single(), settings=settings)
    return result.loss, *torch.autograd.grad(result.loss, (query, key, factor))


@pytest.mark.processes  # of a compiler
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_mb", [0, 1])
@pytest.mark.parametrize("scale", [1.0, 14.0, 100.0, OPPOSITE])
def test_compiled_equals_plain(device: str, scale: float, keep_mb: int) -> None:
    plain, compiled = (loss_and_gradients(choice, device, scale, keep_mb) for choice in (False, True))
    for ours, theirs in zip(compiled, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-6)
