"""How long ranks wait, measured on living gloo ranks."""

from __future__ import annotations

import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from mmpretrain.distributed.limits import Waiting
from tests.rank_pool import Ranks


def limit_of(group: dist.ProcessGroup) -> float:
    """Seconds that a gloo group waits."""
    backend = group._get_backend(torch.device("cpu"))
    return float(backend.options._timeout.total_seconds())


def limits() -> list[float]:
    """Of a group like those that libraries make, and of a patient one: at the start, in a step, while saving, in the
    next step."""
    other = dist.new_group()
    patient = dist.new_group(timeout=timedelta(hours=6))
    found = [limit_of(other)]
    waiting = Waiting(600, 300, spared=[patient])
    found.append(limit_of(other))
    waiting.hurry()
    found.append(limit_of(other))
    with waiting.leisurely(3600):
        found.append(limit_of(other))
    found += [limit_of(other), limit_of(patient)]
    return found


def test_every_group_takes_the_limit_of_what_is_going_on(ranks: Ranks) -> None:
    """DeepSpeed's too, which had half an hour whatever the config said; the patient group keeps its hours."""
    assert ranks(2, limits) == [[1800, 600, 300, 3600, 300, 6 * 3600]] * 2


def waited() -> float:
    """How long rank 0 waits for a rank that hangs, in a group whose limit was 60 s when it was made."""
    group = dist.new_group(timeout=timedelta(seconds=60))
    dist.all_reduce(torch.ones(1), group=group)
    waiting = Waiting(60, 0.5, spared=[each for each in distributed_c10d._world.pg_map if each is not group])
    waiting.hurry()
    began = time.monotonic()
    if dist.get_rank() == 0:
        try:
            dist.all_reduce(torch.ones(1), group=group)
        except RuntimeError as error:
            assert "500ms" in str(error)
    dist.barrier()
    return time.monotonic() - began


def test_a_rank_that_hangs_is_waited_for_as_long_as_the_shortened_limit_says(ranks: Ranks) -> None:
    assert 0.5 <= ranks(2, waited)[0] < 20
