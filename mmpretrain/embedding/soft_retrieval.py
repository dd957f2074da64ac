"""Soft retrieval from a memory that is spread over the ranks (C-MCR, Wang et al. 2023, arXiv 2305.14381, section 3.1).

For a query q and the memory items v_k of all ranks, all of unit length, with l_k = q . v_k / temperature:

    p = softmax(l),    mean = sum_k p_k v_k,    value = mean / |mean|,    effective = exp(- sum_k p_k log p_k)
    nearest = argmax_k l_k

Each rank sweeps its own items in tiles and keeps, per query, m = max l, the item that reaches it, and the sums of
e^(l - m) times (v, 1, l - m); a larger m rescales what was summed before. Ranks combine by two maxima and one
reduce-scatter, so that the result does not depend on who holds what, up to rounding. Neither the similarities nor the
memory of other ranks is ever held.

Shapes: b queries of this rank, B of all, n_r items of this rank, d width. Time 4 B n_r d per rank; memory
B (d + 2) + tile^2 numbers beside the inputs; bytes sent per rank: those of 2 B d numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mmpretrain.distributed import collectives
from mmpretrain.distributed.world import World
from mmpretrain.losses.similarity import unit_rows

TILE = 4096


class Memory(Protocol):
    """Items [n, d]: a tensor, or what is read from files while it is swept."""

    @property
    def shape(self) -> Sequence[int]:
        """(n, d)."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the items."""

    def __len__(self) -> int: ...

    def split(self, size: int, /) -> Iterable[Tensor]:
        """The items, so many at a time, the last ones fewer."""


@dataclass(frozen=True)
class Retrieved:
    """values: [b, d], unit norm. length: [b], that of the mean before: near 1 where one item, or alike ones, prevail.

    effective: [b], over how many items a query's weights are spread, from 1 to the size of the memory; queries that
    all come near 1 on a large memory, or near its size, tell of a wrong temperature. nearest: int64 [b], the number of
    the item with the largest weight; which items are the nearest of many queries tells of hubs.
    """

    values: Tensor
    effective: Tensor
    length: Tensor
    nearest: Tensor


@torch.no_grad()
def soft_retrieve(
    queries: Tensor,
    memory: Tensor | Memory,
    *,
    temperature: float,
    world: World | None = None,
    tile: int = TILE,
    numbers: Tensor | None = None,
) -> Retrieved:
    """What the whole memory holds about this rank's queries; no gradient.

    queries: [b, d]; memory: [n_r, d], this rank's share of it, which is read once for every ``tile`` queries of all
    ranks. Rows need not be normalized. b and n_r may differ
    between ranks and be 0 on some. Computed in float32, in float64 if an input is; half precision is widened tile by
    tile. world: the ranks that share the memory (default: this process alone). numbers: int64 [n_r], 0 or above, what
    this rank's items are called in ``nearest`` (default: their places, rank after rank). A collective: every rank must
    call it.

    Raises:
        ValueError: the widths differ, the temperature is not above 0, or no rank has an item.
    """
    world = world or World.single()
    if queries.shape[1] != memory.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} features and the memory {memory.shape[1]}: use one space")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}: it must be above 0")
    # Half a thousandth of a similarity is a factor of 1.05 at temperature 0.01.
    dtype = torch.promote_types(torch.promote_types(queries.dtype, memory.dtype), torch.float32)
    counts = world.all_gather_rows(torch.tensor([[len(queries), len(memory)]], device=queries.device))
    if not counts[:, 1].any():
        raise ValueError("the memory has no items on any rank: there is nothing to retrieve")
    with torch.autocast(queries.device.type, enabled=False):
        asked = world.all_gather_rows(_padded(unit_rows(queries.to(dtype)), int(counts[:, 0].max())))
        if numbers is None:
            numbers = torch.arange(len(memory), device=queries.device) + counts[: world.rank, 1].sum()
        swept = [_sweep(part, memory, numbers, temperature, tile) for part in asked.split(tile)]
        top, sums, nearest = (torch.cat(parts) for parts in zip(*swept, strict=True))
        sums, nearest = _combined(top, sums, nearest, world)
    return _retrieved(sums[: len(queries)], nearest[: len(queries)])


def _padded(rows: Tensor, count: int) -> Tensor:
    """[b, d] -> [count, d], zeros below: a gather needs as many rows from every rank."""
    return torch.cat([rows, rows.new_zeros(count - len(rows), rows.shape[1])])


def _sweep(
    queries: Tensor, memory: Tensor | Memory, numbers: Tensor, temperature: float, tile: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(m [q], sums of e^(l - m) (v, 1, l - m) [q, d + 2], the number of the nearest [q]) of this rank's items; m is the
    least number, and the nearest -1, without items."""
    width = queries.shape[1]
    top = queries.new_full((len(queries),), torch.finfo(queries.dtype).min)
    sums = queries.new_zeros(len(queries), width + 2)
    nearest = numbers.new_full((len(queries),), -1)
    for part, names in zip(memory.split(tile), numbers.split(tile), strict=True) if len(memory) else ():
        items = unit_rows(part.to(queries.device, queries.dtype))
        logits = (queries @ items.T).div_(temperature)
        largest, places = logits.max(dim=1)
        nearest = torch.where(largest > top, names[places], nearest)
        above = torch.maximum(top, largest)
        _rescale(sums, top - above)
        top = above
        logits -= above[:, None]
        weights = logits.exp()
        sums[:, :width].addmm_(weights, items)
        sums[:, width] += weights.sum(dim=1)
        sums[:, width + 1] += torch.linalg.vecdot(weights, logits)
    return top, sums, nearest


def _rescale(sums: Tensor, shift: Tensor) -> None:
    """Make sums about a maximum m those about m - shift, in place; shift [q], at most 0."""
    sums[:, -1] += shift * sums[:, -2]
    sums *= shift.exp()[:, None]


def _combined(top: Tensor, sums: Tensor, nearest: Tensor, world: World) -> tuple[Tensor, Tensor]:
    """This rank's rows of the sums over all ranks, [b, d + 2], and of the nearest of all, [b]; padding included."""
    if world.size == 1:
        return sums, nearest
    highest = world.all_reduce_max(top)
    _rescale(sums, top - highest)
    nearest = world.all_reduce_max(torch.where(top == highest, nearest, -1))
    count = len(nearest) // world.size
    return collectives.reduce_scatter_rows(sums, world.group), nearest[world.rank * count :][:count]


def _retrieved(sums: Tensor, nearest: Tensor) -> Retrieved:
    mean = sums[:, :-2] / sums[:, -2:-1]
    entropy = sums[:, -2].log() - sums[:, -1] / sums[:, -2]
    return Retrieved(unit_rows(mean), entropy.exp(), torch.linalg.vector_norm(mean, dim=1), nearest)
