"""Where the parameters of a DeepSpeed engine lie in the flat partitions that ZeRO 1 to 3 hands to an optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mmpretrain.distributed.world import World


@dataclass(frozen=True)
class Share:
    """A rank's part of a flattened parameter."""

    start: int
    numel: int


@dataclass(frozen=True)
class Piece:
    """A parameter, and this rank's part of it. offset: where that part begins in the rank's flat partition.

    shares: the parts of all ranks, which in their order make up the parameter.
    """

    shape: torch.Size
    offset: int
    rank: int
    shares: tuple[Share, ...]

    @property
    def place(self) -> slice:
        """This rank's part, in its flat partition."""
        return slice(self.offset, self.offset + self.shares[self.rank].numel)

    @property
    def whole(self) -> bool:
        """Whether this rank holds all of it."""
        return not self.divided and self.shares[self.rank].numel > 0

    @cached_property
    def divided(self) -> bool:
        """Whether it lies on several ranks; the same answer on all of them."""
        return sum(share.numel > 0 for share in self.shares) > 1


def pieces_by_partition(zero: Any, stage: int, world: World) -> dict[Tensor, list[Piece]]:
    """Flat partition -> the parameters that lie in it or in the same partition of other ranks, in the same order.

    zero: DeepSpeed's optimizer of stage 1 to 3. A collective. Raises RuntimeError when the ranks' parts do not add up
    to the parameters: this version of DeepSpeed divides them in a way that is not known here.
    """
    partitions = _of_stage_3(zero, world) if stage == 3 else _of_stages_1_and_2(zero)
    return {flat: _shared(list(parts), world) for flat, parts in partitions}


Part = tuple[torch.Size, int, Share]  # shape of the parameter, offset in the flat partition, this rank's share
Partition = tuple[Tensor, Iterator[Part]]


def _of_stages_1_and_2(zero: Any) -> Iterator[Partition]:
    for parameters, flat in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
        yield flat, (_mapped(parameter) for parameter in parameters)


def _mapped(parameter: Any) -> Part:
    mapping = parameter._hp_mapping
    if mapping is None:
        return parameter.shape, 0, Share(0, 0)
    whole, flat = mapping.lp_fragment_address, mapping.hp_fragment_address
    return parameter.shape, flat.start, Share(whole.start, whole.numel)


def _of_stage_3(zero: Any, world: World) -> Iterator[Partition]:
    for parameters, flat in zip(zero.fp16_groups, zero.fp32_partitioned_groups_flat, strict=True):
        yield flat, (_cut(zero, parameter, world.rank) for parameter in parameters)


def _cut(zero: Any, parameter: Any, rank: int) -> Part:
    """Every rank holds equally many numbers of a parameter; what the last have too many is padding."""
    _, offset, size = zero.grad_position[zero.get_param_id(parameter)]
    start = min(rank * size, parameter.ds_numel)
    return parameter.ds_shape, offset, Share(start, min(size, parameter.ds_numel - start))


def _shared(parts: list[Part], world: World) -> list[Piece]:
    table = torch.zeros(world.size, len(parts), 2, dtype=torch.int64, device=world.device)
    table[world.rank] = torch.tensor([[share.start, share.numel] for _, _, share in parts], device=world.device)
    columns = world.all_reduce_sum(table).transpose(0, 1).tolist()
    pieces = []
    for (shape, offset, _), column in zip(parts, columns, strict=True):
        shares = tuple(Share(*numbers) for numbers in column)
        _check(shape, shares)
        pieces.append(Piece(torch.Size(shape), offset, world.rank, shares))
    return pieces


def _check(shape: torch.Size, shares: tuple[Share, ...]) -> None:
    end = 0
    for share in shares:
        if share.numel and share.start != end:
            break
        end += share.numel
    if end != math.prod(shape):
        raise RuntimeError(
            f"DeepSpeed divides a parameter of shape {tuple(shape)} among the ranks as {shares}: optim.name=muon cannot"
            " put it together; use optim.name=adamw, or engine=zero0"
        )
