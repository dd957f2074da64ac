"""The forward sweep: sums over tiles, and what the losses and the backward sweep take from them.

With E_ij = exp(S_ij - shift) and the own counterpart left out of all sums (rows i here, columns j alike):

    D_i = L_i - S_ii = log(1 + sum_j E_ij / E_ii)                     L_i: log-sum-exp of row i
    loss_i = w_i D_i - share_i (sim_i - mass_i S_ii),                 w_i = own_i + share_i mass_i   (rules.py)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.distributed.exchange import RowBlock, exchange
from mmpretrain.losses.tiled.soft import add_soft_targets
from mmpretrain.losses.tiled.sweep import Keys, PairPart, Setup, Sweep, Term
from mmpretrain.losses.tiled.target_rules import Entries
from mmpretrain.losses.tiled.tile import FLOOR, Tile

EXP, ABOVE = 2, 3  # further columns of the sums: of E, and of rows at least as near as the own counterpart
SUMS = 4

TileName = tuple[int, PairPart, int, int]  # term, part, first row, first column


@dataclass
class Direction:
    """The rows (or the columns, at home) of one pair: [b] each, of the type of the sums.

    exp: w / sum of E, the own counterpart included: P = exp_i E_ij. share: weight of further targets. sim: as summed.
    counterpart: the loss's derivative by S_ii. above: rows at least as near as the counterpart. lowest: scalar, the
    smallest sum of E.
    """

    loss: Tensor
    exp: Tensor
    share: Tensor
    sim: Tensor
    counterpart: Tensor
    above: Tensor
    lowest: Tensor


class ForwardSweep(Sweep):
    """Runs once over all tiles. kept: tiles of E, up to ``budget`` bytes. features: [N, D], if gathered."""

    def __init__(self, setup: Setup, sides: Sequence[Tensor], dtype: torch.dtype, budget: int) -> None:
        super().__init__(setup, sides, dtype)
        count = len(setup.terms)
        # Of the same rounded rows as all other similarities, or counterparts would be off against them.
        used = [side.to(self.type) for side in self.sides]
        self.own = torch.stack([torch.linalg.vecdot(used[t.query], used[t.key]) for t in setup.terms], dim=1)
        self.rows = self.own.new_zeros(count, self.count, SUMS, dtype=dtype)
        self.key_rows = torch.zeros_like(self.rows)
        self.kept: dict[TileName, Tensor] = {}
        self.features: Tensor | None = None
        self._budget = budget

    def run(self) -> list[tuple[Direction, Direction]]:
        """Rows and columns of every pair."""
        payload = [self.traveling(), *([self.own] if self.setup.metrics else []), *self.payload()]
        width = SUMS * len(self.setup.terms)
        world, ring = self.setup.world, self.setup.ring
        home = exchange(payload, width, self._visit, world=world, ring=ring, dtype=self.dtype)
        columns = home.view(self.count, -1, SUMS).transpose(0, 1) + self.key_rows
        return [
            (self._direction(term, rows, own, term.ways[0]), self._direction(term, cols, own, term.ways[1]))
            for term, rows, cols, own in zip(self.setup.terms, self.rows, columns, self.own.T, strict=True)
        ]

    def _visit(self, block: RowBlock) -> None:
        features, *rest = block.rows
        own = rest.pop(0) if self.setup.metrics else None
        keys = self.keys(features, rest)
        keys.own = own
        if not self.setup.ring:
            self.features = features
        columns = block.sums.view(len(block.sums), -1, SUMS)
        for tile in self.tiles(block):
            for number, term in enumerate(self.setup.terms):
                self._cross(number, term, tile, keys, columns[tile.columns, number])
                for part in term.parts[1:]:
                    sums = self.rows if part is PairPart.query_side else self.key_rows
                    self._same_side(number, term, part, tile, keys, sums[number, tile.rows])

    def _cross(self, number: int, term: Term, tile: Tile, keys: Keys, columns: Tensor) -> None:
        rows = self.rows[number, tile.rows]
        keep = self._may_keep(term, tile)
        similarities = self.similarities(term, PairPart.cross, tile, keys, fresh=keep)
        hidden = self.hidden(number, PairPart.cross, tile, keys)
        if term.reference is not None:
            add_soft_targets(self, number, tile, keys, similarities, rows, columns)
        self.mask(similarities, hidden, tile)
        about = keys.about(number, PairPart.cross, tile.columns)
        targets = term.rule.add(tile, similarities, hidden, about, rows, columns)
        self._count_nearer(number, tile, keys, similarities, targets, rows, columns)
        exponentials, row_sums, column_sums = self.pointwise.exponentials(similarities, self.shift(term.bound))
        rows[:, EXP] += row_sums
        columns[:, EXP] += column_sums
        if keep:
            self._keep(number, PairPart.cross, tile, exponentials)

    def _same_side(self, number: int, term: Term, part: PairPart, tile: Tile, keys: Keys, rows: Tensor) -> None:
        keep = self._may_keep(term, tile)
        similarities = self.similarities(term, part, tile, keys, fresh=keep)
        hidden = self.hidden(number, part, tile, keys)
        self.mask(similarities, hidden, tile)
        about = keys.about(number, part, tile.columns)
        # The other half of this symmetric matrix is counted where the columns are rows.
        term.rule.add(tile, similarities, hidden, about, rows, rows.new_zeros(tile.shape[1], SUMS))
        exponentials, row_sums, _ = self.pointwise.exponentials(similarities, self.shift(term.bound))
        rows[:, EXP] += row_sums
        if keep:
            self._keep(number, part, tile, exponentials)

    def _count_nearer(
        self, number: int, tile: Tile, keys: Keys, similarities: Tensor, targets: Entries | None, *sums: Tensor
    ) -> None:
        if keys.own is None:
            return
        # Ties count against a row, within rounding: embeddings that have all become one must not look like success.
        tolerance = 8 * torch.finfo(self.type).eps * self.setup.terms[number].bound
        for total, own, dim in zip(sums, (self.own[tile.rows], keys.own[tile.columns]), (1, 0), strict=True):
            farther = self.scratch.take("farther", tile.shape, self.type)
            torch.sub(similarities, own[:, number].unsqueeze(dim), out=farther).lt_(-tolerance)
            if targets is not None:
                farther[targets] = 1
            # What cannot be compared (nan) is not farther.
            total[:, ABOVE] += tile.shape[dim] - farther.sum(dim)

    def _may_keep(self, term: Term, tile: Tile) -> bool:
        # Soft targets need more than E in the backward sweep.
        size = tile.shape[0] * tile.shape[1] * self.dtype.itemsize
        return term.reference is None and size <= self._budget

    def _keep(self, number: int, part: PairPart, tile: Tile, exponentials: Tensor) -> None:
        self._budget -= exponentials.numel() * exponentials.element_size()
        self.kept[number, part, tile.first_row, tile.first_column] = exponentials

    def _direction(self, term: Term, sums: Tensor, own: Tensor, counted: float) -> Direction:
        mass, sim, off, above = sums.unbind(dim=1)
        own = own.to(self.dtype)
        own_weight, share = (weight * counted for weight in term.rule.weights(mass))
        weight = own_weight + share * mass
        excess = torch.logaddexp(off.log() + (self.shift(term.bound) - own), torch.zeros_like(own))
        total = off + (own - self.shift(term.bound)).exp()
        counts = term.rule.paired * counted > 0
        smallest = total if term.reference is None else torch.minimum(total, mass)
        return Direction(
            loss=weight * excess - share * (sim - mass * own),
            exp=torch.where(counts, weight / torch.where(counts, total, 1), 0),
            share=share,
            sim=sim,
            counterpart=share * mass + weight * torch.expm1(-excess),
            above=above,
            lowest=torch.where(counts, smallest, torch.inf).amin(),
        )

    def metrics(self, directions: list[tuple[Direction, Direction]]) -> tuple[Tensor, Tensor]:
        """Sums over both directions of hits and of ranks, [pairs] each."""
        hits, ranks = [], []
        for term, pair in zip(self.setup.terms, directions, strict=True):
            above, counts = torch.stack([side.above for side in pair]), term.rule.paired
            hits.append((counts * (above == 0)).sum())
            ranks.append((counts * (1 + above)).sum())
        return torch.stack(hits), torch.stack(ranks)

    def underflowed(self, directions: list[tuple[Direction, Direction]]) -> bool:
        """Whether some sum of E, on any rank, is so small that terms of it may be lost."""
        lowest = torch.stack([side.lowest for pair in directions for side in pair]).amin()
        return self.setup.world.max_flag(bool(lowest < FLOOR[self.dtype]))


def statistics(setup: Setup, directions: list[tuple[Direction, Direction]]) -> tuple[Tensor, Tensor]:
    """What the backward sweep needs: [b, terms, 5] (see there), and the derivatives by S_ii [terms, b]."""
    parts = []
    for term, (rows, columns) in zip(setup.terms, directions, strict=True):
        soft = term.reference is not None
        mean = (rows.sim + columns.sim) * rows.share if soft else torch.zeros_like(rows.exp)
        parts.append(torch.stack([rows.exp, rows.share, columns.exp, columns.share, mean], dim=1))
    return torch.stack(parts, dim=1), torch.stack([rows.counterpart + cols.counterpart for rows, cols in directions])
