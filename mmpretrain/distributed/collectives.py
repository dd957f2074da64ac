"""Collectives whose gradients are exact.

Convention: every rank's loss is the mean over its own rows, the backward of a gather sums over the ranks, and
gradients are averaged over the ranks. The result is the gradient of one process on the whole batch. A right
loss value does not show this; only gradients do.

Every function must be called by all ranks of the group, in the same order, with tensors of the same shape and
type. ``group=None`` is the default process group. Works on gloo and NCCL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mmpretrain.distributed.first_order import first_order

Group = dist.ProcessGroup | None

# Torch 2.13 renamed both and warns at every call of the old names.
_gather_into = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter_into = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def all_gather_rows(rows: Tensor, group: Group = None) -> Tensor:
    """[b, ...] of each of W ranks -> [W b, ...], rank-major; b is the same on all ranks.

    Differentiable: the gradient of a rank's rows is the sum over all ranks of their gradients for these rows.
    Integer tensors are gathered without one. Raises ValueError for a tensor without rows.
    """
    if rows.dim() == 0:
        raise ValueError("all_gather_rows needs a tensor with rows [b, ...] and got a scalar: use reshape(1)")
    return _AllGatherRows.apply(rows, group)


@torch.no_grad()
def gather_rows(rows: Tensor, group: Group = None) -> Tensor | None:
    """[b, ...] of each of W ranks -> [W b, ...], rank-major, on rank 0 of the group; None elsewhere. Not
    differentiable."""
    first = dist.get_rank(group) == 0
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size(group))] if first else None
    dist.gather(rows.contiguous(), parts, group=group, group_dst=0)
    return None if parts is None else torch.cat(parts)


def all_reduce_sum(values: Tensor, group: Group = None) -> Tensor:
    """The sum over all ranks, same shape, ``values`` untouched. Differentiable (backward: the same sum)."""
    return _AllReduceSum.apply(values, group)


def average_gradient(values: Tensor, group: Group = None) -> Tensor:
    """``values``, whose gradient becomes the mean of all ranks'. Whoever averages it once more changes nothing."""
    return _AverageGradient.apply(values, group)


@torch.no_grad()
def all_reduce_max(values: Tensor, group: Group = None) -> Tensor:
    """The largest over all ranks, element by element, same shape, ``values`` untouched. Not differentiable."""
    largest = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    return largest


@torch.no_grad()
def reduce_scatter_rows(rows: Tensor, group: Group = None) -> Tensor:
    """[W b, ...] of each of W ranks -> [b, ...]: the sum over the ranks of this rank's rows. Not differentiable."""
    own = rows.new_empty((rows.shape[0] // dist.get_world_size(group), *rows.shape[1:]))
    _reduce_scatter_into(own, rows.contiguous(), group=group)
    return own


@torch.no_grad()
def all_to_all(values: Tensor, sent: Sequence[int], received: Sequence[int], group: Group = None) -> Tensor:
    """``values`` [n], cut by ``sent``, one part for each rank -> what the ranks sent to this one, in their order.

    received: numbers that each of them sends. Not differentiable.
    """
    parts = values.new_empty(sum(received))
    dist.all_to_all_single(parts, values.contiguous(), list(received), list(sent), group=group)
    return parts


class _AllGatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Group) -> Tensor:
        """[b, ...] of this rank -> [W b, ...] of all."""
        ctx.group = group
        gathered = rows.new_empty((dist.get_world_size(group) * rows.shape[0], *rows.shape[1:]))
        _gather_into(gathered, rows.contiguous(), group=group)
        return gathered

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """[W b, ...] -> [b, ...]: this rank's rows, summed over the ranks."""
        return reduce_scatter_rows(grad, ctx.group), None


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Group) -> Tensor:
        """The sum over the ranks."""
        ctx.group = group
        return _summed(values, group)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The sum over the ranks: each one's input reaches every rank's output."""
        return _summed(grad, ctx.group), None


class _AverageGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Group) -> Tensor:
        """The values themselves."""
        ctx.group = group
        return values.view_as(values)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The mean over the ranks."""
        return _summed(grad, ctx.group) / dist.get_world_size(ctx.group), None


def _summed(values: Tensor, group: Group) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total
