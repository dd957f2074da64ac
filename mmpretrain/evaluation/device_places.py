"""Places in a retrieval, counted where the model is: the same counts as in numpy, from products of a GPU.

Items are there once, queries come a chunk at a time; what returns are a few numbers of each query. Shapes: m queries,
n items, r rows of a chunk.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmpretrain.evaluation.items import Relation
from mmpretrain.evaluation.similarity import TIE


class DevicePlaces:
    """queries [m, d], items [n, d]: unit rows. classes: of queries [m] and of items [n], or None."""

    def __init__(
        self,
        queries: np.ndarray,
        items: np.ndarray,
        right: Relation,
        classes: tuple[np.ndarray, np.ndarray] | None,
        device: torch.device,
    ) -> None:
        self.queries, self.right, self.device = queries, right, device
        self.items = torch.from_numpy(np.ascontiguousarray(items)).to(device)
        self.classes = None if classes is None else [torch.from_numpy(side).to(device) for side in classes]

    def outcomes(self, rows: slice) -> list[np.ndarray]:
        """Of these queries, [r] each: items nearer than the first right one, those tied with it, right ones among them,
        and with classes whether the nearest item is of the query's."""
        similarity = exact_product(torch.from_numpy(self.queries[rows]).to(self.device), self.items)
        starts = self.right.starts[rows.start : rows.stop + 1]
        mine = np.repeat(np.arange(len(similarity)), np.diff(starts))
        places = torch.from_numpy(np.stack([mine, self.right.right[starts[0] : starts[-1]]])).to(self.device)
        found = similarity[places[0], places[1]].cpu().numpy()
        best = np.maximum.reduceat(found, starts[:-1] - starts[0])
        tied_right = np.bincount(mine, found >= best[mine] - TIE, len(similarity))
        own = torch.from_numpy(best).to(self.device)[:, None]
        ahead = (similarity > own + TIE).sum(dim=1)
        counts = [ahead, (similarity >= own - TIE).sum(dim=1) - ahead]
        if self.classes is not None:
            counts.append(self._same_class(similarity, rows).long())
        first, tied, *same = torch.stack(counts).cpu().numpy()
        return [first, tied, tied_right, *(hits.astype(bool) for hits in same)]

    def _same_class(self, similarity: Tensor, rows: slice) -> Tensor:
        assert self.classes is not None
        same = self.classes[0][rows, None] == self.classes[1]
        nearest = similarity.masked_fill(~same, -torch.inf).amax(dim=1)
        return nearest > similarity.masked_fill(same, -torch.inf).amax(dim=1) + TIE


def exact_product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right.T`` without TF32, whose rounding is a hundred times a tie."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return left @ right.T
    finally:
        torch.set_float32_matmul_precision(before)
