"""What is done to every entry of a tile: plain torch, or kernels that torch.compile makes of the same functions."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor


class Pointwise:
    """compiled: fuse each function's passes over the tile into one (quicker on a GPU; on a CPU it needs a compiler).

    similarities [t, c] may be overwritten. shift: what is taken off them first, a number or a scalar of the device.
    dtype: of results.
    """

    def __init__(self, compiled: bool, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self.device = device
        self.compiled = compiled

    def exponentials(self, similarities: Tensor, shift: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E = exp(S - shift) [t, c] and its sums over columns [t] and over rows [c]."""
        if self.compiled:
            return _compiled(_exponentials)(similarities, self._tensor(shift))
        exponentials = self.shifted(similarities, shift)
        return exponentials, exponentials.sum(dim=1), exponentials.sum(dim=0)

    def add_sums(
        self, exponentials: Tensor, rows: Tensor, columns: Tensor, *, first: bool, part: Tensor | None = None
    ) -> None:
        """Add a tile's sums to ``rows`` [t] and ``columns`` [c]. first: ``rows`` are known to be 0. part: [c], where
        those of columns are put instead."""
        if first:
            torch.sum(exponentials, dim=1, dtype=rows.dtype, out=rows)
        else:
            rows.add_(exponentials.sum(dim=1))
        if part is None:
            columns.add_(exponentials.sum(dim=0))
        else:
            torch.sum(exponentials, dim=0, dtype=part.dtype, out=part)

    def gradient(
        self, similarities: Tensor, shift: float | Tensor, rows: Tensor, columns: Tensor, out: Tensor
    ) -> Tensor:
        """exp(S - shift) (rows_i + columns_j), [t, c]; rows [t], columns [c], out [t, c] of ``dtype``."""
        if self.compiled:
            return _compiled(_gradient)(similarities, self._tensor(shift), rows, columns)
        return self.weighted(self.shifted(similarities, shift), rows, columns, out)

    def weighted(self, exponentials: Tensor, rows: Tensor, columns: Tensor, out: Tensor) -> Tensor:
        """E_ij (rows_i + columns_j), [t, c], for a tile that was kept."""
        return torch.add(rows[:, None], columns, out=out).mul_(exponentials)

    def shifted(self, similarities: Tensor, shift: float | Tensor) -> Tensor:
        """E = exp(S - shift), [t, c]."""
        wide = similarities.to(self.dtype)
        return (wide.sub_(shift) if isinstance(shift, Tensor) or shift else wide).exp_()

    def _tensor(self, shift: float | Tensor) -> Tensor:
        # A number would be compiled in, and a learned scale is another one at every step.
        if isinstance(shift, Tensor):
            return shift.to(self.dtype)
        return torch.full((), shift, dtype=self.dtype, device=self.device)


def _exponentials(similarities: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    exponentials = (similarities.to(shift.dtype) - shift).exp()
    return exponentials, exponentials.sum(dim=1), exponentials.sum(dim=0)


def _gradient(similarities: Tensor, shift: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return (similarities.to(shift.dtype) - shift).exp() * (rows[:, None] + columns)


@functools.cache
def _compiled(function: Callable) -> Callable:
    return torch.compile(function, dynamic=True)
