"""What a World answers, with and without a process group."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from mmpretrain.distributed.replicas import average_gradients, broadcast_module
from mmpretrain.distributed.world import World
from tests.rank_pool import Ranks


def test_one_process_needs_no_group() -> None:
    assert not dist.is_initialized()
    rows = torch.ones(2, 3, requires_grad=True)
    for world in (World.single(), World.current()):
        assert (world.rank, world.size) == (0, 1)
        assert world.all_gather_rows(rows) is rows and world.all_reduce_sum(rows) is rows
        assert world.max_flag(True) and not world.max_flag(False)
        world.barrier()
        module = torch.nn.Linear(2, 2)
        broadcast_module(module, world)
        average_gradients(module.parameters(), world)
        assert module.weight.grad is None


def flags() -> tuple[int, int, list[bool]]:
    """Rank, size, and whether a flag is seen that the last rank, nobody or everybody raises."""
    world = World.current()
    world.barrier()
    last = world.rank == world.size - 1
    return world.rank, world.size, [world.max_flag(last), world.max_flag(False), world.max_flag(True)]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_flag_of_any_rank_is_seen_by_all(ranks: Ranks, size: int) -> None:
    assert ranks(size, flags) == [(rank, size, [True, False, True]) for rank in range(size)]


def gather_in_halves() -> tuple[int, int, list[float], list[float]]:
    """Rank and size in a group of two of four ranks, what it gathers, and the gradient."""
    pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    everyone = World.current()
    world = World.current(group=pairs[everyone.rank // 2])
    rows = torch.tensor([[float(everyone.rank)]], requires_grad=True)
    gathered = world.all_gather_rows(rows)
    (gathered.sum() * (everyone.rank + 1)).backward()
    assert rows.grad is not None
    return world.rank, world.size, gathered.flatten().tolist(), rows.grad.flatten().tolist()


def test_a_world_can_be_a_part_of_the_ranks(ranks: Ranks) -> None:
    assert ranks(4, gather_in_halves) == [
        (0, 2, [0.0, 1.0], [3.0]),
        (1, 2, [0.0, 1.0], [3.0]),
        (0, 2, [2.0, 3.0], [7.0]),
        (1, 2, [2.0, 3.0], [7.0]),
    ]
