"""The pool of ranks itself: what a test that uses it can rely on when something goes wrong."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest
import torch
import torch.distributed as dist

from tests.rank_pool import RankError, RankPool, Ranks


def rank_and_sum(value: int) -> tuple[int, int, float]:
    """This rank, its process, and the sum of rank + value over the ranks."""
    total = torch.tensor([float(dist.get_rank() + value)])
    dist.all_reduce(total)
    return dist.get_rank(), os.getpid(), total.item()


def raise_on_last_rank() -> None:
    """A ValueError on the last rank, while the others wait for it."""
    if dist.get_rank() == dist.get_world_size() - 1:
        raise ValueError("the last rank is unhappy")
    dist.barrier()


def sleep_on_first_rank() -> None:
    """A minute on rank 0."""
    if dist.get_rank() == 0:
        time.sleep(60)


def die_on_first_rank() -> None:
    """The process of rank 0 ends, while the others wait for it."""
    if dist.get_rank() == 0:
        os._exit(7)
    dist.barrier()


def test_results_come_back_by_rank_from_the_same_processes(ranks: Ranks) -> None:
    first = ranks(2, rank_and_sum, 1)
    second = ranks(2, rank_and_sum, 10)
    assert [r[0] for r in first] == [0, 1]
    assert [r[2] for r in first] == [3.0, 3.0] and [r[2] for r in second] == [21.0, 21.0]
    assert [r[1] for r in first] == [r[1] for r in second] and len({r[1] for r in first}) == 2


def test_closures_travel(ranks: Ranks) -> None:
    offset = 5
    assert ranks(2, lambda: dist.get_rank() + offset) == [5, 6]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raise_on_last_rank, "rank 1 raised:.*the last rank is unhappy"),
        (sleep_on_first_rank, "rank 0 hung.*sleep_on_first_rank"),
        (die_on_first_rank, "rank 0 died with exit code 7"),
    ],
)
def test_failures_name_the_rank_and_leave_no_process(function: Callable[[], None], message: str) -> None:
    with RankPool(2, grace_s=0.5) as pool:
        pids = [pid for _, pid, _ in pool.run(rank_and_sum, [0], 60)]
        with pytest.raises(RankError, match=f"(?s){message}"):
            pool.run(function, [], 3)
        assert not pool.alive
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_ranks_that_were_killed_between_two_calls_are_replaced(ranks: Ranks) -> None:
    first = [pid for _, pid, _ in ranks(2, rank_and_sum, 1)]
    os.kill(first[1], signal.SIGKILL)
    psutil.Process(first[1]).wait(30)
    again = ranks(2, rank_and_sum, 2)
    assert [total for *_, total in again] == [5.0, 5.0] and again[1][1] != first[1]
