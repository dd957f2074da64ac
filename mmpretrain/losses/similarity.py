"""What the contrastive losses share: unit-length rows of all ranks, and the cross-entropy over similarities.

Shape legend: b rows of this rank, W ranks, N = W b rows of the whole batch (b and N when negatives are
local).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.distributed.world import World
from mmpretrain.losses.schema import Negatives


@dataclass(frozen=True)
class Rows:
    """Unit-length embeddings. local: [b, d]. everyone: [N, d], rank-major."""

    local: Tensor
    everyone: Tensor


@dataclass(frozen=True)
class PairLoss:
    """Of one (query, key) pair. loss: scalar, the mean over this rank's rows and both directions.

    accuracy: detached share of rows, over both directions, whose best match is a positive target.
    """

    loss: Tensor
    accuracy: Tensor


def negatives_from(world: World, negatives: Negatives) -> World:
    """The ranks whose samples are negatives: all of ``world``, or this rank alone."""
    return world if negatives is Negatives.gather else World.single()


def gather_normalised(embeds: Iterable[Tensor], world: World) -> dict[int, Rows]:
    """``id(tensor)`` -> :class:`Rows` of every distinct tensor [b, d], in float32 at least: one collective."""
    distinct = {id(tensor): tensor for tensor in embeds}
    local = [unit_rows(at_least_float32(tensor)) for tensor in distinct.values()]
    everyone = world.all_gather_rows(torch.cat(local, dim=1)).split([rows.shape[1] for rows in local], dim=1)
    return {key: Rows(*rows) for key, rows in zip(distinct, zip(local, everyone, strict=True), strict=True)}


def unit_rows(rows: Tensor) -> Tensor:
    """[b, d] rows divided by their norms; a row of norm 0 stays 0 and passes its gradient on as it is."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    # Division by a tiny constant instead would multiply that row's gradient by its inverse.
    return rows / torch.where(norms > 0, norms, torch.ones_like(norms))


def cross_entropy(logits: Tensor, targets: Tensor, left_out: Tensor | None) -> Tensor:
    """Mean over b rows of ``- sum_j targets_ij log softmax_j(logits_i.)_j``.

    logits, targets: [b, N]; the rows of targets need not sum to 1. left_out: bool [b, N], columns that a row
    does not see; they must have target 0, and every row must see at least one column.
    """
    seen = logits if left_out is None else logits.masked_fill(left_out, -torch.inf)
    # Small losses keep their digits only when the largest logit is taken off before anything is summed.
    highest = seen.detach().amax(dim=1, keepdim=True)
    log_norm = (seen - highest).logsumexp(dim=1)
    return (targets.sum(dim=1) * log_norm - (targets * (logits - highest)).sum(dim=1)).mean()


def best_match_share(logits: Tensor, positive: Tensor, left_out: Tensor | None) -> Tensor:
    """Detached share of rows [b, N] whose largest seen logit is a ``positive`` one (bool [b, N])."""
    seen = logits if left_out is None else logits.masked_fill(left_out, -torch.inf)
    return positive.gather(1, seen.detach().argmax(dim=1, keepdim=True)).to(seen.dtype).mean()


def at_least_float32(values: Tensor) -> Tensor:
    """``values`` with half-precision types widened to float32; float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def own_rows(rows: int, world: World, device: torch.device) -> Tensor:
    """int64 [b]: where this rank's rows stand in the whole batch."""
    return torch.arange(rows, device=device) + world.rank * rows


def check_pairs(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Raises ValueError when the two sides of a pair cannot be compared."""
    for query, key in pairs:
        if query.dim() != 2 or query.shape != key.shape:
            raise ValueError(
                f"embeddings of shapes {list(query.shape)} and {list(key.shape)} cannot be compared: both sides"
                " must be [samples, width] alike; set model.embed_dim to project all modalities to one width"
            )
