"""Batches that a thread makes ready ahead of their step."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice

import pytest
import torch

from mmpretrain.data.ahead import ahead
from mmpretrain.data.batch import Batch

CPU = torch.device("cpu")


def batches(count: int, seen: list[int]) -> Iterator[Batch]:
    """Batches whose one sample is their number; seen: those that were made, and -1 at the end."""
    try:
        for number in range(count):
            seen.append(number)
            ids = torch.tensor([number])
            yield Batch({"x": {"values": torch.ones(1, 2)}}, None, ids, ids)
    finally:
        seen.append(-1)


def test_batches_come_in_order_and_made_by_another_thread() -> None:
    seen: list[int] = []
    found = [batch.positions.item() for batch in ahead(batches(7, seen), 2, CPU)]
    assert found == list(range(7)) and seen == [*range(7), -1]


def test_no_more_than_the_depth_are_made_ahead_and_whoever_stops_ends_the_thread() -> None:
    seen: list[int] = []
    running = ahead(batches(100, seen), 2, CPU)
    assert [batch.positions.item() for batch in islice(running, 3)] == [0, 1, 2]
    running.close()  # type: ignore[attr-defined]
    assert seen[-1] == -1 and len(seen) <= 8
    assert not [thread for thread in threading.enumerate() if thread.name == "batches-ahead"]


def test_an_error_comes_in_its_turn() -> None:
    def failing() -> Iterator[Batch]:
        yield from batches(2, [])
        raise KeyError("a shard")

    running, found = ahead(failing(), 1, CPU), []
    with pytest.raises(KeyError, match="a shard"):
        for batch in running:
            found.append(batch.positions.item())
    assert found == [0, 1]
