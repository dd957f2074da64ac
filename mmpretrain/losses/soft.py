"""Contrastive loss towards soft targets: what resembles a sample in one modality should do so in the other.

For an ordered pair of unit-length rows a and b, the whole batch's N rows and s = 1 / temperature (SoftCLIP):

    T = rowsoftmax(s b b^T),  S = s a b^T
    loss = 1/2 [ - 1/N sum_ij T_ij log softmax_j(S_i.)_j  -  1/N sum_ij T_ij log softmax_j((S^T)_i.)_j ]

Both halves use the same T; the gradient flows through it too unless the targets are detached. A rank
computes its b rows of T, S and S^T against the gathered other side.

Duplicates: with ``sample_ids``, other copies of a row's own sample are left out of its softmaxes, targets
included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmpretrain.distributed.world import World
from mmpretrain.losses.schema import Negatives
from mmpretrain.losses.similarity import (
    PairLoss,
    Rows,
    best_match_share,
    check_pairs,
    cross_entropy,
    gather_normalised,
    negatives_from,
    own_rows,
)


def soft_contrastive(
    pairs: Sequence[tuple[Tensor, Tensor]],
    *,
    scale: Tensor | float,
    world: World,
    negatives: Negatives = Negatives.gather,
    sample_ids: Tensor | None = None,
    detach_targets: bool = False,
) -> list[PairLoss]:
    """The loss of every ordered pair (a, b) of embeddings [b, d], not normalised, in float32 at least.

    scale: 1 / temperature. sample_ids: int64 [b], equal for copies of one sample. detach_targets: no gradient
    through T. Raises ValueError when the shapes of a pair differ.
    """
    check_pairs(pairs)
    everyone = negatives_from(world, negatives)
    first = pairs[0][0]
    with torch.autocast(first.device.type, enabled=False):
        rows = gather_normalised((side for pair in pairs for side in pair), everyone)
        own = own_rows(len(first), everyone, first.device)
        itself = own[:, None] == torch.arange(everyone.size * len(first), device=first.device)
        copies = None
        if sample_ids is not None:
            copies = (sample_ids[:, None] == everyone.all_gather_rows(sample_ids)) & ~itself
        return [_pair_loss(rows[id(a)], rows[id(b)], scale, itself, copies, detach_targets) for a, b in pairs]


def _pair_loss(
    a: Rows, b: Rows, scale: Tensor | float, itself: Tensor, copies: Tensor | None, detach_targets: bool
) -> PairLoss:
    if isinstance(scale, Tensor):
        scale = scale.to(a.local.dtype)
    resemblance = scale * (b.local @ b.everyone.T)
    if copies is not None:
        resemblance = resemblance.masked_fill(copies, -torch.inf)
    targets = resemblance.softmax(dim=1)
    if detach_targets:
        targets = targets.detach()
    logits = (scale * (a.local @ b.everyone.T), scale * (b.local @ a.everyone.T))
    forth, back = (cross_entropy(side, targets, copies) for side in logits)
    hits = [best_match_share(side, itself, copies) for side in logits]
    return PairLoss((forth + back) / 2, (hits[0] + hits[1]) / 2)
