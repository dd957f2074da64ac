"""How `make test` deals the tests to pytest's workers (pytest-xdist); a plain `pytest` has one process and needs none.

Slurm's tests mostly wait, living ranks and started runs compute on several processes, and the rest computes on one. So
each of the first three stays together on one worker (one cluster, one pool of ranks, no two runs at once), the longest
first, and the rest fills whatever is free, file by file.
"""

from __future__ import annotations

from enum import IntEnum

import pytest


class Shard(IntEnum):
    """In the order in which workers take them."""

    slurm = 0
    ranks = 1
    processes = 2
    rest = 3


def shard_of(item: pytest.Item) -> Shard:
    """By what the test uses; ``slurm`` and ``processes`` are its markers."""
    if item.get_closest_marker("slurm"):
        return Shard.slurm
    if "ranks" in getattr(item, "fixturenames", ()):
        return Shard.ranks
    return Shard.processes if item.get_closest_marker("processes") else Shard.rest


def deal(items: list[pytest.Item]) -> None:
    """Sort the tests by shard, and name for each the group that goes to one worker as a whole."""
    items.sort(key=shard_of)
    for item in items:
        shard = shard_of(item)
        item.add_marker(pytest.mark.xdist_group(item.path.stem if shard is Shard.rest else shard.name))
