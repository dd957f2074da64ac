"""Before a loss goes over all ranks: do they hold equally many samples, and does none refuse its own?

A collective of different shapes ends inside of a library, on one rank or on all, with a message about sockets; a rank
that raised alone leaves the others waiting. So refusals are told to all ranks first, and every rank raises.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mmpretrain.distributed.world import World


def agree(rows: int, device: torch.device, check: Callable[[], None], world: World) -> None:
    """Run ``check``, which raises ValueError for what this rank cannot use of its ``rows`` samples; ask the others.

    Raises ValueError on all ranks alike if any of them refuses, if they hold different numbers of samples, and if there
    are none. A small collective, unless ``world.even``: then only this rank's own samples are looked at.
    """
    problem = _refusal(rows, check)
    if world.size > 1 and not world.even:
        own = torch.tensor([[rows, problem is not None]], device=device)
        everyone = world.all_gather_rows(own).tolist()
        problem = problem or _others(everyone) or _uneven([count for count, _ in everyone])
    if problem is not None:
        raise problem


def _refusal(rows: int, check: Callable[[], None]) -> ValueError | None:
    try:
        check()
    except ValueError as error:
        return error
    return None if rows else ValueError("a batch without samples has no loss: leave it out on all ranks")


def _others(everyone: list[list[int]]) -> ValueError | None:
    refusing = [rank for rank, (_, refused) in enumerate(everyone) if refused]
    if not refusing:
        return None
    return ValueError(f"rank {refusing[0]} refused its samples: see the message there")


def _uneven(counts: list[int]) -> ValueError | None:
    if len(set(counts)) == 1:
        return None
    found = ", ".join(f"{count} on rank {rank}" for rank, count in enumerate(counts[:8]))
    return ValueError(
        f"the ranks hold different numbers of samples ({found}{', ...' if len(counts) > 8 else ''}): give all of them"
        " equally many (drop_last=True), or fill up and mark the filling with query_valid and key_valid"
    )
