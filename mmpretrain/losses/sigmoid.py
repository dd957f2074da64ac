"""The sigmoid loss of SigLIP (Zhai et al. 2023, arXiv 2303.15343, equation 1), with negatives from all ranks.

For query rows q and key rows k of unit length, n samples in the whole batch, z_ii = 1 and z_ij = -1 otherwise:

    loss = - 1/n sum_ij log sigmoid(z_ij (scale q_i . k_j + bias))

Missing modalities: entries with an invalid row or column do not exist; n counts samples whose both sides are valid.
Duplicates: with ``sample_ids``, other copies of a sample are neither its positives nor its negatives.
Hard negatives (``Pair.key_negatives``) are further keys with z = -1 in every row that sees them.

Loss and gradients come from one sweep (losses/sigmoid_sweep.py). What is kept for the backward pass are the gradients
themselves, [b, d] per side of a pair, whatever the number of ranks and the tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from mmpretrain.config.objective import HardNegatives, ObjectiveConfig
from mmpretrain.distributed.first_order import first_order
from mmpretrain.distributed.world import World
from mmpretrain.losses.agreement import agree
from mmpretrain.losses.sigmoid_sweep import SigmoidSetup, SigmoidSweep
from mmpretrain.losses.similarity import negatives_from, unit_rows
from mmpretrain.losses.targets import Diagonal, Pair, PairLoss


def sigmoid_contrastive(
    pairs: Sequence[Pair],
    *,
    scale: Tensor | float,
    bias: Tensor | float,
    world: World,
    settings: ObjectiveConfig | None = None,
    sample_ids: Tensor | None = None,
    metrics: bool = True,
) -> list[PairLoss]:
    """The loss of every pair, as in the module's docstring, in float32 at least; one trip for all of them.

    scale, bias: numbers or tensors of one element, which may need a gradient. sample_ids: int64 [b], equal for copies
    of one sample. Accuracy and mean rank are those of query rows among keys; without ``metrics`` they are nan. The
    gradient that flows into a loss must be the same on all ranks. Raises ValueError, on all ranks, when the sides of a
    pair do not fit together, for targets other than Diagonal, when the ranks hold different numbers of rows or none,
    for a scale or bias of more than one element or not finite, and for a scale that is not above 0.
    """
    if not pairs:
        raise ValueError("a sigmoid loss needs at least one pair of embeddings")
    settings = settings or ObjectiveConfig()
    world = negatives_from(world, settings.negatives)
    _agree(pairs, scale, bias, world)
    if settings.false_negative_margin is not None:
        raise ValueError("the sigmoid loss leaves nothing out: set objective.false_negative_margin to null")
    everything, parents = _with_negatives(pairs)
    with torch.autocast(pairs[0].query.device.type, enabled=False):
        queries, keys, places = _units(everything)
        numbers = [_number(value, queries[0]) for value in (scale, bias)]
        own, valid = settings.hard_negatives is HardNegatives.own, [_valid(pair) for pair in everything]
        setup = SigmoidSetup(world, settings, metrics, sample_ids, places, valid, parents, own)
        losses, accuracies, ranks = _Sigmoid.apply(setup, torch.is_grad_enabled(), *numbers, *queries, *keys)
    totals = list(losses[: len(pairs)])
    for loss, parent in zip(losses, parents, strict=True):
        if parent is not None:
            totals[parent] = totals[parent] + loss
    return [PairLoss(*parts) for parts in zip(totals, accuracies[: len(pairs)], ranks[: len(pairs)], strict=True)]


def _agree(pairs: Sequence[Pair], scale: Tensor | float, bias: Tensor | float, world: World) -> None:
    def check() -> None:
        for pair in pairs:
            _check(pair, len(pairs[0].query))
        # A look at a number on a GPU waits for it; what a run's own temperature cannot become is not looked for there.
        for name, value in (("scale", scale), ("bias", bias)):
            if not ((world.ahead or world.even) and isinstance(value, Tensor) and value.is_cuda):
                _check_number(name, value)

    agree(len(pairs[0].query), pairs[0].query.device, check, world)


def _check_number(name: str, value: Tensor | float) -> None:
    found = torch.as_tensor(value)
    if found.numel() != 1:
        raise ValueError(f"the sigmoid loss takes one {name} for all rows, not a tensor of shape {list(found.shape)}")
    if not math.isfinite(found.item()):
        raise ValueError(f"the {name} is {found.item():g}: a finite number is needed")
    if name == "scale" and not found.item() > 0:
        raise ValueError(f"the scale (1 / temperature) is {found.item():g}: it must be above 0")


def _check(pair: Pair, rows: int) -> None:
    pair.check(rows)
    if not isinstance(pair.targets, Diagonal) or pair.same_side or pair.one_way:
        raise ValueError("the sigmoid loss compares query rows with key rows, and only a row's own key is its target")


def _with_negatives(pairs: Sequence[Pair]) -> tuple[list[Pair], list[int | None]]:
    """The pairs, then one for each hard negative that their samples have, and the places of those that they are of."""
    everything, parents = list(pairs), cast(list[int | None], [None] * len(pairs))
    parts: dict[tuple[int, int], Tensor] = {}  # what several pairs share stays one tensor

    def part(of: Tensor, place: int) -> Tensor:
        return parts.setdefault((id(of), place), of[:, place])

    for number, pair in enumerate(pairs):
        for rows, rows_valid, negatives, there in (
            (pair.query, pair.query_valid, pair.key_negatives, pair.key_negatives_valid),
            (pair.key, pair.key_valid, pair.query_negatives, pair.query_negatives_valid),
        ):
            for place in range(0 if negatives is None else negatives.shape[1]):
                assert negatives is not None
                valid = None if there is None else part(there, place)
                everything.append(Pair(rows, part(negatives, place), query_valid=rows_valid, key_valid=valid))
                parents.append(number)
    return everything, parents


def _number(value: Tensor | float, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(like.device, like.dtype).reshape(())
    return torch.full((), value, dtype=like.dtype, device=like.device)


def _valid(pair: Pair) -> Tensor | None:
    if pair.query_valid is None and pair.key_valid is None:
        return None
    every = torch.ones(len(pair.query), dtype=torch.bool, device=pair.query.device)
    return torch.stack([every if mask is None else mask for mask in (pair.query_valid, pair.key_valid)], dim=1)


def _units(pairs: Sequence[Pair]) -> tuple[list[Tensor], list[Tensor], list[int]]:
    """Unit rows of queries and of keys, and each pair's place among the distinct keys; equal sides are one tensor."""
    types = [side.dtype for pair in pairs for side in (pair.query, pair.key)]
    widest = torch.float64 if torch.float64 in types else torch.float32
    made: dict[tuple[int, int], Tensor] = {}

    def unit(rows: Tensor, valid: Tensor | None) -> Tensor:
        name = (id(rows), id(valid))
        if name not in made:
            made[name] = unit_rows(rows.to(widest), valid)
        return made[name]

    queries = [unit(pair.query, pair.query_valid) for pair in pairs]
    keys = [unit(pair.key, pair.key_valid) for pair in pairs]
    distinct = list(dict.fromkeys(id(key) for key in keys))
    return queries, keys, [distinct.index(id(key)) for key in keys]


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, setup: SigmoidSetup, graded: bool, scale: Tensor, bias: Tensor, *sides: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """scale, bias: scalars. sides: [b, d] of all queries, then all keys. Three times [pairs]."""
        needed = [graded and need for need in ctx.needs_input_grad[2:]]
        sweep = SigmoidSweep(setup, scale, bias, sides, needed)
        found = sweep.run()
        shares = setup.shares(len(sides[0]), scale)
        ctx.needed = needed
        if any(needed):
            gradients = [found.by_scale, found.by_bias, *found.by_sides]
            ctx.save_for_backward(shares, *(g for g, need in zip(gradients, needed, strict=True) if need))
        outputs = [(values * shares).to(scale) for values in (found.losses, found.hits, found.ranks)]
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs[0], outputs[1], outputs[2]

    @staticmethod
    @first_order
    def backward(ctx: Any, flowing: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """What the sweep found for each pair, times what flows into that pair's loss."""
        shares, *saved = ctx.saved_tensors
        found, weights = iter(saved), (shares * flowing).to(flowing)
        totals = [(next(found) * weights).sum().to(flowing) if need else None for need in ctx.needed[:2]]
        by_pair = [*weights, *weights]
        sides = [next(found) * w if need else None for w, need in zip(by_pair, ctx.needed[2:], strict=True)]
        return None, None, *totals, *sides
