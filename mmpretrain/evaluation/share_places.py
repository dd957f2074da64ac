"""Places in a retrieval where every rank has a share of the samples, and none has them all.

A sample's query and its one right item are on the same rank. The items' shares go around the ranks, from device to
device, and every rank compares its own queries with each as it comes, a block at a time: it holds three shares of one
modality's items, and what all ranks learn are a few numbers of each query.
Shapes: m samples in all, s of this rank, S of the rank that has most, d width, r rows of a block.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmpretrain.distributed.exchange import RowBlock, exchange
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.device_places import exact_product
from mmpretrain.evaluation.sharing import heard
from mmpretrain.evaluation.similarity import TIE, row_blocks

VALID, CLASS = 0, 1  # columns of what goes with the items


def places_by_shares(
    queries: np.ndarray,
    items: np.ndarray,
    places: np.ndarray,
    samples: int,
    classes: np.ndarray | None,
    world: World,
    chunk: int | None = None,
) -> list[np.ndarray]:
    """Of all samples, float64 [m] each: items nearer than the right one, items tied with it, and with classes whether
    the nearest item is of the query's class; the same on all ranks. A collective.

    queries, items: [s, d], unit rows of this rank's samples. places: int64 [s], theirs among the ``samples``. classes:
    int64 [s]. chunk: rows of a block (default: see ``row_blocks``). Raises ToldError on all ranks if one fails.
    """
    longest = int(world.all_reduce_max(torch.tensor([len(queries)], device=world.device)).item())
    counting = heard(world, lambda: _Counting(queries, items, classes, longest, world.device, chunk))
    exchange(counting.payload, 0, counting.visit, world=world, ring=True)
    own = heard(world, counting.outcomes)
    found = torch.zeros(len(own), samples, dtype=torch.float64, device=world.device)
    found[:, torch.from_numpy(places).to(world.device)] = own
    # Every number is one rank's, and 0 on the others: no sum is rounded.
    return list(world.all_reduce_sum(found).cpu().numpy())


class _Counting:
    """payload: this rank's items, [S, d], and what goes with them, int64 [S, 2]; rows beyond s are none."""

    def __init__(
        self,
        queries: np.ndarray,
        items: np.ndarray,
        classes: np.ndarray | None,
        longest: int,
        device: torch.device,
        chunk: int | None,
    ) -> None:
        self._queries, own = (torch.from_numpy(np.ascontiguousarray(side)).to(device) for side in (queries, items))
        self._similar = torch.linalg.vecdot(self._queries, own)
        self._classes = None if classes is None else torch.from_numpy(classes).to(device)
        facts = torch.zeros(longest, 2, dtype=torch.int64, device=device)
        facts[: len(own), VALID] = 1
        if self._classes is not None:
            facts[: len(own), CLASS] = self._classes
        padded = own.new_zeros(longest, own.shape[1])
        padded[: len(own)] = own
        self.payload = padded, facts
        self._blocks = row_blocks(len(own), longest, chunk)
        self._counts = torch.zeros(2, len(own), dtype=torch.int64, device=device)  # nearer, and nearer or tied
        self._nearest = own.new_full((2, len(own)), -torch.inf)  # of other classes, and of the own one
        self._failure: Exception | None = None

    def visit(self, block: RowBlock) -> None:
        """Compare the queries with a share of the items; a failure is kept, so that the shares go on their way."""
        try:
            for rows in self._blocks if self._failure is None else ():
                self._add(rows, *block.rows)
        except Exception as error:
            self._failure = error

    def _add(self, rows: slice, items: Tensor, facts: Tensor) -> None:
        similarity = exact_product(self._queries[rows], items).masked_fill_(facts[:, VALID] == 0, -torch.inf)
        own = self._similar[rows, None]
        self._counts[0, rows] += (similarity > own + TIE).sum(dim=1)
        self._counts[1, rows] += (similarity >= own - TIE).sum(dim=1)
        if self._classes is not None:
            same = self._classes[rows, None] == facts[:, CLASS]
            for kind, hidden in enumerate((same, ~same)):
                nearest = similarity.masked_fill(hidden, -torch.inf).amax(dim=1)
                self._nearest[kind, rows] = torch.maximum(self._nearest[kind, rows], nearest)

    def outcomes(self) -> Tensor:
        """float64 [2 or 3, s], once all shares have been here. Raises what a visit has raised."""
        if self._failure is not None:
            raise self._failure
        found = [self._counts[0], self._counts[1] - self._counts[0]]
        if self._classes is not None:
            found.append(self._nearest[1] > self._nearest[0] + TIE)
        return torch.stack([row.double() for row in found])
