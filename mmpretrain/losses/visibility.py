"""Which of all ranks' candidates an anchor sees, and how much it counts in the mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.distributed.world import World

Masks = tuple[Tensor | None, Tensor | None]  # bool [b] each, of candidates and of anchors


@dataclass(frozen=True)
class Visible:
    """Of b own anchors and N candidates of all ranks.

    weights: float64 [b], 1 / (number of anchors per rank, on average), 0 for what is no anchor. first: number of the
    own row 0 in the whole batch. candidates: bool [N], or None for all. ids: int64 [b] and [N], or None.
    """

    weights: Tensor
    first: int
    candidates: Tensor | None = None
    ids: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of_terms(cls, masks: Sequence[Masks], rows: Tensor, sample_ids: Tensor | None, world: World) -> list[Visible]:
        """Of each term, from its masks; rows: any tensor [b, ...] of the own samples.

        A collective if there are masks or ids; whether there are must be the same on all ranks.
        """
        count, device = len(rows), rows.device
        ids = None if sample_ids is None else (sample_ids, world.all_gather_rows(sample_ids))
        first = world.rank * count
        even = torch.full((count,), 1 / count, dtype=torch.float64, device=device)
        if all(mask is None for pair in masks for mask in pair):
            return [cls(even, first, None, ids) for _ in masks]
        every = torch.ones(count, dtype=torch.bool, device=device)
        valid = torch.stack([every if mask is None else mask for pair in masks for mask in pair], dim=1)
        everyone = world.all_gather_rows(valid).view(-1, len(masks), 2)
        anchors, counted = valid.view(-1, len(masks), 2).all(dim=2), everyone.all(dim=2).sum(dim=0)
        weights = anchors * world.size / counted.clamp(min=1).to(even)
        return [cls(weights[:, term], first, everyone[:, term, 0], ids) for term in range(len(masks))]

    def hidden(self, rows: slice) -> Tensor | None:
        """bool [t, N]: candidates that these anchors do not see; None: they see all."""
        hidden = None
        if self.ids is not None:
            own, everyone = self.ids
            hidden = own[rows, None] == everyone
            self.counterparts(hidden, rows).fill_(False)
        if self.candidates is not None:
            unseen = ~self.candidates
            hidden = unseen.expand(rows.stop - rows.start, -1) if hidden is None else hidden | unseen
        return hidden

    def counterparts(self, matrix: Tensor, rows: slice) -> Tensor:
        """View [t] of the entries of ``matrix`` [t, N] whose row and column are the same sample."""
        return matrix.diagonal(self.first + rows.start)
