"""Every rank's rows visit every rank.

    own = exchange(payload, width, visit, world=world, ring=True)

``visit(block)`` computes with the rows of a block and adds to ``block.sums``, accumulators of these very rows; what
comes back are the sums of this rank's own rows over all ranks. With ``ring=False`` all rows come at once, by an
all-gather, and the sums go home by a reduce-scatter. With ``ring=True`` the ranks pass blocks on to their neighbor:
memory is that of three blocks however many ranks there are: the own one, the one visited, the one under way.

No autograd here: callers are autograd functions. Bytes sent by a rank, for b rows of p payload bytes and c sum bytes
on W ranks: (W - 1) b (p + c) either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from mmpretrain.distributed import collectives
from mmpretrain.distributed.world import World


@dataclass
class RowBlock:
    """Rows [n, ...] of one rank or of all. start: number of the first one in the whole batch.

    sums: [n, c], to be added to in place.
    """

    start: int
    rows: tuple[Tensor, ...]
    sums: Tensor


Visit = Callable[[RowBlock], None]


@torch.no_grad()
def exchange(
    payload: Sequence[Tensor],
    width: int,
    visit: Visit,
    *,
    world: World,
    ring: bool,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The sums [b, width] of ``dtype`` for this rank's payload rows, added up over the visits to all ranks.

    payload: tensors [b, ...] of any types, of the same shapes on all ranks. A collective: every rank must call it.
    """
    rows = tuple(tensor.contiguous() for tensor in payload)
    own = rows[0].new_zeros(len(rows[0]), width, dtype=dtype)
    if world.size == 1:
        visit(RowBlock(0, rows, own))
    elif ring:
        own += _around(rows, own, visit, world)
    else:
        gathered = tuple(world.all_gather_rows(tensor) for tensor in rows)
        sums = own.new_zeros(world.size * len(own), width)
        visit(RowBlock(0, gathered, sums))
        own = collectives.reduce_scatter_rows(sums, world.group) if width else own
    return own


def _around(rows: tuple[Tensor, ...], own: Tensor, visit: Visit, world: World) -> Tensor:
    """Visit the own block (sums into ``own``), then each that arrives; what the other ranks added to the own rows."""
    rank, size, count = world.rank, world.size, len(own)
    arriving = _Exchange(rows, world)
    visit(RowBlock(rank * count, rows, own))
    sums: _Exchange | None = None
    for hop in range(1, size):
        block = arriving.wait()
        if hop < size - 1:
            arriving = _Exchange(block, world)
        # A block's sums follow it one visit behind: the first host starts them.
        added = torch.zeros_like(own) if sums is None else sums.wait()[0]
        visit(RowBlock((rank - hop) % size * count, block, added))
        sums = _Exchange((added,), world)
    assert sums is not None
    return sums.wait()[0]


class _Exchange:
    """Tensors on their way to the next rank, and those of the previous one on their way here."""

    def __init__(self, tensors: tuple[Tensor, ...], world: World) -> None:
        following, previous = (world.rank + 1) % world.size, (world.rank - 1) % world.size
        self.received = tuple(torch.empty_like(tensor) for tensor in tensors)
        self._sent: tuple[Tensor, ...] = tensors  # must live until it is sent
        filled = [(ours, theirs) for ours, theirs in zip(tensors, self.received, strict=True) if ours.numel()]
        sends = [dist.P2POp(dist.isend, ours, group=world.group, group_peer=following) for ours, _ in filled]
        receives = [dist.P2POp(dist.irecv, theirs, group=world.group, group_peer=previous) for _, theirs in filled]
        self._works = dist.batch_isend_irecv([*sends, *receives]) if filled else []

    def wait(self) -> tuple[Tensor, ...]:
        """What arrived."""
        for work in self._works:
            work.wait()
        self._sent = ()
        return self.received
