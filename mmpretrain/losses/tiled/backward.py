"""The backward sweep: gradients of all sides, from tiles of E that were kept or are computed again.

For rows i of this rank and all columns j, with exp and share of rows and columns (forward.Direction):

    dS_ij = E_ij (exp_i + exp_j) - m_ij (share_i + share_j),   dq = dS k,   dk = dS^T q  (added up over the ranks)

A matrix of one side against itself is symmetric: dS_ij + dS_ji comes from one tile, and its gradient needs no trip.
Hard negatives have no rows of their own: dS_ij = E_ij exp_i. Where an entry is left out in one direction, that one's
exp does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmpretrain.distributed.exchange import RowBlock, exchange
from mmpretrain.losses.tiled.forward import TileName
from mmpretrain.losses.tiled.fused import FusedTiles
from mmpretrain.losses.tiled.left_out import LeftOut
from mmpretrain.losses.tiled.soft import reference_gradient, resemblance, subtract_soft_targets
from mmpretrain.losses.tiled.sweep import FURTHER, Keys, PairPart, Setup, Sweep, Term
from mmpretrain.losses.tiled.tile import Tile

# What travels of every pair: exp and share of rows and of columns, and the mean of soft targets.
ROW_EXP, ROW_SHARE, COLUMN_EXP, COLUMN_SHARE, MEAN = range(5)


class BackwardSweep(Sweep):
    """Runs once over all tiles.

    statistics, counterparts: of the forward sweep. gradients: [terms], by the sum of each pair's losses. needed: which
    sides want a gradient.
    """

    def __init__(
        self,
        setup: Setup,
        sides: Sequence[Tensor],
        statistics: Tensor,
        counterparts: Tensor,
        gradients: Tensor,
        needed: Sequence[bool],
    ) -> None:
        super().__init__(setup, sides, statistics.dtype)
        self.statistics = statistics.clone()
        self.statistics[:, :, :MEAN] *= gradients.to(self.dtype)[:, None]
        self.counterparts = (counterparts * gradients[:, None]).to(self.type)
        self.gradients = [
            torch.zeros_like(side) if wanted else None for side, wanted in zip(sides, needed, strict=True)
        ]
        self.fused = FusedTiles(self) if self.fuses else None
        keys = {term.key for term in setup.terms}
        keys |= {further.side for term in setup.terms for further in term.negatives}
        self._begun: set[tuple[int, int]] = set()  # see _begins
        # Where the gradients of key sides stand in the sums that travel.
        self.sums: dict[int, slice] = {}
        start = 0
        for number in self.places:
            if number in keys and needed[number]:
                self.sums[number] = slice(start, start + sides[number].shape[1])
                start = self.sums[number].stop
        self.sums_width = start

    def run(
        self,
        features: Tensor | None,
        kept: dict[TileName, Tensor],
        bits: dict[TileName, Tensor],
        own_terms: dict[tuple[int, int], Tensor],
    ) -> list[Tensor | None]:
        """The gradient of every side, None where none is needed. features: [N, D], if gathered before. The others: as
        the forward sweep left them."""
        traveling = [] if features is not None else [self.traveling()]
        payload = [self.statistics, *traveling, *self.payload()]
        self.kept, self.bits, self.features = kept, bits, features
        world, ring = self.setup.world, self.setup.ring
        home = exchange(payload, self.sums_width, self._visit, world=world, ring=ring, dtype=self.type)
        for number, place in self.sums.items():
            self._total(number).add_(home[:, place])
        for term, weight in zip(self.setup.terms, self.counterparts, strict=True):
            for side, other in ((term.query, term.key), (term.key, term.query)):
                total = self.gradients[side]
                if total is not None:
                    total.addcmul_(weight[:, None], self.sides[other].to(self.type))
        for (number, which), exponentials in own_terms.items():
            self._own_negatives(number, which, exponentials)
        return self.gradients

    def _visit(self, block: RowBlock) -> None:
        statistics, *rest = block.rows
        features = self.features if self.features is not None else rest.pop(0)
        keys = self.keys(features, rest)
        for tile in self.tiles(block):
            for number, term in enumerate(self.setup.terms):
                own, other = self.statistics[tile.rows, number].T, statistics[tile.columns, number].T
                self._cross(number, term, tile, keys, block.sums, own, other)
                for place in range(len(term.negatives) if self.setup.everyones else 0):
                    self._further(number, term, place, tile, keys, block.sums, own)
            for served in self.own_sides:
                self._same_side(served, tile, keys, statistics)

    def _cross(self, number: int, term: Term, tile: Tile, keys: Keys, sums: Tensor, own: Tensor, other: Tensor) -> None:
        weights = self._weights(self._cross_gradient(number, term, tile, keys, own, other))
        self._add_rows(term.query, tile, weights, keys.side(term.key, tile.columns))
        if term.key in self.sums:
            total = sums[tile.columns, self.sums[term.key]]
            # Around a ring a block's sums have begun on other ranks.
            first = self._begins(~term.key, tile.columns) and not self.setup.ring and total.is_contiguous()
            self.arithmetic.add_product(total, weights.T, self.sides[term.query][tile.rows], first=first)

    def _cross_gradient(self, number: int, term: Term, tile: Tile, keys: Keys, own: Tensor, other: Tensor) -> Tensor:
        """The derivative by S [t, c], in scratch memory; what soft targets' reference has of it is added to its own."""
        exp, share = (own[ROW_EXP], other[COLUMN_EXP]), (own[ROW_SHARE], other[COLUMN_SHARE])
        weights = None
        if self.fused is not None:
            gradient = self.fused.gradient(number, PairPart.cross, tile, keys, self._kept(number, 0, tile), exp, share)
        else:
            hidden = self.hidden(number, PairPart.cross, tile, keys)
            gradient = self._gradient(number, term, PairPart.cross, tile, keys, hidden, *exp)
            if term.reference is not None:
                weights = subtract_soft_targets(self, number, tile, keys, gradient, *share)
            about = keys.about(number, PairPart.cross, tile.columns)
            term.rule.subtract(tile, gradient, hidden, about, *share)
        reference = term.reference
        if reference is not None and not reference.detach and self.gradients[reference.side] is not None:
            weights = resemblance(self, number, tile, keys) if weights is None else weights
            self._reference(term, tile, keys, weights, own, other)
        return gradient

    def _weights(self, gradient: Tensor) -> Tensor:
        """A tile's gradient as products take it; where its similarities lay, if they are rounded."""
        if gradient.dtype is torch.bfloat16 or not (self.arithmetic.rounded and gradient.is_cuda):
            return self.arithmetic.weights(gradient)
        height, width = gradient.shape
        return self.arithmetic.weights(gradient, self.scratch.take("similarities", (height, width), self.type))

    def _add_rows(self, side: int, tile: Tile, weights: Tensor, keys: Tensor) -> None:
        """Add ``weights @ keys`` to the gradient of the tile's rows of a side, if it wants one."""
        total = self.gradients[side]
        if total is not None:
            first = self._begins(side, tile.rows) and self.whole(tile)
            self.arithmetic.add_product(total[tile.rows], weights, keys, first=first)

    def _begins(self, side: int, rows: slice) -> bool:
        """Whether this is the first tile that adds to the gradient of these rows of a side, or, as ``~side``, of these
        columns."""
        new = (side, rows.start) not in self._begun
        self._begun.add((side, rows.start))
        return new

    def _same_side(self, served: Sequence[tuple[int, PairPart]], tile: Tile, keys: Keys, statistics: Tensor) -> None:
        """Gradients of a tile of one side against itself, for all pairs that it serves."""
        number, part = served[0]
        term = self.setup.terms[number]
        side = term.query if part is PairPart.query_side else term.key
        if self.gradients[side] is None:
            return
        own, other = (_served(of, served) for of in (self.statistics[tile.rows], statistics[tile.columns]))
        # Where several pairs are served, none has further targets.
        if self.fused is not None:
            kept = self._kept(number, part, tile)
            gradient = self.fused.gradient(number, part, tile, keys, kept, (own[0], other[0]), (own[1], other[1]))
        else:
            hidden = self.hidden(number, part, tile, keys)
            gradient = self._gradient(number, term, part, tile, keys, hidden, own[0], other[0])
            term.rule.subtract(tile, gradient, hidden, keys.about(number, part, tile.columns), own[1], other[1])
        self._add_rows(side, tile, self._weights(gradient), keys.side(side, tile.columns))

    def _further(self, number: int, term: Term, place: int, tile: Tile, keys: Keys, sums: Tensor, own: Tensor) -> None:
        further = term.negatives[place]
        side, part = term.rows_of(further), FURTHER + place
        exp = own[COLUMN_EXP if further.of_query else ROW_EXP]
        if self.fused is not None:
            kept = self._kept(number, part, tile)
            gradient = self.fused.gradient(number, part, tile, keys, kept, (exp, None), None)
        else:
            gradient = self._further_gradient(number, term, part, tile, keys, exp)
        weights = self._weights(gradient)
        self._add_rows(side, tile, weights, keys.side(further.side, tile.columns))
        if further.side in self.sums:
            negatives = sums[tile.columns, self.sums[further.side]]
            self.arithmetic.add_product(negatives, weights.T, self.sides[side][tile.rows])

    def _further_gradient(self, number: int, term: Term, part: int, tile: Tile, keys: Keys, exp: Tensor) -> Tensor:
        """E_ij exp_i [t, c], in scratch memory."""
        exponentials = self._kept(number, part, tile)
        if exponentials is None:
            similarities = self.product("similarities", *self.sides_of(term, part), tile, keys)
            hidden = self.hidden_negatives(number, part - FURTHER, tile, keys)
            if hidden is not None:
                similarities.masked_fill_(hidden, -torch.inf)
            exponentials = self.pointwise.shifted(similarities, self.shifts[number])
        gradient = self.scratch.take("gradient", tile.shape, self.dtype)
        if (out := self._left_out(number, part, tile)) is None:
            torch.mul(exponentials, exp[:, None], out=gradient)
        else:
            out.weighted(exponentials, exp, exp, gradient)
        return gradient

    def _own_negatives(self, number: int, place: int, exponentials: Tensor) -> None:
        """Gradients of rows that see no hard negatives but their own, and of these."""
        term = self.setup.terms[number]
        further = term.negatives[place]
        side = term.rows_of(further)
        exp = self.statistics[:, number, COLUMN_EXP if further.of_query else ROW_EXP]
        weight = (exponentials * exp).to(self.type)[:, None]
        for one, other in ((side, further.side), (further.side, side)):
            total = self.gradients[one]
            if total is not None:
                total.addcmul_(weight, self.sides[other].to(self.type))

    def _kept(self, number: int, part: int, tile: Tile) -> Tensor | None:
        return self.kept.get((number, part, tile.first_row, tile.first_column))

    def _left_out(self, number: int, part: int, tile: Tile) -> LeftOut | None:
        bits = self.bits.get((number, part, tile.first_row, tile.first_column))
        return None if bits is None else LeftOut.unpacked(bits, tile.shape[1])

    def _gradient(
        self,
        number: int,
        term: Term,
        part: PairPart,
        tile: Tile,
        keys: Keys,
        hidden: Tensor | None,
        rows: Tensor,
        columns: Tensor,
    ) -> Tensor:
        """E_ij (rows_i + columns_j) [t, c], in scratch memory."""
        out = self.scratch.take("gradient", tile.shape, self.dtype)
        left_out = self._left_out(number, part, tile)
        exponentials = self._kept(number, part, tile)
        if exponentials is not None and left_out is None:
            return self.pointwise.weighted(exponentials, rows, columns, out)
        if exponentials is None:
            similarities = self.similarities(term, part, tile, keys)
            self.mask(similarities, hidden, tile)
            if left_out is not None:
                exponentials = self.pointwise.shifted(similarities, self.shifts[number])
        if left_out is not None and exponentials is not None:
            return left_out.weighted(exponentials, rows, columns, out)
        return self.pointwise.gradient(similarities, self.shifts[number], rows, columns, out)

    def _reference(self, term: Term, tile: Tile, keys: Keys, weights: Tensor, own: Tensor, other: Tensor) -> None:
        assert term.reference is not None
        side = term.reference.side
        forth = self.product("forth", term.query, term.key, tile, keys)
        both = forth + self.product("back", term.key, term.query, tile, keys)
        gradient = reference_gradient(weights, both, (own[ROW_SHARE], own[MEAN]), (other[ROW_SHARE], other[MEAN]))
        self._add_rows(side, tile, self.arithmetic.weights(gradient), keys.side(side, tile.columns))

    def _total(self, side: int) -> Tensor:
        total = self.gradients[side]
        assert total is not None
        return total


def _served(statistics: Tensor, served: Sequence[tuple[int, PairPart]]) -> Tensor:
    """[rows, terms, 5] -> [2, rows]: exp and share of a side's own matrix, added up over the pairs that it serves."""
    found = [statistics[:, n, :2] if part is PairPart.query_side else statistics[:, n, 2:4] for n, part in served]
    total = found[0]
    for more in found[1:]:
        total = total + more
    return total.T
