"""The forward sweep: sums over tiles, and what the losses and the backward sweep take from them.

With E_ij = exp(S_ij - shift) and the own counterpart left out of all sums (rows i here, columns j alike):

    D_i = L_i - S_ii = log(1 + sum_j E_ij / E_ii)                     L_i: log-sum-exp of row i
    loss_i = w_i D_i - share_i (sim_i - mass_i S_ii),                 w_i = own_i + share_i mass_i   (rules.py)

Hard negatives are further columns j that are in the sums of rows alone. What is left out (left_out.py) is in none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.distributed.exchange import RowBlock, exchange
from mmpretrain.losses.tiled.fused import FusedTiles
from mmpretrain.losses.tiled.left_out import LeftOut
from mmpretrain.losses.tiled.soft import add_soft_targets
from mmpretrain.losses.tiled.sweep import FURTHER, Keys, PairPart, Setup, Sweep, Term
from mmpretrain.losses.tiled.target_rules import Entries, Places
from mmpretrain.losses.tiled.tile import FLOOR, Tile

EXP, FARTHER = 2, 3  # further columns of the sums: of E, and of rows farther than the own counterpart
SUMS = 4

TileName = tuple[int, int, int, int]  # term, part, first row, first column


@dataclass
class Direction:
    """The rows (or the columns, at home) of one pair: [b] each, of the type of the sums.

    exp: w / sum of E, the own counterpart included: P = exp_i E_ij. share: weight of further targets. sim: as summed.
    counterpart: the loss's derivative by S_ii. above: rows at least as near as the counterpart. lowest: scalar, the
    smallest sum of E, which may have lost terms if it is below the type's FLOOR.
    """

    loss: Tensor
    exp: Tensor
    share: Tensor
    sim: Tensor
    counterpart: Tensor
    above: Tensor
    lowest: Tensor


class ForwardSweep(Sweep):
    """Runs once over all tiles. kept: tiles of E, up to ``budget`` bytes. bits: of each tile, what is left out of it.
    own_terms: E of hard negatives that only their own rows see, [b] each, by term and place. features: [N, D], if
    gathered. budget: None where no backward sweep follows.
    """

    def __init__(self, setup: Setup, sides: Sequence[Tensor], dtype: torch.dtype, budget: int | None) -> None:
        super().__init__(setup, sides, dtype)
        count = len(setup.terms)
        # Of the same rounded rows as all other similarities, or counterparts would be off against them.
        used = [side.to(self.type) for side in self.sides]
        self.own = torch.stack([torch.linalg.vecdot(used[t.query], used[t.key]) for t in setup.terms], dim=1)
        self.within = self.tolerance(setup.terms[0].bound)  # of one call, all pairs have one scale
        self.nearest: Tensor | None = None  # [b, terms]: what is below it is farther than the own counterpart
        self.rows = self.own.new_zeros(count, self.count, SUMS, dtype=dtype)
        self.key_rows = torch.zeros_like(self.rows)
        self.fused = FusedTiles(self, self.own) if self.fuses else None
        self.kept: dict[TileName, Tensor] = {}
        self.bits: dict[TileName, Tensor] = {}
        self.own_terms: dict[tuple[int, int], Tensor] = {}
        self.features: Tensor | None = None
        self._budget, self._followed = budget or 0, budget is not None
        # On a GPU, sums of a block's columns by strip, [strips, kinds, n] of each term, which are added up at its end.
        self._by_strip = self.own.is_cuda and not (self.fused or setup.margins or self.pointwise.compiled)
        self._parts: dict[int, Tensor] = {}
        self._strip = 0
        # Of each term, how many entries are left out, and how many there would be.
        self.left_out = torch.zeros(2, count, dtype=torch.float64, device=self.own.device)

    def run(self) -> list[tuple[Direction, Direction]]:
        """Rows and columns of every pair."""
        sends_own = self.setup.metrics or self.setup.margins
        payload = [self.traveling(), *([self.own] if sends_own else []), *self.payload()]
        width = SUMS * len(self.setup.terms)
        world, ring = self.setup.world, self.setup.ring
        home = exchange(payload, width, self._visit, world=world, ring=ring, dtype=self.dtype)
        if not self.setup.everyones:
            self._add_own_terms()
        columns = home.view(self.count, -1, SUMS).transpose(0, 1) + self.key_rows
        return [self._directions(number, columns[number]) for number in range(len(self.setup.terms))]

    def _visit(self, block: RowBlock) -> None:
        features, *rest = block.rows
        own = rest.pop(0) if self.setup.metrics or self.setup.margins else None
        keys = self.keys(features, rest)
        keys.own = own
        if own is not None:
            # Ties count against a row, within rounding: embeddings that have all become one must not look like success.
            keys.nearest = own - self.within
            if self.nearest is None:
                self.nearest = self.own - self.within
        if not self.setup.ring:
            self.features = features
        columns = block.sums.view(len(block.sums), -1, SUMS)
        strips = list(self.tiles(block))
        if self._by_strip and len(strips) > 1 and self.whole(strips[0]):
            shape = len(strips), 1 if own is None else 2, len(columns)
            self._parts = {number: columns.new_empty(shape) for number in range(len(self.setup.terms))}
        for self._strip, tile in enumerate(strips):
            for number, term in enumerate(self.setup.terms):
                self._cross(number, term, tile, keys, columns[tile.columns, number])
                for place in range(len(term.negatives) if self.setup.everyones else 0):
                    self._further(number, term, place, tile, keys)
            for served in self.own_sides:
                self._same_side(served, tile, keys)
        for number, parts in self._parts.items():
            columns[:, number, EXP : EXP + parts.shape[1]].add_(parts.sum(0).T)

    def _part(self, number: int, kind: int) -> Tensor | None:
        """Where this strip's sums of columns go, [n] (kind: EXP or FARTHER); None: to those of the strips before."""
        return self._parts[number][self._strip, kind - EXP] if self._parts else None

    def _cross(self, number: int, term: Term, tile: Tile, keys: Keys, columns: Tensor) -> None:
        rows = self.rows[number, tile.rows]
        keep = self._may_keep(term, tile)
        if self.fused is not None:
            self._add_fused(number, PairPart.cross, tile, keys, keep, [rows], columns)
            return
        similarities = self.similarities(term, PairPart.cross, tile, keys, fresh=keep)
        hidden = self.hidden(number, PairPart.cross, tile, keys)
        if term.reference is not None:
            add_soft_targets(self, number, tile, keys, similarities, rows, columns)
        self.mask(similarities, hidden, tile)
        about = keys.about(number, PairPart.cross, tile.columns)
        targets = term.rule.add(tile, similarities, hidden, about, rows, columns)
        self._count_nearer(number, tile, keys, similarities, targets, rows, columns)
        out = self._leave_out(number, PairPart.cross, tile, keys, similarities)
        if out is None and not self.pointwise.compiled:
            exponentials = self.pointwise.shifted(similarities, self.shifts[number])
            part = self._part(number, EXP)
            self.pointwise.add_sums(exponentials, rows[:, EXP], columns[:, EXP], first=self.whole(tile), part=part)
        else:
            exponentials, row_sums, column_sums = self._exponentials(number, similarities, out)
            assert column_sums is not None
            rows[:, EXP].add_(row_sums)
            columns[:, EXP].add_(column_sums)
        if keep:
            self._keep(number, PairPart.cross, tile, exponentials)

    def _same_side(self, served: Sequence[tuple[int, PairPart]], tile: Tile, keys: Keys) -> None:
        """Add a tile of one side against itself to the rows' sums of all pairs that it serves."""
        number, part = served[0]
        term = self.setup.terms[number]
        sums = [(self.rows if p is PairPart.query_side else self.key_rows)[n, tile.rows] for n, p in served]
        keep = self._may_keep(term, tile)
        if self.fused is not None:
            self._add_fused(number, part, tile, keys, keep, sums)
            return
        similarities = self.similarities(term, part, tile, keys, fresh=keep)
        hidden = self.hidden(number, part, tile, keys)
        self.mask(similarities, hidden, tile)
        about = keys.about(number, part, tile.columns)
        # The other half of this symmetric matrix is counted where the columns are rows.
        term.rule.add(tile, similarities, hidden, about, sums[0], sums[0].new_zeros(tile.shape[1], SUMS))
        out = self._leave_out(number, part, tile, keys, similarities)
        exponentials, row_sums, _ = self._exponentials(number, similarities, out)
        for rows in sums:
            rows[:, EXP].add_(row_sums)
        if keep:
            self._keep(number, part, tile, exponentials)

    def _further(self, number: int, term: Term, place: int, tile: Tile, keys: Keys) -> None:
        """Add a tile of hard negatives to the sums of the rows that see them."""
        further = term.negatives[place]
        keep = self._may_keep(term, tile)
        if self.fused is not None:
            rows = (self.key_rows if further.of_query else self.rows)[number, tile.rows]
            self._add_fused(number, FURTHER + place, tile, keys, keep, [rows])
            return
        similarities = self.product("" if keep else "similarities", term.rows_of(further), further.side, tile, keys)
        hidden = self.hidden_negatives(number, place, tile, keys)
        if hidden is not None:
            similarities.masked_fill_(hidden, -torch.inf)
        out = self._leave_out(number, FURTHER + place, tile, keys, similarities)
        exponentials, row_sums, _ = self._exponentials(number, similarities, out)
        (self.key_rows if further.of_query else self.rows)[number, tile.rows, EXP].add_(row_sums)
        if keep:
            self._keep(number, FURTHER + place, tile, exponentials)

    def _add_fused(
        self,
        number: int,
        part: int,
        tile: Tile,
        keys: Keys,
        keep: bool,
        rows: Sequence[Tensor],
        columns: Tensor | None = None,
    ) -> None:
        """Add a tile, by one kernel, to sums of its rows ([t, SUMS] each) and of its columns [c, SUMS]."""
        assert self.fused is not None
        row_sums, column_sums, exponentials = self.fused.forward(number, part, tile, keys, keep=keep)
        for sums in rows:
            sums.add_(row_sums)
        if columns is not None and column_sums is not None:
            columns.add_(column_sums)
        if exponentials is not None:
            self._keep(number, part, tile, exponentials)

    def _add_own_terms(self) -> None:
        """Add each row's own hard negatives to its sums, where it sees no others: no tiles, nothing travels."""
        for number, term in enumerate(self.setup.terms):
            for place, further in enumerate(term.negatives):
                rows, negatives = (self.sides[n].to(self.type) for n in (term.rows_of(further), further.side))
                similarities = torch.linalg.vecdot(rows, negatives)
                if further.valid is not None:
                    similarities = similarities.masked_fill(~further.valid, -torch.inf)
                if term.margin is not None:
                    out = similarities > self._threshold(term, self.own[:, number])
                    self._count(number, out[:, None], similarities[:, None], term.rule.paired)
                    similarities = similarities.masked_fill(out, -torch.inf)
                exponentials = self.pointwise.shifted(similarities, self.shifts[number])
                (self.key_rows if further.of_query else self.rows)[number, :, EXP] += exponentials
                if self._followed:
                    self.own_terms[number, place] = exponentials

    def _exponentials(
        self, number: int, similarities: Tensor, out: LeftOut | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """E [t, c], and its sums over columns [t] and over rows [c] without what is left out."""
        if out is None:
            return self.pointwise.exponentials(similarities, self.shifts[number])
        exponentials = self.pointwise.shifted(similarities, self.shifts[number])
        return exponentials, *out.sums(exponentials)

    def _leave_out(self, number: int, part: int, tile: Tile, keys: Keys, similarities: Tensor) -> LeftOut | None:
        """What the pair's margin leaves out of a tile whose hidden entries are -inf; noted for the backward sweep."""
        term = self.setup.terms[number]
        if term.margin is None:
            return None
        assert keys.own is not None
        rows = similarities > self._threshold(term, self.own[tile.rows, number])[:, None]
        columns = None
        if part < FURTHER:
            columns = similarities > self._threshold(term, keys.own[tile.columns, number])
        if self.setup.metrics:
            self._count(number, rows, similarities, term.rule.paired[tile.rows])
            if part == PairPart.cross and columns is not None and not term.one_way:
                paired = keys.valid[number][tile.columns].all(dim=1) if number in keys.valid else None
                self._count(number, columns.T, similarities.T, paired)
        out = LeftOut(rows, columns)
        if self._followed:
            self.bits[number, part, tile.first_row, tile.first_column] = out.packed()
        return out

    def _threshold(self, term: Term, own: Tensor) -> Tensor:
        """Above which similarity [t] an entry is left out, given those of own counterparts [t]."""
        assert term.margin is not None
        # Within rounding is not above: copies of a counterpart are treated alike in tiles of any size.
        return own + (term.margin + self.tolerance(term.bound))

    def _count(self, number: int, out: Tensor, similarities: Tensor, paired: Tensor | None) -> None:
        """Count what is left out [t, c], and what is visible, of rows that count (paired [t]; None: all)."""
        counts = torch.stack([out.sum(dim=1), (similarities > -torch.inf).sum(dim=1)])
        self.left_out[:, number] += (counts if paired is None else counts * paired).sum(dim=1)

    def _count_nearer(
        self, number: int, tile: Tile, keys: Keys, similarities: Tensor, targets: Entries | None, *sums: Tensor
    ) -> None:
        if keys.own is None:
            return
        assert self.nearest is not None and keys.nearest is not None
        nearest = self.nearest[tile.rows, number], keys.nearest[tile.columns, number]
        for total, least, dim in zip(sums, nearest, (1, 0), strict=True):
            farther = self.scratch.take("farther", tile.shape, self.type)
            torch.lt(similarities, least.unsqueeze(dim), out=farther)
            if isinstance(targets, Places):
                targets.put(farther, 1)
            elif targets is not None:
                farther[targets] = 1
            # What cannot be compared (nan) is not farther.
            if dim == 1 and self.whole(tile):
                torch.sum(farther, dim, dtype=total.dtype, out=total[:, FARTHER])
            elif dim == 0 and (part := self._part(number, FARTHER)) is not None:
                torch.sum(farther, dim, dtype=part.dtype, out=part)
            else:
                total[:, FARTHER].add_(farther.sum(dim))

    def _may_keep(self, term: Term, tile: Tile) -> bool:
        # Soft targets need more than E in the backward sweep.
        size = tile.shape[0] * tile.shape[1] * self.dtype.itemsize
        return term.reference is None and size <= self._budget

    def _keep(self, number: int, part: int, tile: Tile, exponentials: Tensor) -> None:
        self._budget -= exponentials.numel() * exponentials.element_size()
        self.kept[number, part, tile.first_row, tile.first_column] = exponentials

    def _directions(self, number: int, columns: Tensor) -> tuple[Direction, Direction]:
        """Rows and columns [b, SUMS] of one pair, worked on together."""
        term, shift = self.setup.terms[number], self.shifts[number]
        mass, sim, off, farther = torch.stack([self.rows[number], columns]).unbind(dim=2)
        own, counted = self.own[:, number].to(self.dtype), term.rule.paired
        own_weight, share = term.rule.weights(mass)
        if term.one_way:
            counted = counted * _one_way(own)
            own_weight, share = own_weight * _one_way(own), share * _one_way(own)
        weight, counts = own_weight + share * mass, counted > 0
        excess = torch.logaddexp(off.log() + (shift - own), torch.zeros_like(off))
        total = off + (own - shift).exp()
        smallest = total if term.reference is None else torch.minimum(total, mass)
        lowest = torch.where(counts, smallest, torch.inf).amin()
        parts = {
            "loss": weight * excess - share * (sim - mass * own),
            "exp": torch.where(counts, weight / torch.where(counts, total, 1), 0),
            "share": share,
            "sim": sim,
            "counterpart": share * mass + weight * torch.expm1(-excess),
            "above": self.setup.world.size * self.count - farther,
        }
        rows, cols = (
            Direction(**{name: part.expand_as(off)[way] for name, part in parts.items()}, lowest=lowest)
            for way in range(2)
        )
        return rows, cols

    def metrics(self, directions: list[tuple[Direction, Direction]]) -> tuple[Tensor, Tensor]:
        """Sums over both directions of hits and of ranks, [pairs] each."""
        hits, ranks = [], []
        for term, pair in zip(self.setup.terms, directions, strict=True):
            above, counts = torch.stack([side.above for side in pair]), term.rule.paired
            hits.append((counts * (above == 0)).sum())
            ranks.append((counts * (1 + above)).sum())
        return torch.stack(hits), torch.stack(ranks)

    def share_left_out(self) -> Tensor:
        """Of all visible entries of each pair, on all ranks and in both directions, how many are left out: [pairs]."""
        out, visible = self.setup.world.all_reduce_sum(self.left_out).unbind()
        return out / visible.clamp(min=1)

    def underflowed(self, directions: list[tuple[Direction, Direction]]) -> Tensor:
        """bool scalar: whether some sum of E on this rank is so small that terms of it may be lost."""
        lowest = torch.stack([side.lowest for pair in directions for side in pair]).amin()
        return lowest < FLOOR[self.dtype]


def statistics(setup: Setup, directions: list[tuple[Direction, Direction]]) -> tuple[Tensor, Tensor]:
    """What the backward sweep needs: [b, terms, 5] (see there), and the derivatives by S_ii [terms, b]."""
    parts = []
    for term, (rows, columns) in zip(setup.terms, directions, strict=True):
        soft = term.reference is not None
        mean = (rows.sim + columns.sim) * rows.share if soft else torch.zeros_like(rows.exp)
        parts.append(torch.stack([rows.exp, rows.share, columns.exp, columns.share, mean], dim=1))
    return torch.stack(parts, dim=1), torch.stack([rows.counterpart + cols.counterpart for rows, cols in directions])


def _one_way(like: Tensor) -> Tensor:
    """[2, 1]: how much rows and columns count where only rows do; made on the device of ``like``."""
    return 2 * (1 - torch.arange(2, dtype=like.dtype, device=like.device))[:, None]
