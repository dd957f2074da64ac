"""Likely false negatives: entries of a tile that lie so far above the own pair that they are left out of the sums.

With S = s cos, row i leaves out column j if S_ij > S_ii + s margin, and column j leaves out row i if S_ij > S_jj + s
margin: one entry may count in one direction and not in the other. What is above by no more than rounding stays, so that
copies of the own counterpart are treated alike in every tile. Counterparts are never left out.

An entry is decided once, in the forward sweep, and its bit is kept for the backward sweep: a product that is computed
again may differ in its last digit, and an entry that is in the sum but not in its gradient would make it wrong. A bit
per entry and direction is a 32nd of a float32 tile.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def _bits(like: Tensor) -> Tensor:
    """uint8 [8]: 1, 2, 4, ... 128; made where ``like`` is, for numbers of the host would have to travel."""
    return torch.bitwise_left_shift(like.new_ones(8, dtype=torch.int32), torch.arange(8, device=like.device)).to(
        torch.uint8
    )


@dataclass(frozen=True)
class LeftOut:
    """Of one tile. rows, columns: bool [t, c], what rows and what columns leave out; None: that direction has none."""

    rows: Tensor
    columns: Tensor | None = None

    def sums(self, exponentials: Tensor) -> tuple[Tensor, Tensor | None]:
        """Sums [t] over columns and [c] over rows of E [t, c], without what is left out."""
        rows = exponentials.masked_fill(self.rows, 0).sum(dim=1)
        return rows, None if self.columns is None else exponentials.masked_fill(self.columns, 0).sum(dim=0)

    def weighted(self, exponentials: Tensor, rows: Tensor, columns: Tensor, out: Tensor) -> Tensor:
        """E_ij (rows_i + columns_j) of what is not left out, [t, c], in ``out``; rows [t], columns [c]."""
        torch.where(self.rows, rows.new_zeros(()), rows[:, None], out=out)
        if self.columns is not None:
            out += torch.where(self.columns, 0, columns)
        return out.mul_(exponentials)

    def packed(self) -> Tensor:
        """uint8 [directions, t, ceil(c / 8)]."""
        masks = [self.rows] if self.columns is None else [self.rows, self.columns]
        bits = torch.nn.functional.pad(torch.stack(masks), (0, -self.rows.shape[1] % 8))
        return (bits.unflatten(-1, (-1, 8)) * _bits(bits)).sum(dim=-1, dtype=torch.uint8)

    @classmethod
    def unpacked(cls, packed: Tensor, columns: int) -> LeftOut:
        """What :meth:`packed` was made of; columns: c."""
        bits = (packed.unsqueeze(-1) & _bits(packed)).ne(0).flatten(-2)[..., :columns]
        return cls(bits[0], bits[1] if len(bits) > 1 else None)
