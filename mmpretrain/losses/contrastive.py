"""InfoNCE between pairs of embeddings, with negatives from all ranks.

For a pair of query rows q and key rows k of unit length, the whole batch's N rows, s = 1 / temperature and a
target matrix P [N, N]:

    S = s q k^T
    loss = 1/2 [ - 1/N sum_ij P_ij log softmax_j(S_i.)_j  -  1/N sum_ij P_ij log softmax_i(S_.j)_i ]

A rank computes its b rows of the first sum and its b columns of the second, against the gathered other side:
two blocks of b x N. The mean over the ranks is the loss of one process on the whole batch, and so are the
averaged gradients.

Duplicates: with ``sample_ids``, a key that is another copy of a sample which the query row contains is left
out of that row (and likewise in columns). A positive target is never left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.distributed.world import World
from mmpretrain.losses.schema import Negatives
from mmpretrain.losses.similarity import (
    PairLoss,
    Rows,
    at_least_float32,
    best_match_share,
    check_pairs,
    cross_entropy,
    gather_normalised,
    negatives_from,
    own_rows,
)


@dataclass(frozen=True)
class Diagonal:
    """Row i of the query belongs to row i of the key: P is the identity."""


@dataclass(frozen=True)
class Mixup:
    """Query row i contains two samples: ``P_ii += own_i`` and ``P_i,partner(i) += other_i``.

    own, other: float [b], usually lam and 1 - lam. partner: int64 [b], row in the batch that the negatives
    come from: 0..b-1 for local negatives, numbers in the whole batch (rank * b + i) for gathered ones.
    """

    own: Tensor
    other: Tensor
    partner: Tensor


@dataclass(frozen=True)
class Pair:
    """query, key: [b, d], not normalised. targets: which keys belong to which query rows."""

    query: Tensor
    key: Tensor
    targets: Diagonal | Mixup = Diagonal()


def contrastive(
    pairs: Sequence[Pair],
    *,
    scale: Tensor | float,
    world: World,
    negatives: Negatives = Negatives.gather,
    sample_ids: Tensor | None = None,
) -> list[PairLoss]:
    """The loss of every pair, as in the module's docstring, in float32 at least.

    scale: 1 / temperature, a number or a tensor of one element that may need a gradient. sample_ids: int64
    [b], equal for copies of one sample. Raises ValueError when the shapes of a pair differ.
    """
    check_pairs((pair.query, pair.key) for pair in pairs)
    everyone = negatives_from(world, negatives)
    with torch.autocast(pairs[0].query.device.type, enabled=False):
        rows = gather_normalised((side for pair in pairs for side in (pair.query, pair.key)), everyone)
        targets = _gather_targets(pairs, everyone)
        ids = None if sample_ids is None else everyone.all_gather_rows(sample_ids)
        own = own_rows(len(pairs[0].query), everyone, pairs[0].query.device)
        return [
            _pair_loss(rows[id(pair.query)], rows[id(pair.key)], target, ids, scale, own)
            for pair, target in zip(pairs, targets, strict=True)
        ]


def _pair_loss(
    query: Rows, key: Rows, targets: Mixup, ids: Tensor | None, scale: Tensor | float, own: Tensor
) -> PairLoss:
    if isinstance(scale, Tensor):
        scale = scale.to(query.local.dtype)
    everyone = torch.arange(len(query.everyone), device=own.device)
    row_logits = scale * (query.local @ key.everyone.T)
    column_logits = scale * (key.local @ query.everyone.T)
    row_targets = target_block(targets, own, everyone)
    column_targets = target_block(targets, everyone, own).T
    row_copies = column_copies = None
    if ids is not None:
        row_copies = _copies(targets, ids, own, everyone) & (row_targets == 0)
        column_copies = _copies(targets, ids, everyone, own).T & (column_targets == 0)
    rows = cross_entropy(row_logits, row_targets, row_copies)
    columns = cross_entropy(column_logits, column_targets, column_copies)
    row_hits = best_match_share(row_logits, row_targets > 0, row_copies)
    column_hits = best_match_share(column_logits, column_targets > 0, column_copies)
    return PairLoss((rows + columns) / 2, (row_hits + column_hits) / 2)


def _gather_targets(pairs: Sequence[Pair], world: World) -> list[Mixup]:
    """The targets of the whole batch, [N] each, by two small collectives for all pairs together."""
    local = [_as_mixup(pair, world) for pair in pairs]
    weights = world.all_gather_rows(torch.stack([w for t in local for w in (t.own, t.other)], dim=1))
    partners = world.all_gather_rows(torch.stack([t.partner for t in local], dim=1))
    return [Mixup(weights[:, 2 * i], weights[:, 2 * i + 1], partners[:, i]) for i in range(len(pairs))]


def _as_mixup(pair: Pair, world: World) -> Mixup:
    like = at_least_float32(pair.query.detach())
    if isinstance(pair.targets, Mixup):
        own, other, partner = pair.targets.own, pair.targets.other, pair.targets.partner
        return Mixup(own.to(like), other.to(like), partner.to(like.device))
    ones = torch.ones_like(like[:, 0])
    return Mixup(ones, torch.zeros_like(ones), own_rows(len(like), world, like.device))


def target_block(targets: Mixup, rows: Tensor, columns: Tensor) -> Tensor:
    """P[rows, columns]."""
    own = targets.own[rows, None] * (rows[:, None] == columns)
    return own + targets.other[rows, None] * (targets.partner[rows, None] == columns)


def _copies(targets: Mixup, ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """bool [rows, columns]: whether the column is a copy of a sample that the query row contains."""
    own = (targets.own[rows, None] > 0) & (ids[rows, None] == ids[columns])
    other = (targets.other[rows, None] > 0) & (ids[targets.partner[rows], None] == ids[columns])
    return own | other
