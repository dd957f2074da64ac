"""Replicated modules: gradients averaged over the ranks, parameters and buffers broadcast from rank 0."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmpretrain.distributed.world import World


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replace every ``.grad`` by its mean over the ranks: one collective per dtype, one for the next rule.

    A parameter that got a gradient on some rank takes part on every rank, with zeros where it got none, so
    that replicas stay equal; one that got none anywhere keeps ``None``: its optimizer leaves it alone.
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
