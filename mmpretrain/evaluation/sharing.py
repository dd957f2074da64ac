"""Work on the rows of a split that all ranks share.

Blocks of rows are the same whatever the number of ranks, and each is computed by one rank: a score is the same to the
last digit on any number of them, given the same embeddings. Shapes: n rows, r rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

from mmpretrain.distributed.world import World
from mmpretrain.evaluation.similarity import row_blocks

T = TypeVar("T")


class ToldError(RuntimeError):
    """A failure that all ranks have heard of; its cause is the failure of this rank, if it had one."""


def shared_rows(
    world: World,
    rows: int,
    columns: int,
    names: Sequence[str],
    outcomes: Callable[[slice], Sequence[np.ndarray]],
    chunk: int | None = None,
) -> dict[str, np.ndarray]:
    """name -> float64 [n]: outcomes of all rows; a collective.

    columns: how many numbers are held for each row of a block. outcomes: a block -> one array [r] for each of
    ``names``. chunk: rows of a block (default: see ``row_blocks``). Raises ToldError on all ranks if one fails.
    """
    found = np.zeros((len(names), rows))

    def own() -> None:
        for block in row_blocks(rows, columns, chunk)[world.rank :: world.size]:
            for place, values in enumerate(outcomes(block)):
                found[place, block] = values

    heard(world, own)
    # Every number is one rank's, and 0 on the others: no sum is rounded.
    total = world.all_reduce_sum(torch.from_numpy(found).to(world.device)).cpu().numpy()
    return dict(zip(names, total, strict=True))


def heard(world: World, work: Callable[[], T]) -> T:
    """What ``work`` gives on this rank; a collective. Raises ToldError on all ranks if it fails on one."""
    failure = None
    try:
        found = work()
    except Exception as error:  # the other ranks must hear of any failure, or they would wait for this rank
        failure = error
    if world.max_flag(failure is not None, patient=True):
        raise ToldError("evaluation failed on another rank: see its message") from failure
    return found
