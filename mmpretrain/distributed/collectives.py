"""Collectives whose gradients are exact.

Convention: every rank's loss is the mean over its own rows, the backward of a gather sums over the ranks, and
gradients are averaged over the ranks. The result is the gradient of one process on the whole batch. A right
loss value does not show this; only gradients do.

Every function must be called by all ranks of the group, in the same order, with tensors of the same shape and
type. ``group=None`` is the default process group. Works on gloo and NCCL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from mmpretrain.distributed.world import World

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


def all_reduce_sum(values: Tensor, group: Group = None) -> Tensor:
    """The sum over all ranks, same shape, ``values`` untouched. Differentiable (backward: the same sum)."""
    return _AllReduceSum.apply(values, group)


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
def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replace every ``.grad`` by its mean over the ranks: one collective per dtype, one for the next rule.

    A parameter that got a gradient on some rank takes part on every rank, with zeros where it got none, so
    that replicas stay equal; one that got none anywhere keeps ``None``: its optimiser leaves it alone.
    """
    trainable = [p for p in parameters if p.requires_grad]
    if world.size == 1 or not trainable:
        return
    by_dtype: dict[torch.dtype, list[nn.Parameter]] = defaultdict(list)
    for parameter, used in zip(trainable, _used_somewhere(trainable, world), strict=True):
        if used:
            by_dtype[parameter.dtype].append(parameter)
    for members in by_dtype.values():
        _average(members, world)


@torch.no_grad()
def broadcast_module(module: nn.Module, world: World) -> None:
    """Copy rank 0's parameters and buffers to every rank, in place: one collective per dtype."""
    broadcast_tensors([*module.parameters(), *module.buffers()], world)


@torch.no_grad()
def broadcast_tensors(whole: Iterable[Tensor], world: World) -> None:
    """Copy rank 0's tensors to every rank, in place: one collective per dtype. Shapes are the same on all ranks."""
    if world.size == 1:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for tensor in whole:
        by_dtype[tensor.dtype].append(tensor)
    for tensors in by_dtype.values():
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.broadcast(flat, group_src=0, group=world.group)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def _used_somewhere(parameters: list[nn.Parameter], world: World) -> list[bool]:
    flags = [float(p.grad is not None) for p in parameters]
    return [bool(n) for n in world.all_reduce_sum(torch.tensor(flags, device=parameters[0].device)).tolist()]


def _average(parameters: list[nn.Parameter], world: World) -> None:
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    grads = [p.grad for p in parameters if p.grad is not None]
    total = world.all_reduce_sum(torch.cat([g.reshape(-1) for g in grads]))
    for grad, part in zip(grads, total.split([g.numel() for g in grads]), strict=True):
        grad.copy_(part.view_as(grad)).div_(world.size)


class _AllGatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Group) -> Tensor:
        """[b, ...] of this rank -> [W b, ...] of all."""
        ctx.group = group
        gathered = rows.new_empty((dist.get_world_size(group) * rows.shape[0], *rows.shape[1:]))
        _gather_into(gathered, rows.contiguous(), group=group)
        return gathered

    @staticmethod
    @torch.autograd.function.once_differentiable
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
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The sum over the ranks: each one's input reaches every rank's output."""
        return _summed(grad, ctx.group), None


def _summed(values: Tensor, group: Group) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total
