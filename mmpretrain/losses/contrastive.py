"""InfoNCE between pairs of embeddings, with negatives from all ranks: one function for all contrastive objectives.

For a pair of query rows q and key rows k of unit length, the whole batch's N rows, s = 1 / temperature and a target
matrix P [N, N] (losses/targets.py):

    S = s q k^T
    loss = 1/2 [ - 1/N sum_ij P_ij log softmax_j(S_i.)_j  -  1/N sum_ij P_ij log softmax_i(S_.j)_i ]

S is made once for both directions, tile by tile, from this rank's b rows and the keys of all ranks; sums over its
columns are added up over the ranks. The backward pass makes the tiles again, or keeps them while memory allows. No
rank ever holds more of S than a tile and what it keeps. Cost and memory: docs/contrastive.md.

One way (``Pair.one_way``): only the first sum, over the query rows, without the factor 1/2.

Duplicates: with ``sample_ids``, a key that is another copy of a sample which the query row contains is left out of
that row (and likewise in columns). A target is never left out.

Hard negatives (``Pair.key_negatives``) are further columns of S that only rows sum over; a likely false negative
(``objective.false_negative_margin``) is left out of the sums of the row, or of the column, whose own pair it exceeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.objective import MIB, ObjectiveConfig
from mmpretrain.distributed.first_order import first_order
from mmpretrain.distributed.world import World
from mmpretrain.losses.agreement import agree
from mmpretrain.losses.similarity import negatives_from
from mmpretrain.losses.targets import Diagonal, Labels, Mixup, Pair, PairLoss, Soft
from mmpretrain.losses.tiled.backward import BackwardSweep
from mmpretrain.losses.tiled.forward import ForwardSweep, statistics
from mmpretrain.losses.tiled.preparation import Preparation
from mmpretrain.losses.tiled.sweep import Setup
from mmpretrain.losses.tiled.tile import SAFE_BOUND

__all__ = ["Diagonal", "Labels", "Mixup", "Pair", "PairLoss", "Soft", "contrastive"]


def contrastive(
    pairs: Sequence[Pair],
    *,
    scale: Tensor | float,
    world: World,
    settings: ObjectiveConfig | None = None,
    sample_ids: Tensor | None = None,
    metrics: bool = True,
) -> list[PairLoss]:
    """The loss of every pair, as in the module's docstring, in float32 at least; one trip for all of them.

    scale: 1 / temperature: a number, a tensor of one element, or one per query row ([b, 1], or [b] with b > 1); may
    need a gradient. settings: where negatives come from, and memory. sample_ids: int64 [b], equal for copies of one
    sample. metrics: without, accuracy and mean rank are nan. All ranks must give the same pairs with the same options
    and masks, and want gradients of the same sides; the gradient that flows into the losses must be the same on all.
    Raises ValueError, on all ranks, when a pair does not fit together, when the ranks hold different numbers of rows or
    none (see :func:`agree`), and when the scale is not in (0, 620].
    """
    if not pairs:
        raise ValueError("a contrastive loss needs at least one pair of embeddings")
    settings = settings or ObjectiveConfig()
    _agree(pairs, negatives_from(world, settings.negatives))
    with torch.autocast(pairs[0].query.device.type, enabled=False):
        preparation = Preparation(pairs, scale, world, settings, sample_ids)
        setup, sides = preparation.setup(metrics), preparation.sides
        losses, accuracies, ranks, left_out = _Contrast.apply(setup, preparation.counted, *sides)
    if not metrics:
        accuracies, ranks = (torch.full_like(values, torch.nan) for values in (accuracies, ranks))
    shares = left_out if metrics and setup.margins else [None] * len(losses)
    return [PairLoss(*parts) for parts in zip(losses, accuracies, ranks, shares, strict=True)]


def _agree(pairs: Sequence[Pair], world: World) -> None:
    def check() -> None:
        for pair in pairs:
            pair.check(len(pairs[0].query))

    agree(len(pairs[0].query), pairs[0].query.device, check, world)


class _Contrast(torch.autograd.Function):
    """sides, [b, d] each -> losses, accuracies, mean ranks and shares of what is left out, [pairs] each."""

    @staticmethod
    def forward(ctx: Any, setup: Setup, counted: Tensor, *sides: Tensor) -> tuple[Tensor, ...]:
        """counted: [pairs], samples per rank, on average, that count in the mean."""
        needed = ctx.needs_input_grad[2:]
        budget = setup.settings.keep_mb * MIB if setup.backward and any(needed) else None
        sweep = ForwardSweep(setup, sides, sides[0].dtype, budget)
        directions = sweep.run()
        lost = None
        if any(isinstance(most, Tensor) or most > SAFE_BOUND[sweep.dtype] for t in setup.terms for most in t.bounds):
            lost = sweep.underflowed(directions)
        if lost is not None and not setup.world.ahead and setup.world.max_flag(bool(lost)):
            sweep = ForwardSweep(setup, sides, torch.float64, budget)
            directions = sweep.run()
        share = torch.where(counted > 0, 0.5 / counted.clamp(min=1e-30), 0)
        if lost is not None and setup.world.ahead:
            share = share.masked_fill(lost, torch.nan)  # seen by the caller, who then lets us look
        losses = torch.stack([rows.loss.sum() + columns.loss.sum() for rows, columns in directions])
        ctx.setup, ctx.gathered = setup, sweep.features is not None
        held = (sweep.kept, sweep.bits, sweep.own_terms)
        ctx.names = [list(tensors) for tensors in held]
        ctx.save_for_backward(
            share,
            *statistics(setup, directions),
            *([sweep.features] if sweep.features is not None else []),
            *sides,
            *(tensor for tensors in held for tensor in tensors.values()),
        )
        accuracies, ranks = sweep.metrics(directions)
        outputs = [(values * share).to(sides[0].dtype) for values in (losses, accuracies, ranks)]
        outputs.append(sweep.share_left_out() if setup.metrics and setup.margins else torch.zeros_like(outputs[0]))
        ctx.mark_non_differentiable(*outputs[1:])
        return tuple(outputs)

    @staticmethod
    @first_order
    def backward(ctx: Any, gradients: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the sides that need one."""
        share, traveling, counterparts, *rest = ctx.saved_tensors
        features = rest.pop(0) if ctx.gathered else None
        needed = ctx.needs_input_grad[2:]
        sides, tensors = rest[: len(needed)], iter(rest[len(needed) :])
        kept, bits, own_terms = ({name: next(tensors) for name in names} for names in ctx.names)
        with torch.autocast(share.device.type, enabled=False):
            sweep = BackwardSweep(ctx.setup, sides, traveling, counterparts, gradients * share, needed)
            return None, None, *sweep.run(features, kept, bits, own_terms)
