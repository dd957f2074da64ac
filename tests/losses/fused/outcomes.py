"""One loss of a kind of targets, with its gradients: by kernels or by torch's operations, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from mmpretrain.config.objective import ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Diagonal, Labels, Mixup, Pair, Soft, contrastive
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from mmpretrain.losses.targets import Targets

KINDS = ["diagonal", "mixup", "soft", "labels", "same-side", "sigmoid"]
# Where the gradient of a tile is rounded to bfloat16, another last digit of float32 may round it the other way.
CLOSE = {Products.float32: 2e-6, Products.bfloat16: 5e-3}


def targets_of(kind: str, rows: int, draw: torch.Generator, device: str) -> Targets:
    """Of this kind, for so many rows."""
    if kind == "mixup":
        lam, partner = torch.rand(rows, generator=draw), torch.randperm(rows, generator=draw)
        return Mixup(lam.to(device), 1 - lam.to(device), partner.to(device))
    if kind == "soft":
        return Soft(torch.randn(rows, 7, generator=draw).to(device), scale=3.0)
    return Labels(torch.arange(rows, device=device) % 5) if kind == "labels" else Diagonal()


def outcome(
    kind: str,
    settings: ObjectiveConfig,
    scale: float = 20.0,
    shape: tuple[int, int] = (30, 24),
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """Loss, accuracy, mean rank, and the gradients of both sides and of the temperature. shape: rows and width. dtype:
    of the embeddings, which are the same numbers in any."""
    draw = torch.Generator().manual_seed(5)
    query, key = (torch.randn(shape, generator=draw).to(device, dtype).requires_grad_() for _ in range(2))
    factor, alone = torch.tensor([scale], device=device, dtype=dtype, requires_grad=True), World.single()
    if kind == "sigmoid":
        (found,) = sigmoid_contrastive([Pair(query, key)], scale=factor, bias=-10.0, world=alone, settings=settings)
    else:
        pair = Pair(query, key, targets_of(kind, shape[0], draw, device), same_side=kind == "same-side")
        (found,) = contrastive([pair], scale=factor, world=alone, settings=settings)
    values = [found.loss, found.accuracy, found.mean_rank]
    return values + list(torch.autograd.grad(found.loss, [query, key, factor]))


def apart(ours: list[Tensor], theirs: list[Tensor]) -> list[float]:
    """Of each tensor, the largest difference as a share of the largest entry."""
    return [((one - other).abs().max() / other.abs().max()).item() for one, other in zip(ours, theirs, strict=True)]
