"""Ways to compute the symmetric contrastive loss of one pair and its gradients: ours, others', and bare products.

Shape legend: b rows of a rank, W ranks, B = W b rows of the whole batch, d the width; float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Step
from benchmarks.others import open_clip_losses
from mmpretrain.config.objective import Negatives, ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive
from mmpretrain.losses.sigmoid import sigmoid_contrastive

EVERYTHING_MB = 10**6
TILE = ObjectiveConfig().tile


@dataclass
class Inputs:
    """What a step begins with: embeddings [b, d] of a random batch, each beside its noisy counterpart."""

    query: Tensor
    key: Tensor
    logit_scale: Tensor
    bias: Tensor
    world: World
    open_clip: Path | None

    @classmethod
    def make(cls, batch: int, width: int, open_clip: Path | None) -> Inputs:
        """This rank's share of ``batch`` rows, by its number."""
        world = World.current()
        generator = torch.Generator().manual_seed(world.rank)
        shape = (batch // world.size, width)
        query = torch.randn(shape, generator=generator)
        # Cosines of counterparts are about 0.45: neither solved nor hopeless.
        key = query + 2 * torch.randn(shape, generator=generator)
        scale, bias = torch.tensor([-math.log(0.07)]), torch.tensor([-10.0])
        leaves = [tensor.requires_grad_() for tensor in (query, key, scale, bias)]
        return cls(leaves[0], leaves[1], leaves[2], leaves[3], world, open_clip)

    def gradients(self, loss: Tensor) -> float:
        """The backward pass of ``loss``; its value."""
        for leaf in (self.query, self.key, self.logit_scale, self.bias):
            leaf.grad = None
        loss.backward()
        return loss.item()


Build = Callable[[Inputs], Step]


def ours(settings: ObjectiveConfig, metrics: bool = False) -> Build:
    """contrastive()."""

    def build(inputs: Inputs) -> Step:
        def step() -> float:
            pairs, scale = [Pair(inputs.query, inputs.key)], inputs.logit_scale.exp()
            outcome = contrastive(pairs, scale=scale, world=inputs.world, settings=settings, metrics=metrics)
            return inputs.gradients(outcome[0].loss)

        return step

    return build


def our_sigmoid(inputs: Inputs) -> Step:
    """sigmoid_contrastive()."""
    options: dict[str, Any] = {"world": inputs.world, "settings": _recompute(), "metrics": False}

    def step() -> float:
        pairs, scale = [Pair(inputs.query, inputs.key)], inputs.logit_scale.exp()
        return inputs.gradients(sigmoid_contrastive(pairs, scale=scale, bias=inputs.bias, **options)[0].loss)

    return step


def open_clip(local_loss: bool) -> Build:
    """open_clip's ClipLoss with exact gradients; local_loss: own rows only, not the whole matrix on every rank."""

    def build(inputs: Inputs) -> Step:
        assert inputs.open_clip is not None
        rank = {"rank": inputs.world.rank, "world_size": inputs.world.size}
        loss = open_clip_losses(inputs.open_clip).ClipLoss(
            local_loss=local_loss, gather_with_grad=True, cache_labels=True, **rank
        )
        return lambda: inputs.gradients(loss(*_unit(inputs), inputs.logit_scale.exp()))

    return build


def open_clip_sigmoid(inputs: Inputs) -> Step:
    """open_clip's SigLipLoss, with its default way to exchange features."""
    assert inputs.open_clip is not None
    loss = open_clip_losses(inputs.open_clip).SigLipLoss(rank=inputs.world.rank, world_size=inputs.world.size)
    return lambda: inputs.gradients(loss(*_unit(inputs), inputs.logit_scale.exp(), inputs.bias))


def products(forward: int, tile: int | None) -> Build:
    """Nothing but matrix products: ``forward`` times S = q k^T, then S k and S^T q; what no form can go below.

    Outputs are allocated beforehand. tile: rows and columns of S at a time; None: all of it.
    """

    def build(inputs: Inputs) -> Step:
        query, keys = inputs.query.detach(), inputs.key.detach().repeat(inputs.world.size, 1)
        size = tile or len(keys)
        rows, columns = query.split(size), keys.split(size)
        memory = torch.empty(len(rows[0]), len(columns[0]))
        row_sums, column_sums = torch.zeros_like(query).split(size), torch.zeros_like(keys).split(size)

        def step() -> float:
            for row, row_sum in zip(rows, row_sums, strict=True):
                for column, column_sum in zip(columns, column_sums, strict=True):
                    out = memory[: len(row), : len(column)]
                    for _ in range(forward):
                        torch.mm(row, column.T, out=out)
                    row_sum.addmm_(out, column)
                    column_sum.addmm_(out.T, row)
            return 0.0

        return step

    return build


def _unit(inputs: Inputs) -> tuple[Tensor, Tensor]:
    return F.normalize(inputs.query), F.normalize(inputs.key)


def _recompute() -> ObjectiveConfig:
    return ObjectiveConfig(negatives=Negatives.gather, keep_mb=0)


@dataclass(frozen=True)
class Form:
    """matrices: float32 matrices [b, B] that a rank holds at its peak, for the prediction below; by (W).

    family: forms of one family must agree in the loss. exact: False where rounding was chosen.
    """

    build: Build
    family: str
    matrices: Callable[[int], float]
    exact: bool = True

    def predicted_bytes(self, batch: int, size: int, width: int) -> float:
        """On the machine, by all ranks: W (matrices 4 b B + 6 4 B d).

        open_clip's form holds logits and their log-softmax for both directions, or all of the B x B matrix on each
        rank (b becomes B) without local loss; SigLIP's logits, signs and two intermediates. The features stand for
        themselves, their gathered copies and all gradients.
        """
        return size * 4 * (self.matrices(size) * batch / size * batch + 6 * batch * width)


OURS, KEPT, CLIP = "ours, recompute", "ours, kept", "open_clip, local loss"
OUR_SIGMOID, SIGLIP = "ours, sigmoid", "open_clip, SigLIP"
LIMITS = {4: ["4 products, tiles", "4 products, whole"], 3: ["3 products, tiles", "3 products, whole"]}

FORMS: dict[str, Form] = {
    OURS: Form(ours(_recompute()), "softmax", lambda size: 0),
    KEPT: Form(ours(ObjectiveConfig(negatives=Negatives.gather, keep_mb=EVERYTHING_MB)), "softmax", lambda size: 1),
    "ours, ring": Form(ours(ObjectiveConfig(negatives=Negatives.ring, keep_mb=0)), "softmax", lambda size: 0),
    "ours, bfloat16": Form(
        ours(ObjectiveConfig(negatives=Negatives.gather, keep_mb=0, products=Products.bfloat16)),
        "softmax",
        lambda size: 0,
        exact=False,
    ),
    "ours, metrics": Form(ours(_recompute(), metrics=True), "softmax", lambda size: 0),
    CLIP: Form(open_clip(local_loss=True), "softmax", lambda size: 4),
    "open_clip, whole loss": Form(open_clip(local_loss=False), "softmax", lambda size: 4 * size),
    LIMITS[4][0]: Form(products(2, TILE), "products", lambda size: 0),
    LIMITS[4][1]: Form(products(2, None), "products", lambda size: 1),
    LIMITS[3][0]: Form(products(1, TILE), "products", lambda size: 0),
    LIMITS[3][1]: Form(products(1, None), "products", lambda size: 1),
    OUR_SIGMOID: Form(our_sigmoid, "sigmoid", lambda size: 0),
    SIGLIP: Form(open_clip_sigmoid, "sigmoid", lambda size: 4),
}
