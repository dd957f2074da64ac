"""What ranks find out about the links between them."""

from __future__ import annotations

import time

import pytest
import torch

from mmpretrain.distributed import links
from mmpretrain.distributed.links import LinkError, measure, meet_all, rounds
from mmpretrain.distributed.world import World
from tests.rank_pool import Ranks


@pytest.mark.parametrize(("ranks", "per_node", "most"), [(2, 1, 1), (32, 8, 31), (512, 8, 20), (4096, 8, 26)])
def test_the_number_of_rounds_is_bounded(ranks: int, per_node: int, most: int) -> None:
    distances = rounds(ranks, per_node)
    assert len(distances) <= most and all(0 < distance < ranks for distance in distances)
    if ranks > 32:  # other nodes are met, at least by power of two
        assert {per_node, 2 * per_node} <= set(distances)


def test_few_ranks_meet_everybody() -> None:
    met = {(rank, (rank + step) % 7) for rank in range(7) for step in rounds(7, 2)}
    assert len(met) == 7 * 6


def look() -> float:
    """The rate of the only link."""
    world, end = World.current(), time.monotonic() + 60
    assert abs(meet_all(world, end) - time.time()) < 5
    return measure(world, 1, end)


def test_a_link_that_works_has_a_rate(ranks: Ranks) -> None:
    assert all(rate > 0 for rate in ranks(2, look))


def look_with_wrong_bits() -> str:
    """What rank 1 says when rank 0 sends a wrong number."""
    world, end = World.current(), time.monotonic() + 60
    with pytest.MonkeyPatch.context() as patch:
        if world.rank == 0:
            sent = links._message
            patch.setattr(links, "_message", lambda *args: sent(*args) + (args[0] == 0) * (torch.arange(args[1]) == 7))
        try:
            measure(world, 1, end)
        except LinkError as error:
            return str(error)
    return "fine"


def test_what_arrives_wrong_is_found_by_who_gets_it(ranks: Ranks) -> None:
    assert ranks(2, look_with_wrong_bits) == ["fine", "what arrived is not what was sent"]
