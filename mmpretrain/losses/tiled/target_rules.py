"""Targets inside tiles: which entries belong to a row or column beside its own counterpart, and how much.

All kinds of targets come down to two weights per row, ``own`` of its own counterpart and ``share`` of each unit of
further targets, after the tiles have added up two sums over the further targets j of row i:

    mass_i = sum_j m_ij     sim_i = sum_j m_ij S_ij     P_ij = share_i m_ij     (columns likewise)

Mixup: m is the partner's weight. Labels: m is 1 for equal labels. Soft: m_ij = exp(R_ij - shift), R = scale r r^T.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.losses.tiled.tile import Tile

MASS, SIM = 0, 1  # the columns of the sums that rules add to


@dataclass
class Places:
    """One entry of each of a tile's rows: its column, int64 [t, 1], and bool [t, 1], whether there is one.

    Of a row without one the column is any: no size depends on how many there are, so that no host waits for it.
    """

    columns: Tensor
    there: Tensor

    def put(self, matrix: Tensor, value: float) -> None:
        """``matrix`` [t, c] becomes ``value`` at these entries."""
        found = matrix.gather(1, self.columns)
        matrix.scatter_(1, self.columns, found.masked_fill_(self.there, value))


# Entries of a tile: a bool mask, or one in each row.
Entries = Tensor | Places


@dataclass
class Columns:
    """What a tile's columns [c] say of themselves; None where no rule asks. labels: int64. valid: bool."""

    labels: Tensor | None = None
    valid: Tensor | None = None


@dataclass
class Rule:
    """Diagonal: nothing but the own counterpart. paired: float [b], 1 where both sides of a sample are valid."""

    paired: Tensor

    def add(
        self, tile: Tile, similarities: Tensor, hidden: Tensor | None, columns: Columns, rows: Tensor, cols: Tensor
    ) -> Entries | None:
        """Add mass and sim of a tile [t, c] to ``rows`` [t, 2 or more] and ``cols`` [c, ...]; which entries are."""
        return None

    def subtract(
        self, tile: Tile, gradient: Tensor, hidden: Tensor | None, columns: Columns, rows: Tensor, cols: Tensor
    ) -> None:
        """``gradient -= (rows_i + cols_j) m_ij``; rows [t] and cols [c] are shares."""

    def uncover(self, tile: Tile, hidden: Tensor) -> None:
        """Take further targets out of ``hidden`` (bool [t, c])."""

    def weights(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """(own, share) of rows, columns or both, whose further targets have this ``mass`` [..., b], as share has."""
        return self.paired.to(mass.dtype), torch.zeros_like(mass)


@dataclass
class MixupRule(Rule):
    """own, other: float [b], weights of the own counterpart and of ``partner`` (int64 [b], in the whole batch)."""

    own: Tensor
    other: Tensor
    partner: Tensor

    def add(
        self, tile: Tile, similarities: Tensor, hidden: Tensor | None, columns: Columns, rows: Tensor, cols: Tensor
    ) -> Entries | None:
        """See :meth:`Rule.add`."""
        places, weight = self._inside(tile, self.other * self.paired, columns)
        found = similarities.gather(1, places.columns).masked_fill_(~places.there, 0)
        parts = torch.cat([weight, weight * found], dim=1).to(rows.dtype)
        rows[:, : SIM + 1].add_(parts)
        cols[:, : SIM + 1].index_add_(0, places.columns[:, 0], parts)
        return places

    def subtract(
        self, tile: Tile, gradient: Tensor, hidden: Tensor | None, columns: Columns, rows: Tensor, cols: Tensor
    ) -> None:
        """See :meth:`Rule.subtract`."""
        places, weight = self._inside(tile, self.other * self.paired, columns)
        off = (rows[:, None] + cols[places.columns]) * weight
        gradient.scatter_(1, places.columns, (gradient.gather(1, places.columns) - off).to(gradient.dtype))

    def uncover(self, tile: Tile, hidden: Tensor) -> None:
        """See :meth:`Rule.uncover`."""
        places, _ = self._inside(tile, self.other, Columns())
        places.put(hidden, False)

    def weights(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Rule.weights`."""
        return (self.own * self.paired).to(mass.dtype), self.paired.to(mass.dtype).expand_as(mass)

    def _inside(self, tile: Tile, weights: Tensor, columns: Columns) -> tuple[Places, Tensor]:
        """The partners that stand in the tile, and their weights [t, 1], 0 in rows whose partner does not."""
        place = self.partner[tile.rows] - tile.first_column
        weights = weights[tile.rows]
        inside = (place >= 0) & (place < tile.shape[1]) & (weights > 0)
        place = place.clamp(0, tile.shape[1] - 1)
        if columns.valid is not None:
            inside &= columns.valid[place]
        return Places(place[:, None], inside[:, None]), weights.masked_fill(~inside, 0)[:, None]


@dataclass
class LabelRule(Rule):
    """labels: int64 [b], the class of each sample."""

    labels: Tensor

    def add(
        self, tile: Tile, similarities: Tensor, hidden: Tensor | None, columns: Columns, rows: Tensor, cols: Tensor
    ) -> Entries | None:
        """See :meth:`Rule.add`."""
        equal = self._equal(tile, hidden, columns)
        seen = torch.where(equal, similarities, 0)
        for total, dim in ((rows, 1), (cols, 0)):
            total[:, MASS] += equal.sum(dim)
            total[:, SIM] += seen.sum(dim)
        return equal

    def subtract(
        self, tile: Tile, gradient: Tensor, hidden: Tensor | None, columns: Columns, rows: Tensor, cols: Tensor
    ) -> None:
        """See :meth:`Rule.subtract`."""
        gradient -= torch.where(self._equal(tile, hidden, columns), rows[:, None] + cols, 0)

    def weights(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Rule.weights`: the own counterpart is one of 1 + mass targets."""
        share = self.paired.to(mass.dtype) / (1 + mass)
        return share, share

    def _equal(self, tile: Tile, hidden: Tensor | None, columns: Columns) -> Tensor:
        assert columns.labels is not None
        equal = self.labels[tile.rows, None] == columns.labels
        tile.counterparts(equal).fill_(False)
        return equal if hidden is None else equal & ~hidden


@dataclass
class SoftRule(Rule):
    """Its entries are added by soft.py: the mass is the denominator of the targets' softmax."""

    def weights(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Rule.weights`: the own counterpart is among the m_ij."""
        return torch.zeros_like(mass), self.paired.to(mass.dtype) / torch.where(mass > 0, mass, 1)
