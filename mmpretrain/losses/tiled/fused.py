"""A sweep's tiles as the kernels of losses/fused take them: the same matrices, masks and targets, as plain tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmpretrain.config.objective import Fused
from mmpretrain.losses.fused.arguments import Masks, Matrix, Place, Targets, flags
from mmpretrain.losses.tiled.sweep import FURTHER, Keys, PairPart, Sweep, Term, column_side
from mmpretrain.losses.tiled.target_rules import LabelRule, MixupRule
from mmpretrain.losses.tiled.tile import Tile

if TYPE_CHECKING:
    from mmpretrain.losses.fused.launch import Numbers


class FusedTiles:
    """Tiles of ``sweep`` through the kernels, which are imported (and with them triton) when one is made.

    own: [b, terms], similarities of counterparts, of a forward sweep.
    """

    def __init__(self, sweep: Sweep, own: Tensor | None = None) -> None:
        from mmpretrain.losses.fused import launch

        self.launch = launch
        self.sweep, self.own = sweep, own
        choice = sweep.setup.settings.fused
        self.multiplies = sweep.arithmetic.rounded and choice is Fused.auto
        # What the products that follow take: no kernel is needed to round a gradient.
        self.gradient_type = torch.bfloat16 if sweep.arithmetic.rounded else sweep.type
        like = sweep.sides[0].new_empty((), dtype=sweep.dtype)
        self.numbers = [self._numbers(term, like) for term in sweep.setup.terms]

    def forward(
        self, number: int, part: int, tile: Tile, keys: Keys, *, keep: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Sums over columns [t, 4] and, of cross parts, over rows [c, 4], as forward.SUMS has them; E, if kept."""
        term = self.sweep.setup.terms[number]
        cross = part == PairPart.cross
        scores = self._scores(term, part, tile, keys, fresh=keep)
        exponentials = self._room(scores, tile) if keep else None
        own = None
        if cross and self.own is not None and keys.own is not None:
            own = self.launch.Own(self.own[tile.rows, number], keys.own[tile.columns, number])
        rows, columns = self.launch.forward(
            _place(tile, part),
            scores,
            self._masks(number, part, tile, keys),
            self._targets(number, part, tile, keys),
            own,
            self.numbers[number],
            columns=cross,
            keep=exponentials,
        )
        return rows.T, None if columns is None else columns.T, exponentials

    def gradient(
        self,
        number: int,
        part: int,
        tile: Tile,
        keys: Keys,
        kept: Tensor | None,
        exp: tuple[Tensor, Tensor | None],
        share: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """E_ij (exp_i + exp_j) - m_ij (share_i + share_j) [t, c], in scratch memory, in the type of products."""
        sweep, term = self.sweep, self.sweep.setup.terms[number]
        targets = Targets() if share is None else self._targets(number, part, tile, keys)
        return self.launch.backward(
            _place(tile, part),
            Matrix(None, 0, None, 0, None, 0, 0) if kept is not None else self._scores(term, part, tile, keys),
            kept,
            self._masks(number, part, tile, keys),
            targets,
            self.launch.Weights(*exp, *(share if share is not None and targets.any else (None, None))),
            self.numbers[number],
            sweep.scratch.take("gradient", tile.shape, self.gradient_type),
        )

    def _scores(self, term: Term, part: int, tile: Tile, keys: Keys, *, fresh: bool = False) -> Matrix:
        row_side, column_side = self.sweep.sides_of(term, part)
        if self.multiplies:
            return Matrix.product(self.sweep.sides[row_side][tile.rows], keys.side(column_side, tile.columns))
        return Matrix.of(self.sweep.product("" if fresh else "similarities", row_side, column_side, tile, keys))

    def _room(self, scores: Matrix, tile: Tile) -> Tensor:
        """Where E that is kept goes: over the similarities, where these were made for it."""
        sweep = self.sweep
        if scores.entries is not None and scores.entries.dtype is sweep.dtype:
            return scores.entries
        return sweep.sides[0].new_empty(tile.shape, dtype=sweep.dtype)

    def _masks(self, number: int, part: int, tile: Tile, keys: Keys) -> Masks:
        term = self.sweep.setup.terms[number]
        first = more = ids = None
        if term.contents is not None:
            assert keys.ids is not None
            first, ids = term.contents[0][tile.rows], keys.ids[tile.columns]
            if part == PairPart.cross and len(term.contents) > 1:
                more = term.contents[1][tile.rows]
        rows = columns = None
        if part >= FURTHER:
            valid = keys.negatives_valid.get((number, part - FURTHER))
            columns = None if valid is None else valid[tile.columns]
        elif term.valid is not None:
            rows = term.valid[tile.rows, int(part == PairPart.key_side)]
            columns = keys.valid[number][tile.columns, column_side(PairPart(part))]
        return Masks(first, more, ids, flags(rows), flags(columns))

    def _targets(self, number: int, part: int, tile: Tile, keys: Keys) -> Targets:
        term = self.sweep.setup.terms[number]
        if part >= FURTHER:
            return Targets()
        if isinstance(term.rule, LabelRule):
            assert keys.labels is not None
            labels = keys.labels[tile.columns, number].contiguous()
            return Targets(row_labels=term.rule.labels[tile.rows].contiguous(), column_labels=labels)
        if isinstance(term.rule, MixupRule):
            rule, rows = term.rule, tile.rows
            weight = (rule.other * rule.paired)[rows]
            return Targets(partner=rule.partner[rows].contiguous(), other=rule.other[rows].contiguous(), weight=weight)
        if term.reference is None:
            return Targets()
        side = term.reference.side
        alike = self.sweep.product("resemblance", side, side, tile, keys)
        paired: tuple[Tensor | None, Tensor | None] = (None, None)
        if term.valid is not None:
            paired = flags(term.valid[tile.rows].all(dim=1)), flags(keys.valid[number][tile.columns].all(dim=1))
        return Targets(alike=alike, alike_stride=alike.stride(0), row_paired=paired[0], column_paired=paired[1])

    def _numbers(self, term: Term, like: Tensor) -> Numbers:
        reference: Tensor | float = 0.0
        if term.reference is not None:
            reference = self.sweep.shift(term.reference.bound)
        tolerance = self.sweep.tolerance(term.bound)
        return self.launch.Numbers.of(self.sweep.shift(term.bound), tolerance, reference, like)


def _place(tile: Tile, part: int) -> Place:
    return Place(*tile.shape, tile.first_row, tile.first_column, hides_own=part < FURTHER)
