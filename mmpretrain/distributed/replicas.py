"""Replicated modules: gradients averaged over the ranks, parameters and buffers broadcast from rank 0."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmpretrain.distributed.sending import sent
from mmpretrain.distributed.world import World


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replace every ``.grad`` by its mean over the ranks: one collective per dtype.

    A parameter that got a gradient on some rank takes part on every rank, with zeros where it got none, so
    that replicas stay equal; one that got none anywhere keeps ``None``: its optimizer leaves it alone.
    """
    averaged = averaged_gradients(list(parameters), world)
    for parameter, ranks in zip(averaged.parameters, averaged.ranks.tolist(), strict=True):
        if not ranks:
            parameter.grad = None


@dataclass(frozen=True)
class Averaged:
    """parameters: those of :func:`averaged_gradients` that have a gradient now. ranks: float [n] on their device, how
    many ranks had one for each of them; where none had, it is 0 and to be dropped by whoever reads this."""

    parameters: list[nn.Parameter]
    ranks: Tensor


@torch.no_grad()
def averaged_gradients(parameters: list[nn.Parameter], world: World) -> Averaged:
    """Average the gradients over all ranks, one collective per dtype, without a wait for the device."""
    if world.size == 1:
        return Averaged([], torch.zeros(0, device=world.device))
    by_dtype: dict[torch.dtype, list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        if parameter.requires_grad:
            by_dtype[parameter.dtype].append(parameter)
    ranks = [_average(members, world) for members in by_dtype.values()]
    found = [parameter for members in by_dtype.values() for parameter in members]
    return Averaged(
        found, torch.cat([part.float() for part in ranks]) if ranks else torch.zeros(0, device=world.device)
    )


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


def _average(parameters: list[nn.Parameter], world: World) -> Tensor:
    """Parameters of one dtype; behind their gradients travels how many ranks have one, which is returned: [n]."""
    sizes = [p.numel() for p in parameters]
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    there = sent(torch.tensor([p.grad is not None for p in parameters], dtype=own[0].dtype), own[0].device)
    total = world.all_reduce_sum(torch.cat([*(grad.reshape(-1) for grad in own), there]))
    *parts, ranks = total.split([*sizes, len(parameters)])
    for parameter, grad, part in zip(parameters, own, parts, strict=True):
        parameter.grad = grad.copy_(part.view_as(grad)).div_(world.size)
    return ranks
