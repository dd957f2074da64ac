"""The losses written out once more, from the papers' equations, with whole N x N matrices on one process.

Independent of mmpretrain.losses on purpose: the parity tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Partners:
    """Query row i contains two samples: P_ii += own_i, P_i,partner(i) += other_i. [N] each."""

    own: Tensor
    other: Tensor
    partner: Tensor


@dataclass(frozen=True)
class Classes:
    """Rows of equal label belong together. labels: [N]."""

    labels: Tensor


@dataclass(frozen=True)
class Likeness:
    """P is the row softmax of scale r r^T. reference: [N, d]."""

    reference: Tensor
    scale: Tensor | float
    detach: bool = False


Belonging = Partners | Classes | Likeness | None  # None: row i belongs to row i alone


@dataclass(frozen=True)
class Outcome:
    """Scalars of the whole batch."""

    loss: Tensor
    accuracy: float
    mean_rank: float


def contrast(
    query: Tensor,
    key: Tensor,
    scale: Tensor | float,
    belonging: Belonging = None,
    *,
    ids: Tensor | None = None,
    query_valid: Tensor | None = None,
    key_valid: Tensor | None = None,
    same_side: bool = False,
    one_way: bool = False,
) -> Outcome:
    """One pair [N, d], in both directions or one way.

    ids: equal for copies of a sample. scale: a number, or one per query row.
    """
    size = len(query)
    every = torch.ones(size, dtype=torch.bool)
    query_valid, key_valid = (every if mask is None else mask for mask in (query_valid, key_valid))
    paired = query_valid & key_valid
    ids = torch.arange(size) if ids is None else ids
    q, k = unit(query, query_valid), unit(key, key_valid)
    factor = scale.reshape(-1, 1) if isinstance(scale, Tensor) else scale
    cross = factor * (q @ k.T)
    seen = query_valid[:, None] & key_valid & ~hidden_copies(belonging, ids)
    total = cross.sum() * 0
    places: list[Tensor] = []
    for logits, visible, side, side_valid, transposed in (
        (cross, seen, q, query_valid, False),
        (cross.T, seen.T, k, key_valid, True),
    ):
        blocks, masks = [logits], [visible]
        if same_side:
            twins = hidden_copies(belonging, ids)
            blocks.append(factor * (side @ side.T))
            masks.append(side_valid[:, None] & side_valid & ~twins & ~torch.eye(size, dtype=torch.bool))
        weights = target_weights(belonging, ids, paired, masks, transposed)
        count = 1 if not one_way else 0 if transposed else 2
        total = total + count * cross_entropy(torch.cat(blocks, dim=1), weights, torch.cat(masks, dim=1), paired)
        places.append(own_place(logits, visible, is_target(belonging, paired, transposed))[paired])
    if not paired.any():
        return Outcome(total, 0.0, 0.0)
    place = torch.cat(places).double()
    return Outcome(total / (2 * int(paired.sum())), (place == 1).double().mean().item(), place.mean().item())


def cross_entropy(logits: Tensor, weights: Tensor, visible: Tensor, counted: Tensor) -> Tensor:
    """Sum over counted rows i and all j of weights_ij (L_i - logits_ij), L_i over the visible entries of the row."""
    logits, weights, visible = logits[counted], weights[counted], visible[counted]
    log_norm = logits.masked_fill(~visible, -torch.inf).logsumexp(dim=1, keepdim=True)
    return (weights * (log_norm - logits)).sum()


def target_weights(
    belonging: Belonging, ids: Tensor, paired: Tensor, visible: list[Tensor], transposed: bool
) -> Tensor:
    """P of one direction, [N, N] or [N, 2 N] with the own side's block."""
    size = len(ids)
    if isinstance(belonging, Classes):
        equal = belonging.labels[:, None] == belonging.labels
        positive = torch.cat([equal & mask for mask in visible], dim=1).double()
        return positive / positive.sum(dim=1, keepdim=True).clamp(min=1)
    if isinstance(belonging, Likeness):
        return likeness_targets(belonging, ids, paired)
    matrix = torch.eye(size, dtype=torch.float64)
    if isinstance(belonging, Partners):
        matrix = partner_targets(belonging) * paired[:, None]
        matrix = matrix.T if transposed else matrix
    weights = matrix * visible[0]
    return torch.cat([weights, *(torch.zeros_like(weights) for _ in visible[1:])], dim=1)


def likeness_targets(likeness: Likeness, ids: Tensor, paired: Tensor) -> Tensor:
    """rowsoftmax(scale r r^T) over samples that have both sides, other copies of a row's own sample left out."""
    rows = unit(likeness.reference, paired)
    visible = paired[:, None] & paired & ~hidden_copies(None, ids)
    resemblance = (likeness.scale * (rows @ rows.T)).masked_fill(~visible, -torch.inf)
    targets = torch.zeros(len(ids), len(ids), dtype=rows.dtype)
    targets[paired] = resemblance[paired].softmax(dim=1)
    return targets.detach() if likeness.detach else targets


def partner_targets(partners: Partners) -> Tensor:
    """P [N, N] of two-partner mixup."""
    matrix = torch.diag(partners.own.double())
    for i, (weight, j) in enumerate(zip(partners.other, partners.partner.tolist(), strict=True)):
        matrix[i, j] += weight
    return matrix


def hidden_copies(belonging: Belonging, ids: Tensor) -> Tensor:
    """bool [N, N]: the key is another copy of a sample that the query row contains; with labels nothing is hidden."""
    size = len(ids)
    itself = torch.arange(size)
    if isinstance(belonging, Classes):
        return torch.zeros(size, size, dtype=torch.bool)
    hidden = ids[:, None] == ids
    if isinstance(belonging, Partners):
        mixed, partner = belonging.other > 0, belonging.partner
        hidden = hidden & (belonging.own > 0)[:, None] | (ids[partner][:, None] == ids) & mixed[:, None]
        hidden[itself[mixed], partner[mixed]] = False
    hidden[itself, itself] = False
    return hidden


def is_target(belonging: Belonging, paired: Tensor, transposed: bool) -> Tensor:
    """bool [N, N]: entries that do not count against the own counterpart."""
    targets = torch.eye(len(paired), dtype=torch.bool)
    if isinstance(belonging, Classes):
        targets = targets | (belonging.labels[:, None] == belonging.labels)
    if isinstance(belonging, Partners):
        mixed = (partner_targets(belonging) > 0) & paired[:, None]
        targets = targets | (mixed.T if transposed else mixed)
    return targets


def own_place(logits: Tensor, visible: Tensor, targets: Tensor) -> Tensor:
    """Place of the own counterpart among the visible entries of its row that are no targets; 1 is best. [N]."""
    others = visible & ~targets & ~torch.eye(len(logits), dtype=torch.bool)
    nearer = (logits >= logits.diagonal()[:, None] - 1e-12) & others
    return 1 + nearer.sum(dim=1)


def unit(rows: Tensor, valid: Tensor | None = None) -> Tensor:
    """Rows divided by their norms; rows of norm 0, and those that are not valid, become 0."""
    rows = rows if valid is None else torch.where(valid[:, None], rows, torch.zeros(()).to(rows))
    squares = rows.pow(2).sum(dim=1, keepdim=True)
    return rows / torch.where(squares > 0, squares, torch.ones_like(squares)).sqrt()


def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of [N, C] logits."""
    return -(logits.log_softmax(dim=1)[range(len(labels)), labels]).mean()
