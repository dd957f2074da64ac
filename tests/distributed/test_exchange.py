"""Rows that visit every rank, and the sums that come home."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mmpretrain.distributed.exchange import RowBlock, exchange
from mmpretrain.distributed.world import World
from tests.rank_pool import Ranks

LOCAL, WIDTH = 3, 2


def whole_batch(size: int) -> tuple[Tensor, Tensor]:
    """The rows of all ranks, and their numbers."""
    rows = torch.arange(size * LOCAL * WIDTH, dtype=torch.float64).reshape(-1, WIDTH) + 1
    return rows, torch.arange(size * LOCAL)


def go_round(ring: bool, world: World | None = None) -> tuple[Tensor, list[int]]:
    """Each visit adds (host rank + 1) times the row, and notes which rows came."""
    world = world or World.current()
    rows, ids = whole_batch(world.size)
    own = slice(world.rank * LOCAL, (world.rank + 1) * LOCAL)
    seen: list[int] = []

    def visit(block: RowBlock) -> None:
        embeds, numbers = block.rows
        assert numbers.tolist() == list(range(block.start, block.start + len(numbers)))
        assert torch.equal(embeds, rows[block.start : block.start + len(embeds)])
        seen.extend(numbers.tolist())
        block.sums += (world.rank + 1) * embeds

    payload = (rows[own].clone(), ids[own].clone())
    return exchange(payload, WIDTH, visit, world=world, ring=ring, dtype=torch.float64), seen


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_row_visits_every_rank_once(ranks: Ranks, size: int, ring: bool) -> None:
    rows, ids = whole_batch(size)
    total = sum(range(1, size + 1))
    for rank, (sums, seen) in enumerate(ranks(size, go_round, ring)):
        assert sorted(seen) == ids.tolist()
        assert torch.equal(sums, total * rows[rank * LOCAL : (rank + 1) * LOCAL])


def in_pairs(ring: bool) -> tuple[Tensor, list[int]]:
    """:func:`go_round` in two groups of two ranks at once."""
    groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    return go_round(ring, World.current(group=groups[dist.get_rank() % 2]))


@pytest.mark.parametrize("ring", [False, True])
def test_any_process_group(ranks: Ranks, ring: bool) -> None:
    rows, _ = whole_batch(2)
    for rank, (sums, seen) in enumerate(ranks(4, in_pairs, ring)):
        place = rank // 2
        assert sorted(seen) == list(range(2 * LOCAL))
        assert torch.equal(sums, 3 * rows[place * LOCAL : (place + 1) * LOCAL])


def without_sums(ring: bool) -> int:
    """How many blocks came by, of an exchange that brings nothing home."""
    world, visits = World.current(), []
    home = exchange((torch.zeros(LOCAL, 1),), 0, lambda block: visits.append(block.start), world=world, ring=ring)
    assert home.shape == (LOCAL, 0)
    return len(visits)


@pytest.mark.parametrize(("ring", "visits"), [(False, 1), (True, 4)])
def test_payload_alone_travels_too(ranks: Ranks, ring: bool, visits: int) -> None:
    assert ranks(4, without_sums, ring) == [visits] * 4
